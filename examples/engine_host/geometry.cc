#include "geometry.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace engine_host
{
namespace
{

HeadRange headsOf(uint32_t rank, uint32_t tp, uint32_t kvHeads)
{
    if (tp <= kvHeads)
    {
        uint32_t const each = kvHeads / tp;
        return {rank * each, (rank + 1) * each};
    }
    uint32_t const head = rank / (tp / kvHeads);
    return {head, head + 1};
}

void requireEvenSplit(char const* name, uint32_t tp, uint32_t kvHeads)
{
    if (tp == 0 || (kvHeads % tp != 0 && tp % kvHeads != 0))
    {
        throw std::invalid_argument(std::string(name) + " " + std::to_string(tp) + " does not split "
            + std::to_string(kvHeads) + " KV heads evenly");
    }
}

} // namespace

void Geometry::validate() const
{
    if (layers == 0 || kvHeads == 0 || headDim == 0 || tokensPerBlock == 0)
    {
        throw std::invalid_argument("--layers, --kv-heads, --head-dim and --tokens-per-block must be given and not 0");
    }
    if (kvFactor != 1 && kvFactor != 2)
    {
        throw std::invalid_argument("--kv-factor is 2 (K and V) or 1 (a latent), not " + std::to_string(kvFactor));
    }
    requireEvenSplit("--tp", contextTp, kvHeads);
    requireEvenSplit("--gen-tp", generationTp, kvHeads);
    if (headBytes() % sizeof(uint64_t) != 0)
    {
        throw std::invalid_argument(
            "one head of one block must be a multiple of 8 bytes, not " + std::to_string(headBytes()));
    }
}

HeadRange Geometry::contextHeads(uint32_t rank) const
{
    return headsOf(rank, contextTp, kvHeads);
}

HeadRange Geometry::generationHeads(uint32_t rank) const
{
    return headsOf(rank, generationTp, kvHeads);
}

uint64_t Geometry::headBytes() const
{
    return uint64_t{tokensPerBlock} * headDim * elementBytes;
}

uint64_t Geometry::blockBytes(uint32_t heads) const
{
    return uint64_t{layers} * kvFactor * heads * headBytes();
}

uint64_t Geometry::blocksFor(uint64_t tokens) const
{
    return (tokens + tokensPerBlock - 1) / tokensPerBlock;
}

std::vector<Piece> Geometry::pieces() const
{
    // Where several context ranks hold the same heads one of them sends; generation ranks take turns.
    uint32_t const replicas = contextTp > kvHeads ? contextTp / kvHeads : 1;
    std::vector<Piece> all;
    for (uint32_t generation = 0; generation < generationTp; ++generation)
    {
        HeadRange const wanted = generationHeads(generation);
        for (uint32_t context = generation % replicas; context < contextTp; context += replicas)
        {
            HeadRange const held = contextHeads(context);
            HeadRange const common{std::max(held.begin, wanted.begin), std::min(held.end, wanted.end)};
            if (common.begin < common.end)
            {
                all.push_back({context, generation, common});
            }
        }
    }
    return all;
}

bool Geometry::sameLayout(Piece const& piece) const
{
    return contextHeads(piece.contextRank) == generationHeads(piece.generationRank);
}

uint64_t Geometry::slotOffset(HeadRange held, HeadRange wanted, uint64_t blocks) const
{
    return blockBytes(wanted.begin - held.begin) * blocks;
}

Runs Geometry::runs(HeadRange held, HeadRange wanted, bool wholeBlock) const
{
    if (wholeBlock)
    {
        return {{0}, blockBytes(held.count())};
    }
    Runs runs{{}, wanted.count() * headBytes()};
    uint64_t const stride = held.count() * headBytes();
    uint64_t const first = (wanted.begin - held.begin) * headBytes();
    for (uint64_t plane = 0; plane < uint64_t{layers} * kvFactor; ++plane)
    {
        runs.offsets.push_back(plane * stride + first);
    }
    return runs;
}

} // namespace engine_host
