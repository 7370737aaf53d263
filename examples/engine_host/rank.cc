#include "rank.h"

#include "failure.h"

#include <unistd.h>

namespace engine_host
{
namespace
{

std::string nameOf(Options const& options)
{
    char const* const role = options.role == Role::kContext ? "ctx" : "gen";
    return role + std::to_string(options.rank) + "_" + std::to_string(getpid());
}

std::vector<Piece> piecesOf(Options const& options)
{
    std::vector<Piece> ours;
    for (Piece const& piece : options.geometry.pieces())
    {
        if ((options.role == Role::kContext ? piece.contextRank : piece.generationRank) == options.rank)
        {
            ours.push_back(piece);
        }
    }
    return ours;
}

} // namespace

Rank::Rank(Options const& options, Console& console)
    : options(options)
    , console(console)
    , name(nameOf(options))
    , pieces(piecesOf(options))
    , pool(options.poolBlocks, options.geometry.blockBytes(options.heads().count()), options.seed + options.rank,
          options.memory)
    , slot(makeMemory(options.slotBytes(), options.memory))
{
    auto const checkStopped = [&console] { console.checkStopped(); }; // nobody may be there any more
    pool.memory().populate(checkStopped);
    slot->populate(checkStopped);
}

Memory const& Rank::shared() const
{
    return options.shape == Shape::kStaged ? *slot : pool.memory();
}

bool Rank::fitsSlot(uint64_t blocks) const
{
    return blocks <= options.slotBlocks();
}

void Rank::requireSlot(Request const& request) const
{
    if (!fitsSlot(request.blocks.size()))
    {
        uint64_t const needed = options.geometry.blockBytes(options.heads().count()) * request.blocks.size();
        throw Failure(FailureKind::kUsage, "request " + std::to_string(request.id) + " needs " + std::to_string(needed)
                + " bytes of a slot of " + std::to_string(slot->size()) + "; raise max_tokens_in_buffer");
    }
}

uint64_t Rank::pieceBytes(Piece const& piece, uint64_t blocks) const
{
    return options.geometry.blockBytes(piece.heads.count()) * blocks;
}

uint64_t Rank::place(Piece const& piece, uint64_t blocks) const
{
    return options.geometry.slotOffset(options.heads(), piece.heads, blocks);
}

void Rank::gather(Piece const& piece, BlockSpan blocks, uint64_t place) const
{
    Runs const runs = options.geometry.runs(options.heads(), piece.heads, piece.heads == options.heads());
    for (uint64_t at = 0; at < blocks.count; ++at)
    {
        uint64_t const block = pool.memory().address() + pool.offsetOf(blocks.first[at]);
        for (uint64_t const offset : runs.offsets)
        {
            slot->copyIn(place, block + offset, runs.lengthBytes);
            place += runs.lengthBytes;
        }
    }
    slot->settle();
}

void Rank::scatter(Piece const& piece, BlockSpan blocks, uint64_t place) const
{
    Runs const runs = options.geometry.runs(options.heads(), piece.heads, piece.heads == options.heads());
    for (uint64_t at = 0; at < blocks.count; ++at)
    {
        uint64_t const block = pool.offsetOf(blocks.first[at]);
        for (uint64_t const offset : runs.offsets)
        {
            pool.memory().copyIn(block + offset, slot->address() + place, runs.lengthBytes);
            place += runs.lengthBytes;
        }
    }
    pool.memory().settle();
}

} // namespace engine_host
