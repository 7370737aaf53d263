#include "agent/ends.h"

#include "clock.h"
#include "failure.h"

#include <algorithm>

namespace engine_host
{
namespace
{

constexpr int64_t kTransferWaitMs = 50;

// The transfer's two lists.
struct Descriptors
{
    std::vector<kv::MemoryDesc> source;
    std::vector<kv::MemoryDesc> destination;
};

// One pair.
Descriptors staged(Rank const& rank, Piece const& piece, Request const& request, RequestAndBufferInfo const& info)
{
    uint64_t const length = rank.pieceBytes(piece, request.blocks.size());
    if (info.lengthBytes != length)
    {
        throw Failure(FailureKind::kProtocol, "generation rank " + std::to_string(piece.generationRank) + " offers "
                + std::to_string(info.lengthBytes) + " bytes for a piece of " + std::to_string(length));
    }
    uint64_t const ours = rank.slot->address() + rank.place(piece, request.blocks.size());
    return {{kv::MemoryDesc(ours, length, rank.options.memory.device)},
        {kv::MemoryDesc(info.address, length, info.device)}};
}

// A pair per block, or per block, layer and K/V.
Descriptors paged(Rank const& rank, Piece const& piece, Request const& request, RequestAndBufferInfo const& info)
{
    Geometry const& geometry = rank.options.geometry;
    auto const& blocks = request.blocks;
    if (info.blocks.size() != blocks.size())
    {
        throw Failure(FailureKind::kProtocol, "generation rank " + std::to_string(piece.generationRank) + " offers "
                + std::to_string(info.blocks.size()) + " blocks for " + std::to_string(blocks.size()));
    }
    HeadRange const theirs = geometry.generationHeads(piece.generationRank);
    uint64_t const theirBlockBytes = geometry.blockBytes(theirs.count());
    bool const whole = geometry.sameLayout(piece);
    Runs const from = geometry.runs(rank.options.heads(), piece.heads, whole);
    Runs const to = geometry.runs(theirs, piece.heads, whole);
    Descriptors descriptors;
    descriptors.source.reserve(blocks.size() * from.offsets.size());
    descriptors.destination.reserve(descriptors.source.capacity());
    for (size_t logical = 0; logical < blocks.size(); ++logical)
    {
        uint64_t const ours = rank.pool.memory().address() + rank.pool.offsetOf(blocks[logical]);
        uint64_t const their = info.address + info.blocks[logical] * theirBlockBytes;
        for (size_t run = 0; run < from.offsets.size(); ++run)
        {
            descriptors.source.emplace_back(ours + from.offsets[run], from.lengthBytes, rank.options.memory.device);
            descriptors.destination.emplace_back(their + to.offsets[run], from.lengthBytes, info.device);
        }
    }
    return descriptors;
}

} // namespace

struct AgentSender::Sending
{
    std::string peer;
    Descriptors descriptors;
    MemoryKind theirs;
    DoneNotification done;
    std::unique_ptr<kv::TransferStatus> status;
};

AgentSender::AgentSender(Rank& rank)
    : mRank(rank)
    , mEndpoint(rank.options, rank.name, rank.shared())
{
}

std::string AgentSender::connectionInfo()
{
    return mEndpoint.connectionInfo();
}

void AgentSender::turn()
{
    bool heard = false;
    for (Received& received : mEndpoint.receive(heard))
    {
        takeIn(std::move(received));
    }
    mEndpoint.tick();
}

void AgentSender::takeIn(Received received)
{
    auto* const info = std::get_if<RequestAndBufferInfo>(&received.message);
    if (info == nullptr)
    {
        throw Failure(FailureKind::kProtocol, received.peer + " sent something that a generation rank never sends");
    }
    if (!info->metadata.empty())
    {
        mEndpoint.loadByMetadata(received.peer, info->metadata);
    }
    if (!mEndpoint.isLoaded(received.peer))
    {
        throw Failure(FailureKind::kProtocol, received.peer + " asks without ever having sent its descriptor");
    }
    mAsked[info->request].push_back({received.peer, std::move(*info)});
}

size_t AgentSender::asked(uint64_t request) const
{
    auto const asked = mAsked.find(request);
    return asked == mAsked.end() ? 0 : asked->second.size();
}

void AgentSender::send(Request const& request)
{
    auto const asked = mAsked.extract(request.id);
    std::vector<Sending> sendings;
    for (Asked const& to : asked.mapped())
    {
        sendings.push_back(prepare(request, to));
        mEndpoint.send(to.peer, ReadySignal{request.id, mRank.options.rank});
    }
    for (Sending& sending : sendings)
    {
        sending.done.submittedNs = monotonicNs();
        sending.status = mEndpoint.write(sending.peer,
            kv::TransferDescs(typeOf(mRank.options.memory.kind), std::move(sending.descriptors.source)),
            kv::TransferDescs(typeOf(sending.theirs), std::move(sending.descriptors.destination)));
    }
    Event("submitted").number("request", request.id).emit();
    for (Sending& sending : sendings)
    {
        await(*sending.status, sending.peer);
        mEndpoint.send(sending.peer, sending.done);
    }
}

AgentSender::Sending AgentSender::prepare(Request const& request, Asked const& asked)
{
    auto const piece = std::find_if(mRank.pieces.begin(), mRank.pieces.end(),
        [&](Piece const& known) { return known.generationRank == asked.info.generationRank; });
    if (piece == mRank.pieces.end())
    {
        throw Failure(FailureKind::kProtocol, asked.peer + " asks for a piece that this rank does not send");
    }
    auto const describe = mRank.options.shape == Shape::kStaged ? staged : paged;
    Sending sending{asked.peer, describe(mRank, *piece, request, asked.info), asked.info.memory, {}, nullptr};
    sending.done.request = request.id;
    sending.done.contextRank = mRank.options.rank;
    sending.done.lengthBytes = mRank.pieceBytes(*piece, request.blocks.size());
    sending.done.descriptors = sending.descriptors.source.size();
    return sending;
}

void AgentSender::await(kv::TransferStatus const& status, std::string const& peer)
{
    kv::TransferState state = status.wait(kTransferWaitMs);
    while (state == kv::TransferState::kIN_PROGRESS)
    {
        mRank.console.checkStopped();
        turn();
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
