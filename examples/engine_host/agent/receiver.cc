#include "agent/ends.h"

#include "failure.h"

#include <sched.h>

#include <chrono>
#include <thread>

namespace engine_host
{
namespace
{

using Clock = std::chrono::steady_clock;

constexpr auto kTickCheck = std::chrono::milliseconds(20);
constexpr auto kYieldFor = std::chrono::milliseconds(2);
constexpr auto kSleep = std::chrono::microseconds(100);

// Before the next turn of a polling loop: yields while there is work, sleeps shortly once there is none.
void pause(Clock::time_point lastWork)
{
    if (Clock::now() - lastWork < kYieldFor)
    {
        sched_yield();
    }
    else
    {
        std::this_thread::sleep_for(kSleep);
    }
}

} // namespace

AgentReceiver::AgentReceiver(Rank& rank)
    : mRank(rank)
    , mEndpoint(rank.options, rank.name, rank.shared())
{
}

std::string AgentReceiver::connectionInfo()
{
    return mEndpoint.connectionInfo();
}

void AgentReceiver::turn()
{
    takeIn();
    mEndpoint.tick();
}

void AgentReceiver::connect(uint32_t contextRank, std::string name, std::string connectionInfo)
{
    mContexts[contextRank] = {std::move(name), std::move(connectionInfo)};
}

std::vector<Delivery> AgentReceiver::receive(Request const& request)
{
    mLanding = Landing{request.id, 0, {}};
    for (Piece const& piece : mRank.pieces)
    {
        ask(piece, request);
    }
    awaitAll();
    auto const done = std::move(mLanding->done);
    mLanding.reset();
    return done;
}

void AgentReceiver::ask(Piece const& piece, Request const& request)
{
    auto const context = mContexts.find(piece.contextRank);
    if (context == mContexts.end())
    {
        throw Failure(
            FailureKind::kUsage, "no connect command has named context rank " + std::to_string(piece.contextRank));
    }
    std::string const& peer = context->second.name;
    MemoryChoice const& memory = mRank.options.memory;
    RequestAndBufferInfo info{request.id, mRank.options.rank, 0, 0, memory.kind, memory.device, {}, {}};
    if (!mEndpoint.isLoaded(peer))
    {
        mEndpoint.loadByConnectionInfo(peer, context->second.connectionInfo);
        info.metadata = mEndpoint.metadata();
    }
    if (mRank.options.shape == Shape::kStaged)
    {
        info.lengthBytes = mRank.pieceBytes(piece, request.blocks.size());
        info.address = mRank.slot->address() + mRank.place(piece, request.blocks.size());
    }
    else
    {
        info.lengthBytes = mRank.pool.memory().size();
        info.address = mRank.pool.memory().address();
        info.blocks = request.blocks;
    }
    mEndpoint.send(peer, info);
}

void AgentReceiver::awaitAll()
{
    auto lastHeard = Clock::now();
    auto lastTick = lastHeard;
    while (mLanding->done.size() < mRank.pieces.size())
    {
        bool const heard = takeIn();
        auto const now = Clock::now();
        if (heard)
        {
            lastHeard = now;
        }
        if (now - lastTick > kTickCheck)
        {
            lastTick = now;
            mRank.console.checkStopped();
            mEndpoint.tick();
        }
        if (now - lastHeard > std::chrono::milliseconds(mRank.options.patienceMs))
        {
            throw Failure(FailureKind::kTimeout, "request " + std::to_string(mLanding->request) + ": nothing heard for "
                    + std::to_string(mRank.options.patienceMs) + " ms; " + std::to_string(mLanding->ready) + " of "
                    + std::to_string(mRank.pieces.size()) + " context ranks were ready, "
                    + std::to_string(mLanding->done.size()) + " done");
        }
        pause(lastHeard);
    }
}

// Whether anything has come.
bool AgentReceiver::takeIn()
{
    bool heard = false;
    for (Received const& received : mEndpoint.receive(heard))
    {
        takeIn(received);
    }
    return heard;
}

void AgentReceiver::takeIn(Received const& received)
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
        mLanding->done.push_back({done->submittedNs, done->lengthBytes, done->descriptors});
    }
    else
    {
        throw Failure(FailureKind::kProtocol, received.peer + " sent something that a context rank never sends");
    }
}

} // namespace engine_host
