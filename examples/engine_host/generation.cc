#include "failure.h"
#include "pattern.h"
#include "roles.h"

#include <algorithm>
#include <cstring>

namespace engine_host
{
namespace
{

using Clock = std::chrono::steady_clock;

constexpr int kCommandWaitMs = 20;
constexpr auto kTickCheck = std::chrono::milliseconds(20);

} // namespace

GenerationRank::GenerationRank(Options const& options, Console& console)
    : mRank(options, console)
    , mPieces(mRank.pieces())
{
}

void GenerationRank::run()
{
    mRank.run(
        kCommandWaitMs, [this](std::vector<std::string> const& words) { obey(words); },
        [this](Received&& received) { takeIn(std::move(received)); }, [] {});
}

void GenerationRank::obey(std::vector<std::string> const& words)
{
    if (words[0] == "connect" && words.size() == 4)
    {
        mContexts[parseNumber(words[1], "CONTEXT_RANK")] = {words[2], words[3]};
    }
    else if (words[0] == "receive" && words.size() == 3)
    {
        receive(parseNumber(words[1], "REQUEST"), parseNumber(words[2], "TOKENS"));
    }
    else if (words[0] == "check" && words.size() == 2)
    {
        check(parseNumber(words[1], "REQUEST"));
    }
    else if (words[0] == "quit" && words.size() == 1)
    {
        mRank.quit();
        Event("summary").number("corrupt", mCorrupt).emit();
    }
    else
    {
        throw Failure(FailureKind::kUsage, "a generation rank does not know the command \"" + words[0] + "\" with "
                + std::to_string(words.size() - 1) + " words");
    }
}

// Asks every context rank that holds a part of the request, and waits until all of it has landed.
void GenerationRank::receive(uint64_t request, uint64_t tokens)
{
    if (mLanding)
    {
        throw Failure(
            FailureKind::kUsage, "request " + std::to_string(mLanding->request) + " has not been checked yet");
    }
    mLanding = Landing{request, mRank.pool.allocate(mRank.options.geometry.blocksFor(tokens)), 0, {}};
    if (mRank.options.shape == Shape::kStaged)
    {
        mRank.requireSlot(request, mLanding->blocks.size());
    }
    for (Piece const& piece : mPieces)
    {
        ask(piece);
    }
    awaitAll();
    reportReceived();
}

void GenerationRank::reportReceived() const
{
    uint64_t const doneNs = monotonicNs();
    uint64_t submittedNs = UINT64_MAX;
    uint64_t lengthBytes = 0;
    uint64_t descriptors = 0;
    for (DoneNotification const& done : mLanding->done)
    {
        submittedNs = std::min(submittedNs, done.submittedNs);
        lengthBytes += done.lengthBytes;
        descriptors += done.descriptors;
    }
    Event("received")
        .number("request", mLanding->request)
        .number("submitted_ns", submittedNs)
        .number("done_ns", doneNs)
        .number("bytes", lengthBytes)
        .number("descriptors", descriptors)
        .emit();
}

void GenerationRank::ask(Piece const& piece)
{
    auto const context = mContexts.find(piece.contextRank);
    if (context == mContexts.end())
    {
        throw Failure(
            FailureKind::kUsage, "no connect command has named context rank " + std::to_string(piece.contextRank));
    }
    std::string const& peer = context->second.name;
    RequestAndBufferInfo info{mLanding->request, mRank.options.rank, 0, 0, {}, {}};
    if (!mRank.endpoint.isLoaded(peer))
    {
        mRank.endpoint.loadByConnectionInfo(peer, context->second.connectionInfo);
        info.metadata = mRank.endpoint.metadata();
    }
    if (mRank.options.shape == Shape::kStaged)
    {
        Geometry const& geometry = mRank.options.geometry;
        uint64_t const blocks = mLanding->blocks.size();
        info.lengthBytes = geometry.blockBytes(piece.heads.count()) * blocks;
        info.address = reinterpret_cast<uintptr_t>(mRank.slot.data())
            + geometry.slotOffset(mRank.options.heads(), piece.heads, blocks);
    }
    else
    {
        info.lengthBytes = mRank.pool.mapping().size();
        info.address = reinterpret_cast<uintptr_t>(mRank.pool.mapping().data());
        info.blocks = mLanding->blocks;
    }
    mRank.endpoint.send(peer, info);
}

void GenerationRank::awaitAll()
{
    Backoff backoff;
    auto lastHeard = Clock::now();
    auto lastTick = lastHeard;
    while (mLanding->done.size() < mPieces.size())
    {
        bool heard = false;
        for (Received const& received : mRank.endpoint.receive(heard))
        {
            takeIn(received);
        }
        auto const now = Clock::now();
        if (heard)
        {
            lastHeard = now;
            backoff.worked();
        }
        if (now - lastTick > kTickCheck)
        {
            lastTick = now;
            mRank.tick();
        }
        if (now - lastHeard > std::chrono::milliseconds(mRank.options.patienceMs))
        {
            throw Failure(FailureKind::kTimeout, "request " + std::to_string(mLanding->request) + ": nothing heard for "
                    + std::to_string(mRank.options.patienceMs) + " ms; " + std::to_string(mLanding->ready) + " of "
                    + std::to_string(mPieces.size()) + " context ranks were ready, "
                    + std::to_string(mLanding->done.size()) + " done");
        }
        backoff.idle();
    }
}

void GenerationRank::takeIn(Received const& received)
{
    auto const expect = [&](uint64_t request)
    {
        if (!mLanding || mLanding->request != request)
        {
            throw Failure(FailureKind::kProtocol,
                received.peer + " speaks of request " + std::to_string(request) + ", which is not being received");
        }
    };
    if (auto const* const ready = std::get_if<ReadySignal>(&received.message))
    {
        expect(ready->request);
        ++mLanding->ready;
    }
    else if (auto const* const done = std::get_if<DoneNotification>(&received.message))
    {
        expect(done->request);
        mLanding->done.push_back(*done);
    }
    else
    {
        throw Failure(FailureKind::kProtocol, received.peer + " sent something that a context rank never sends");
    }
}

// Holds every byte against what it must be. Bytes of an earlier request would differ too: the pattern knows the
// request's id.
void GenerationRank::check(uint64_t request)
{
    if (!mLanding || mLanding->request != request)
    {
        throw Failure(FailureKind::kUsage, "request " + std::to_string(request) + " has not been received");
    }
    Options const& options = mRank.options;
    if (options.shape == Shape::kStaged)
    {
        scatter();
    }
    uint64_t wrongBlocks = 0;
    std::string firstWrong;
    for (size_t logical = 0; logical < mLanding->blocks.size(); ++logical)
    {
        mRank.console.checkStopped(); // checking may take seconds: nobody may be there any more
        auto const wrong = findWrongByte(
            mRank.pool.block(mLanding->blocks[logical]), options.geometry, options.heads(), request, logical);
        if (wrong && wrongBlocks++ == 0)
        {
            firstWrong = "block " + std::to_string(logical) + " at byte " + std::to_string(*wrong);
        }
    }
    mCorrupt += wrongBlocks == 0 ? 0 : 1;
    mRank.pool.release(mLanding->blocks);
    mLanding.reset();
    Event("checked")
        .number("request", request)
        .number("wrong_blocks", wrongBlocks)
        .text("first_wrong", firstWrong)
        .emit();
}

// Unpacks the slot into the request's blocks: the mirror of the context's gather.
void GenerationRank::scatter()
{
    Geometry const& geometry = mRank.options.geometry;
    HeadRange const held = mRank.options.heads();
    for (Piece const& piece : mPieces)
    {
        Runs const runs = geometry.runs(held, piece.heads, piece.heads == held);
        std::byte const* in = mRank.slot.data() + geometry.slotOffset(held, piece.heads, mLanding->blocks.size());
        for (uint32_t const block : mLanding->blocks)
        {
            for (uint64_t const offset : runs.offsets)
            {
                std::memcpy(mRank.pool.block(block) + offset, in, runs.lengthBytes);
                in += runs.lengthBytes;
            }
        }
    }
}

} // namespace engine_host
