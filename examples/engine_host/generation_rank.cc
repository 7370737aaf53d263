#include "clock.h"
#include "failure.h"
#include "pattern.h"
#include "roles.h"
#include "serve.h"

#include <algorithm>

namespace engine_host
{
namespace
{

constexpr int kCommandWaitMs = 20;

void report(uint64_t request, std::vector<Delivery> const& deliveries)
{
    uint64_t const doneNs = monotonicNs();
    Delivery sum{UINT64_MAX, 0, 0};
    for (Delivery const& delivery : deliveries)
    {
        sum.submittedNs = std::min(sum.submittedNs, delivery.submittedNs);
        sum.lengthBytes += delivery.lengthBytes;
        sum.descriptors += delivery.descriptors;
    }
    Event("received")
        .number("request", request)
        .number("submitted_ns", sum.submittedNs)
        .number("done_ns", doneNs)
        .number("bytes", sum.lengthBytes)
        .number("descriptors", sum.descriptors)
        .emit();
}

} // namespace

GenerationRank::GenerationRank(Options const& options, Console& console)
    : mRank(options, console)
    , mReceiver(makeReceiver(mRank))
{
}

void GenerationRank::run()
{
    serve(
        mRank, *mReceiver, kCommandWaitMs, [this](std::vector<std::string> const& words) { return obey(words); },
        [] {});
}

bool GenerationRank::obey(std::vector<std::string> const& words)
{
    if (words[0] == "connect" && words.size() == 4)
    {
        uint64_t const rank = parseNumber(words[1], "CONTEXT_RANK");
        if (rank >= mRank.options.geometry.contextTp)
        {
            throw Failure(FailureKind::kUsage, "connect: there is no context rank " + words[1] + " in "
                    + std::to_string(mRank.options.geometry.contextTp));
        }
        mReceiver->connect(static_cast<uint32_t>(rank), words[2], words[3]);
        return true;
    }
    if (words[0] == "receive" && words.size() == 3)
    {
        receive(parseNumber(words[1], "REQUEST"), parseNumber(words[2], "TOKENS"));
        return true;
    }
    if (words[0] == "check" && words.size() == 2)
    {
        check(parseNumber(words[1], "REQUEST"));
        return true;
    }
    if (words[0] == "quit" && words.size() == 1)
    {
        mReceiver->quit();
        Event("summary").number("corrupt", mCorrupt).emit();
        return false;
    }
    refuseCommand("generation", words);
}

void GenerationRank::receive(uint64_t request, uint64_t tokens)
{
    if (mLanded)
    {
        throw Failure(FailureKind::kUsage, "request " + std::to_string(mLanded->id) + " has not been checked yet");
    }
    Options const& options = mRank.options;
    mLanded = Request{request, mRank.pool.allocate(options.geometry.blocksFor(tokens))};
    if (options.shape == Shape::kStaged && !options.sendsInRounds())
    {
        mRank.requireSlot(*mLanded);
    }
    report(request, mReceiver->receive(*mLanded));
}

// Holds every byte against what it must be. Bytes of an earlier request would differ too: the pattern knows the
// request's id.
void GenerationRank::check(uint64_t request)
{
    if (!mLanded || mLanded->id != request)
    {
        throw Failure(FailureKind::kUsage, "request " + std::to_string(request) + " has not been received");
    }
    Options const& options = mRank.options;
    auto const& blocks = mLanded->blocks;
    if (options.shape == Shape::kStaged && mRank.fitsSlot(blocks.size()))
    {
        for (Piece const& piece : mRank.pieces)
        {
            mRank.scatter(piece, allOf(*mLanded), mRank.place(piece, blocks.size()));
        }
    }
    uint64_t wrongBlocks = 0;
    std::string firstWrong;
    for (size_t logical = 0; logical < blocks.size(); ++logical)
    {
        mRank.console.checkStopped(); // checking may take seconds: nobody may be there any more
        std::optional<uint64_t> wrong;
        mRank.pool.lookAtBlock(blocks[logical],
            [&](std::byte const* block)
            { wrong = findWrongByte(block, options.geometry, options.heads(), request, logical); });
        if (wrong && wrongBlocks++ == 0)
        {
            firstWrong = "block " + std::to_string(logical) + " at byte " + std::to_string(*wrong);
        }
    }
    mCorrupt += wrongBlocks == 0 ? 0 : 1;
    mRank.pool.release(blocks);
    mLanded.reset();
    Event("checked")
        .number("request", request)
        .number("wrong_blocks", wrongBlocks)
        .text("first_wrong", firstWrong)
        .emit();
}

} // namespace engine_host
