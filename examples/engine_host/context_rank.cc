#include "failure.h"
#include "pattern.h"
#include "roles.h"
#include "serve.h"

namespace engine_host
{
namespace
{

constexpr int kCommandWaitMs = 1;

} // namespace

ContextRank::ContextRank(Options const& options, Console& console)
    : mRank(options, console)
    , mSender(makeSender(mRank))
{
}

void ContextRank::run()
{
    engine_host::serve(
        mRank, *mSender, kCommandWaitMs, [this](std::vector<std::string> const& words) { return obey(words); },
        [this] { serve(); });
}

bool ContextRank::obey(std::vector<std::string> const& words)
{
    if (words[0] == "prepare" && words.size() == 4)
    {
        bool const corrupt = parseNumber(words[3], "CORRUPT") != 0;
        prepare(parseNumber(words[1], "REQUEST"), parseNumber(words[2], "TOKENS"), corrupt);
        return true;
    }
    if (words[0] == "quit" && words.size() == 1)
    {
        mSender->quit();
        Event("summary").emit();
        return false;
    }
    refuseCommand("context", words);
}

// Plays prefill: the request's KV comes to be in the pool, and, staged, in the slot if that holds it.
void ContextRank::prepare(uint64_t request, uint64_t tokens, bool corrupt)
{
    if (mPrepared)
    {
        throw Failure(FailureKind::kUsage, "request " + std::to_string(mPrepared->id) + " has not been sent yet");
    }
    Options const& options = mRank.options;
    mPrepared = Request{request, mRank.pool.allocate(options.geometry.blocksFor(tokens))};
    auto const& blocks = mPrepared->blocks;
    if (options.shape == Shape::kStaged && !options.sendsInRounds())
    {
        mRank.requireSlot(*mPrepared);
    }
    for (size_t logical = 0; logical < blocks.size(); ++logical)
    {
        mRank.console.checkStopped(); // filling may take seconds: nobody may be there any more
        mRank.pool.changeBlock(blocks[logical],
            [&](std::byte* block) { fillBlock(block, options.geometry, options.heads(), request, logical); });
    }
    if (corrupt)
    {
        corruptOneByte();
    }
    if (options.shape == Shape::kStaged && mRank.fitsSlot(blocks.size()))
    {
        for (Piece const& piece : mRank.pieces)
        {
            mRank.gather(piece, allOf(*mPrepared), mRank.place(piece, blocks.size()));
        }
    }
    Event("prepared").number("request", request).number("blocks", blocks.size()).emit();
}

// Flips one bit of one byte that will travel, after the filling: the check on the other side must see it.
void ContextRank::corruptOneByte()
{
    if (mRank.pieces.empty() || mPrepared->blocks.empty())
    {
        throw Failure(FailureKind::kUsage, "this rank sends nothing that could be corrupted");
    }
    Runs const runs = mRank.options.geometry.runs(mRank.options.heads(), mRank.pieces.front().heads, false);
    uint32_t const block = mPrepared->blocks[mPrepared->blocks.size() / 3];
    uint64_t const offset = runs.offsets[runs.offsets.size() / 2] + runs.lengthBytes / 3;
    mRank.pool.changeBlock(block, [offset](std::byte* bytes) { bytes[offset] ^= std::byte{0x40}; });
}

// Sends the prepared request once everyone who gets a piece of it has asked.
void ContextRank::serve()
{
    if (!mPrepared || mSender->asked(mPrepared->id) < mRank.pieces.size())
    {
        return;
    }
    if (!mRank.pieces.empty())
    {
        mSender->send(*mPrepared);
    }
    mRank.pool.release(mPrepared->blocks);
    uint64_t const request = mPrepared->id;
    mPrepared.reset();
    Event("sent").number("request", request).emit();
}

} // namespace engine_host
