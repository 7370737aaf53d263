#include "failure.h"
#include "pattern.h"
#include "roles.h"

#include <algorithm>
#include <cstring>

namespace engine_host
{
namespace
{

constexpr int kCommandWaitMs = 1;
constexpr int64_t kTransferWaitMs = 50;

} // namespace

ContextRank::ContextRank(Options const& options, Console& console)
    : mRank(options, console)
    , mPieces(mRank.pieces())
{
}

void ContextRank::run()
{
    mRank.run(
        kCommandWaitMs, [this](std::vector<std::string> const& words) { obey(words); },
        [this](Received&& received) { takeIn(std::move(received)); }, [this] { serve(); });
}

void ContextRank::obey(std::vector<std::string> const& words)
{
    if (words[0] == "prepare" && words.size() == 4)
    {
        bool const corrupt = parseNumber(words[3], "CORRUPT") != 0;
        prepare(parseNumber(words[1], "REQUEST"), parseNumber(words[2], "TOKENS"), corrupt);
    }
    else if (words[0] == "quit" && words.size() == 1)
    {
        mRank.quit();
        Event("summary").emit();
    }
    else
    {
        throw Failure(FailureKind::kUsage, "a context rank does not know the command \"" + words[0] + "\" with "
                + std::to_string(words.size() - 1) + " words");
    }
}

// Plays prefill: the request's KV comes to be in the pool, and, staged, in the slot.
void ContextRank::prepare(uint64_t request, uint64_t tokens, bool corrupt)
{
    if (mPrepared)
    {
        throw Failure(FailureKind::kUsage, "request " + std::to_string(mPrepared->request) + " has not been sent yet");
    }
    Options const& options = mRank.options;
    mPrepared = Prepared{request, mRank.pool.allocate(options.geometry.blocksFor(tokens))};
    auto const& blocks = mPrepared->blocks;
    for (size_t logical = 0; logical < blocks.size(); ++logical)
    {
        mRank.console.checkStopped(); // filling may take seconds: nobody may be there any more
        fillBlock(mRank.pool.block(blocks[logical]), options.geometry, options.heads(), request, logical);
    }
    if (options.shape == Shape::kStaged)
    {
        gather();
    }
    if (corrupt)
    {
        corruptOneByte();
    }
    Event("prepared").number("request", request).number("blocks", blocks.size()).emit();
}

// Packs each destination's piece: block after block, its heads only.
void ContextRank::gather()
{
    Geometry const& geometry = mRank.options.geometry;
    HeadRange const held = mRank.options.heads();
    mRank.requireSlot(mPrepared->request, mPrepared->blocks.size());
    for (Piece const& piece : mPieces)
    {
        Runs const runs = geometry.runs(held, piece.heads, piece.heads == held);
        std::byte* out = mRank.slot.data() + geometry.slotOffset(held, piece.heads, mPrepared->blocks.size());
        for (uint32_t const block : mPrepared->blocks)
        {
            for (uint64_t const offset : runs.offsets)
            {
                std::memcpy(out, mRank.pool.block(block) + offset, runs.lengthBytes);
                out += runs.lengthBytes;
            }
        }
    }
}

// Flips one bit of one byte that will travel, after the filling: the check on the other side must see it.
void ContextRank::corruptOneByte()
{
    if (mPieces.empty() || mPrepared->blocks.empty())
    {
        throw Failure(FailureKind::kUsage, "this rank sends nothing that could be corrupted");
    }
    Geometry const& geometry = mRank.options.geometry;
    Piece const& piece = mPieces.front();
    if (mRank.options.shape == Shape::kStaged)
    {
        uint64_t const length = geometry.blockBytes(piece.heads.count()) * mPrepared->blocks.size();
        uint64_t const first = geometry.slotOffset(mRank.options.heads(), piece.heads, mPrepared->blocks.size());
        mRank.slot.data()[first + length / 3] ^= std::byte{0x40};
        return;
    }
    Runs const runs = geometry.runs(mRank.options.heads(), piece.heads, false);
    uint32_t const block = mPrepared->blocks[mPrepared->blocks.size() / 3];
    uint64_t const offset = runs.offsets[runs.offsets.size() / 2] + runs.lengthBytes / 3;
    mRank.pool.block(block)[offset] ^= std::byte{0x40};
}

void ContextRank::takeIn(Received received)
{
    auto* const info = std::get_if<RequestAndBufferInfo>(&received.message);
    if (info == nullptr)
    {
        throw Failure(FailureKind::kProtocol, received.peer + " sent something that a generation rank never sends");
    }
    if (!info->metadata.empty())
    {
        mRank.endpoint.loadByMetadata(received.peer, info->metadata);
    }
    if (!mRank.endpoint.isLoaded(received.peer))
    {
        throw Failure(FailureKind::kProtocol, received.peer + " asks without ever having sent its descriptor");
    }
    mAsked[info->request].push_back({received.peer, std::move(*info)});
}

// Sends the prepared request once everyone who gets a piece of it has asked.
void ContextRank::serve()
{
    if (!mPrepared)
    {
        return;
    }
    auto const asked = mAsked.find(mPrepared->request);
    size_t const count = asked == mAsked.end() ? 0 : asked->second.size();
    if (count < mPieces.size())
    {
        return;
    }
    if (count > 0)
    {
        send(asked->second);
        mAsked.erase(asked);
    }
    mRank.pool.release(mPrepared->blocks);
    uint64_t const request = mPrepared->request;
    mPrepared.reset();
    Event("sent").number("request", request).emit();
}

void ContextRank::send(std::vector<Asked> const& asked)
{
    struct Sending
    {
        Asked const* to;
        std::vector<kv::MemoryDesc> source;
        std::vector<kv::MemoryDesc> destination;
        DoneNotification done;
        std::unique_ptr<kv::TransferStatus> status;
    };

    uint64_t const request = mPrepared->request;
    std::vector<Sending> sendings;
    for (Asked const& to : asked)
    {
        auto const piece = std::find_if(mPieces.begin(), mPieces.end(),
            [&](Piece const& known) { return known.generationRank == to.info.generationRank; });
        if (piece == mPieces.end())
        {
            throw Failure(FailureKind::kProtocol, to.peer + " asks for a piece that this rank does not send");
        }
        Sending sending{&to, {}, {}, {request, mRank.options.rank, 0, 0, 0}, nullptr};
        describe(*piece, to.info, sending.source, sending.destination);
        sending.done.lengthBytes = mRank.options.geometry.blockBytes(piece->heads.count()) * mPrepared->blocks.size();
        sending.done.descriptors = sending.source.size();
        mRank.endpoint.send(to.peer, ReadySignal{request, mRank.options.rank});
        sendings.push_back(std::move(sending));
    }
    for (Sending& sending : sendings)
    {
        sending.done.submittedNs = monotonicNs();
        sending.status
            = mRank.endpoint.write(sending.to->peer, std::move(sending.source), std::move(sending.destination));
    }
    Event("submitted").number("request", request).emit();
    for (Sending& sending : sendings)
    {
        await(*sending.status, sending.to->peer);
        mRank.endpoint.send(sending.to->peer, sending.done);
    }
}

// The transfer's two lists: one pair when staged; per block, or per block, layer and K/V, when paged.
void ContextRank::describe(Piece const& piece, RequestAndBufferInfo const& info, std::vector<kv::MemoryDesc>& source,
    std::vector<kv::MemoryDesc>& destination) const
{
    Geometry const& geometry = mRank.options.geometry;
    auto const& blocks = mPrepared->blocks;
    std::string const who = "generation rank " + std::to_string(piece.generationRank);
    if (mRank.options.shape == Shape::kStaged)
    {
        uint64_t const length = geometry.blockBytes(piece.heads.count()) * blocks.size();
        if (info.lengthBytes != length)
        {
            throw Failure(FailureKind::kProtocol, who + " offers " + std::to_string(info.lengthBytes)
                    + " bytes for a piece of " + std::to_string(length));
        }
        uint64_t const offset = geometry.slotOffset(mRank.options.heads(), piece.heads, blocks.size());
        source.emplace_back(mRank.slot.data() + offset, length, 0U);
        destination.emplace_back(info.address, length, 0U);
        return;
    }
    HeadRange const theirs = geometry.generationHeads(piece.generationRank);
    uint64_t const theirBlockBytes = geometry.blockBytes(theirs.count());
    if (info.blocks.size() != blocks.size())
    {
        throw Failure(FailureKind::kProtocol, who + " offers " + std::to_string(info.blocks.size()) + " blocks for "
                + std::to_string(blocks.size()));
    }
    bool const whole = geometry.sameLayout(piece);
    Runs const from = geometry.runs(mRank.options.heads(), piece.heads, whole);
    Runs const to = geometry.runs(theirs, piece.heads, whole);
    source.reserve(blocks.size() * from.offsets.size());
    destination.reserve(source.capacity());
    for (size_t logical = 0; logical < blocks.size(); ++logical)
    {
        auto* const ours = mRank.pool.block(blocks[logical]);
        uint64_t const their = info.address + info.blocks[logical] * theirBlockBytes;
        for (size_t run = 0; run < from.offsets.size(); ++run)
        {
            source.emplace_back(ours + from.offsets[run], from.lengthBytes, 0U);
            destination.emplace_back(their + to.offsets[run], from.lengthBytes, 0U);
        }
    }
}

void ContextRank::await(kv::TransferStatus const& status, std::string const& peer)
{
    kv::TransferState state = status.wait(kTransferWaitMs);
    while (state == kv::TransferState::kIN_PROGRESS)
    {
        mRank.tick();
        state = status.wait(kTransferWaitMs);
    }
    if (state != kv::TransferState::kSUCCESS)
    {
        std::string const why = status.getLastStatusStr();
        throw Failure(FailureKind::kTransferFailed,
            "the transfer to " + peer + " failed" + (why.empty() ? std::string{} : ": " + why), peer);
    }
}

} // namespace engine_host
