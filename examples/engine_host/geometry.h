// The shape of a paged KV cache, and which rank sends which heads to which.
//
// A block holds tokensPerBlock tokens as [layer][K/V][head][token][dim]. Tensor parallelism gives every rank
// a contiguous range of heads; with more ranks than heads several ranks hold the same head. This is plain
// arithmetic: no memory, no agent. `baton demo` does the same arithmetic in Rust and compares the counts.
#pragma once

#include <cstdint>
#include <vector>

namespace engine_host
{

// Heads [begin, end) of the whole model.
struct HeadRange
{
    uint32_t begin;
    uint32_t end;

    uint32_t count() const
    {
        return end - begin;
    }

    bool operator==(HeadRange const& other) const
    {
        return begin == other.begin && end == other.end;
    }
};

// What one context rank sends to one generation rank.
struct Piece
{
    uint32_t contextRank;
    uint32_t generationRank;
    HeadRange heads;
};

// Bytes within one block, the same length at every offset.
struct Runs
{
    std::vector<uint64_t> offsets;
    uint64_t lengthBytes;
};

struct Geometry
{
    uint32_t layers = 0;
    uint32_t kvFactor = 2; // 1 for a K-only latent (MLA)
    uint32_t kvHeads = 0;
    uint32_t headDim = 0;
    uint32_t elementBytes = 2;
    uint32_t tokensPerBlock = 32;
    uint32_t contextTp = 1;
    uint32_t generationTp = 1;

    // Throws std::invalid_argument that names the value that cannot be.
    void validate() const;

    HeadRange contextHeads(uint32_t rank) const;
    HeadRange generationHeads(uint32_t rank) const;

    // Bytes of one head in one layer's K or V of one block.
    uint64_t headBytes() const;
    // Bytes of one block on a rank that holds this many heads.
    uint64_t blockBytes(uint32_t heads) const;
    uint64_t blocksFor(uint64_t tokens) const;

    // Every piece that travels, ordered by generation rank, then head.
    std::vector<Piece> pieces() const;
    // Whether both ranks of the piece lay out a block alike, so that a block travels whole.
    bool sameLayout(Piece const& piece) const;
    // Where a piece lies in the staging slot of a rank that holds `held`, for a request of that many blocks. Pieces
    // of the same heads share their place.
    uint64_t slotOffset(HeadRange held, HeadRange wanted, uint64_t blocks) const;
    // Where the heads of a piece lie in a block of a rank that holds `held`: the whole block, or one run per
    // layer and K/V.
    Runs runs(HeadRange held, HeadRange wanted, bool wholeBlock) const;
};

} // namespace engine_host
