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

ConnectionSender::ConnectionSender(Rank& rank)
    : mRank(rank)
    , mManager(rank.options)
    , mWatch(mTerminate)
{
    for (Piece const& piece : rank.pieces)
    {
        mShares[piece.heads.begin];
    }
    mAccepting = std::thread([this] { acceptAll(); });
}

ConnectionSender::~ConnectionSender()
{
    mTerminate = true;
    mAccepting.join();
}

std::string ConnectionSender::connectionInfo()
{
    return mManager.connectionInfo();
}

void ConnectionSender::turn()
{
    {
        std::lock_guard<std::mutex> const lock(mMutex);
        if (mAcceptFailed)
        {
            std::rethrow_exception(mAcceptFailed);
        }
    }
    mWatch.tick();
}

void ConnectionSender::quit()
{
    mTerminate = true;
}

size_t ConnectionSender::asked(uint64_t request) const
{
    std::lock_guard<std::mutex> const lock(mMutex);
    auto const asked = mAsked.find(request);
    return asked == mAsked.end() ? 0 : asked->second.size();
}

void ConnectionSender::acceptAll()
{
    try
    {
        while (acceptOne())
        {
        }
    }
    catch (...)
    {
        std::lock_guard<std::mutex> const lock(mMutex);
        mAcceptFailed = mTerminate ? nullptr : std::current_exception();
    }
}

// False once this end terminates.
bool ConnectionSender::acceptOne()
{
    uint64_t id = 0;
    auto const* const connection = mManager.accept(id, mTerminate);
    if (connection == nullptr)
    {
        return false;
    }
    Channel const stranger(connection, "a generation rank", mTerminate);
    auto const size = stranger.hear<uint64_t>(kInfoSizeTag);
    if (id != kRequestSend || size < sizeof(RequestInfo) || size > kMaxInfoBytes)
    {
        throw Failure(FailureKind::kProtocol, "somebody has sent the id " + std::to_string(id) + " and an info of "
                + std::to_string(size) + " bytes");
    }
    std::string bytes(size, '\0');
    stranger.receive(kInfoTag, bytes.data(), bytes.size());
    Asked asked{Channel(connection, bytes.substr(sizeof(RequestInfo)), mTerminate), {}};
    std::memcpy(&asked.info, bytes.data(), sizeof(RequestInfo));
    mWatch.add(asked.channel);
    std::lock_guard<std::mutex> const lock(mMutex);
    mAsked[asked.info.request].push_back(std::move(asked));
    return true;
}

void ConnectionSender::send(Request const& request)
{
    std::vector<Asked> asked;
    {
        std::lock_guard<std::mutex> const lock(mMutex);
        asked = std::move(mAsked.extract(request.id).mapped());
    }
    Crew crew;
    try
    {
        for (Asked const& to : asked)
        {
            pieceFor(to, request);
            to.channel.say(kReadySignalTag, Ready{request.id, mRank.options.rank, monotonicNs()});
        }
        for (Asked const& to : asked)
        {
            crew.start([&] { sendPiece(to.channel, pieceFor(to, request), request); });
        }
        Event("submitted").number("request", request.id).emit();
        while (!crew.done(kTurn))
        {
            mRank.console.checkStopped();
            turn();
        }
    }
    catch (...)
    {
        mTerminate = true; // ends what the crew is at
        throw;
    }
}

Piece const& ConnectionSender::pieceFor(Asked const& asked, Request const& request) const
{
    auto const piece = std::find_if(mRank.pieces.begin(), mRank.pieces.end(),
        [&](Piece const& known) { return known.generationRank == asked.info.generationRank; });
    if (piece == mRank.pieces.end() || asked.info.blocks != request.blocks.size())
    {
        throw Failure(FailureKind::kProtocol, asked.channel.peer() + " asks for " + std::to_string(asked.info.blocks)
                + " blocks as generation rank " + std::to_string(asked.info.generationRank)
                + "; this rank does not send it that");
    }
    return *piece;
}

// Runs on a thread of the crew.
void ConnectionSender::sendPiece(Channel const& channel, Piece const& piece, Request const& request)
{
    int const tag = dataTag(request.id);
    uint64_t const blocks = request.blocks.size();
    if (mRank.fitsSlot(blocks))
    {
        channel.send(tag, mRank.slot->at(mRank.place(piece, blocks)), mRank.pieceBytes(piece, blocks));
        return;
    }
    uint64_t const perRound = mRank.options.slotBlocks();
    std::lock_guard<std::mutex> const lock(mShares.at(piece.heads.begin));
    uint64_t const share = mRank.place(piece, perRound);
    for (uint64_t first = 0; first < blocks; first += perRound)
    {
        BlockSpan const round{request.blocks.data() + first, std::min(perRound, blocks - first)};
        mRank.gather(piece, round, share);
        channel.send(tag, mRank.slot->at(share), mRank.pieceBytes(piece, round.count));
    }
}

} // namespace engine_host
