#include "connections/ends.h"

#include "clock.h"
#include "failure.h"

#include <algorithm>
#include <cstring>

namespace engine_host
{
namespace
{

constexpr std::chrono::milliseconds kTurn{20};

} // namespace

ConnectionReceiver::ConnectionReceiver(Rank& rank)
    : mRank(rank)
    , mManager(rank.options)
    , mWatch(mTerminate)
{
}

ConnectionReceiver::~ConnectionReceiver()
{
    mTerminate = true;
}

std::string ConnectionReceiver::connectionInfo()
{
    return mManager.connectionInfo();
}

void ConnectionReceiver::turn()
{
    mWatch.tick();
}

void ConnectionReceiver::quit()
{
    mTerminate = true;
}

void ConnectionReceiver::connect(uint32_t contextRank, std::string name, std::string connectionInfo)
{
    mContexts[contextRank] = {std::move(name), std::move(connectionInfo)};
}

std::vector<Delivery> ConnectionReceiver::receive(Request const& request)
{
    std::vector<Channel> const contexts = connectAll();
    for (Piece const& piece : mRank.pieces)
    {
        mWatch.add(contexts[piece.contextRank]);
        ask(contexts[piece.contextRank], request);
    }
    mLandedNs = monotonicNs();
    std::vector<Delivery> deliveries(mRank.pieces.size());
    Crew crew;
    for (size_t at = 0; at < deliveries.size(); ++at)
    {
        Piece const& piece = mRank.pieces[at];
        crew.start([&, at] { deliveries[at] = land(contexts[piece.contextRank], piece, request); });
    }
    await(crew, request);
    return deliveries;
}

// To every rank of the context phase, as TensorRT-LLM does it, for each request anew: the library keeps them.
std::vector<Channel> ConnectionReceiver::connectAll()
{
    std::vector<std::string> infos;
    for (auto const& [rank, context] : mContexts)
    {
        infos.push_back(context.connectionInfo);
    }
    uint32_t const ranks = mRank.options.geometry.contextTp;
    if (infos.size() != ranks)
    {
        throw Failure(FailureKind::kUsage, "connect commands have named " + std::to_string(infos.size()) + " of "
                + std::to_string(ranks) + " context ranks");
    }
    std::vector<kv::Connection const*> const connections = mManager.connect(infos);
    std::vector<Channel> channels;
    for (auto const& [rank, context] : mContexts)
    {
        channels.emplace_back(connections.at(rank), context.name, mTerminate);
    }
    return channels;
}

void ConnectionReceiver::ask(Channel const& channel, Request const& request)
{
    RequestInfo const info{request.id, mRank.options.rank, request.blocks.size()};
    std::string bytes(sizeof(info), '\0');
    std::memcpy(bytes.data(), &info, sizeof(info));
    bytes += mRank.name;
    channel.say(kIdTag, kRequestSend);
    channel.say(kInfoSizeTag, uint64_t{bytes.size()});
    channel.send(kInfoTag, bytes.data(), bytes.size());
}

// Runs on a thread of the crew. Rounds go into the pool at once, since the next one needs the slot.
Delivery ConnectionReceiver::land(Channel const& channel, Piece const& piece, Request const& request)
{
    auto const ready = channel.hear<Ready>(kReadySignalTag);
    if (ready.request != request.id || ready.contextRank != piece.contextRank)
    {
        throw Failure(FailureKind::kProtocol, channel.peer() + " is ready as context rank "
                + std::to_string(ready.contextRank) + " for request " + std::to_string(ready.request)
                + ", which is not being received");
    }
    uint64_t const blocks = request.blocks.size();
    uint64_t const perRound = mRank.fitsSlot(blocks) ? blocks : mRank.options.slotBlocks();
    uint64_t const share = mRank.place(piece, perRound);
    Delivery delivery{ready.readyNs, 0, 0};
    for (uint64_t first = 0; first < blocks; first += perRound)
    {
        BlockSpan const round{request.blocks.data() + first, std::min(perRound, blocks - first)};
        uint64_t const length = mRank.pieceBytes(piece, round.count);
        channel.receive(dataTag(request.id), mRank.slot->at(share), length);
        mLandedNs = monotonicNs();
        delivery.lengthBytes += length;
        delivery.descriptors += 1;
        if (perRound < blocks)
        {
            mRank.scatter(piece, round, share);
        }
    }
    return delivery;
}

void ConnectionReceiver::await(Crew& crew, Request const& request)
{
    try
    {
        while (!crew.done(kTurn))
        {
            mRank.console.checkStopped();
            turn();
            uint64_t const heardNs = std::max(mWatch.heardNs(), mLandedNs.load());
            if (monotonicNs() > heardNs + mRank.options.patienceMs * 1'000'000)
            {
                throw Failure(FailureKind::kTimeout, "request " + std::to_string(request.id)
                        + ": nothing heard for " + std::to_string(mRank.options.patienceMs) + " ms");
            }
        }
    }
    catch (...)
    {
        mTerminate = true; // ends what the crew waits for
        throw;
    }
}

} // namespace engine_host
