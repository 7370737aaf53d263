// baton_transform: the layouts that KV caches have, and random ones, against a loop over all rows.

#include "arena.h"

#include "../../src/device/kernels/segment.cuh"

#include <algorithm>

namespace kernels
{
namespace
{
constexpr unsigned kThreads = 256;

// One side's blocks: `heads` times `tokens` rows, of which the launch's heads begin at `firstHead`.
struct Side
{
    bool isTokenMajor; // NHD, else HND
    uint32_t heads;
    uint32_t firstHead;
    uint32_t tokens;
    uint64_t padding; // bytes behind each row
    uint64_t at; // offset of the first block
    uint64_t gap; // bytes between blocks

    uint64_t rowStride(uint32_t rowBytes) const
    {
        return rowBytes + padding;
    }

    uint64_t headStride(uint32_t rowBytes) const
    {
        return rowStride(rowBytes) * (isTokenMajor ? 1 : tokens);
    }

    uint64_t tokenStride(uint32_t rowBytes) const
    {
        return rowStride(rowBytes) * (isTokenMajor ? heads : 1);
    }

    uint64_t block(uint64_t index, uint32_t rowBytes) const
    {
        return at + index * (rowStride(rowBytes) * heads * tokens + gap);
    }

    // Of the launch's head 0 and token 0.
    uint64_t origin(uint64_t index, uint32_t rowBytes) const
    {
        return block(index, rowBytes) + firstHead * headStride(rowBytes);
    }
};

struct Case
{
    uint32_t blocks;
    uint32_t heads;
    uint32_t tokens;
    uint32_t rowBytes;
    Side src;
    Side dst;
};

int launch(std::vector<BatonBlock> const& blocks, BatonRows rows, unsigned grid)
{
    BatonBlock const* list = blocks.data();
    uint32_t count = static_cast<uint32_t>(blocks.size());
    void* params[] = {&list, &count, &rows};
    return baton_host_launch("baton_transform", grid, kThreads, params);
}

void play(char const* what, Case const& shape, unsigned grid, uint64_t seed)
{
    Random random(seed);
    Side const& src = shape.src;
    Side const& dst = shape.dst;
    uint32_t const rowBytes = shape.rowBytes;
    BatonRows const rows = {src.headStride(rowBytes), src.tokenStride(rowBytes), dst.headStride(rowBytes),
        dst.tokenStride(rowBytes), shape.heads, shape.tokens, rowBytes, 0};
    Arena arena(random, src.block(shape.blocks, rowBytes), dst.block(shape.blocks, rowBytes));
    std::vector<BatonBlock> blocks;
    for (uint32_t block = 0; block < shape.blocks; ++block)
    {
        uint64_t const from = src.origin(shape.blocks - 1 - block, rowBytes);
        uint64_t const to = dst.origin(block, rowBytes);
        blocks.push_back({arena.src() + from, arena.dst() + to});
        for (uint32_t head = 0; head < shape.heads; ++head)
        {
            for (uint32_t token = 0; token < shape.tokens; ++token)
            {
                arena.move(from + head * rows.src_head_stride + token * rows.src_token_stride,
                    to + head * rows.dst_head_stride + token * rows.dst_token_stride, rowBytes);
            }
        }
    }
    std::shuffle(blocks.begin(), blocks.end(), random);
    CHECK(launch(blocks, rows, grid) == 0);
    arena.check(what, seed);
}

Side hnd(uint32_t heads, uint32_t firstHead, uint32_t tokens)
{
    return {false, heads, firstHead, tokens, 0, 0, 0};
}

Side nhd(uint32_t heads, uint32_t firstHead, uint32_t tokens)
{
    return {true, heads, firstHead, tokens, 0, 0, 0};
}

Side randomSide(Random& random, Case const& shape)
{
    uint32_t const before = static_cast<uint32_t>(between(random, 0, 3));
    uint32_t const behind = static_cast<uint32_t>(between(random, 0, 3));
    bool const isTokenMajor = between(random, 0, 1) == 0;
    uint64_t const unit = uint64_t(1) << between(random, 0, 4);
    return {isTokenMajor, before + shape.heads + behind, before, shape.tokens, unit * between(random, 0, 2),
        unit * between(random, 0, 3), unit * between(random, 0, 3)};
}
} // namespace

void namedLayouts()
{
    // Heads, tokens and bytes of a row on both sides.
    play("split HND", {9, 2, 32, 128, hnd(8, 6, 32), hnd(2, 0, 32)}, 2, 1);
    play("join HND", {9, 2, 32, 128, hnd(2, 0, 32), hnd(8, 4, 32)}, 2, 2);
    play("split NHD", {9, 2, 32, 128, nhd(8, 2, 32), nhd(2, 0, 32)}, 2, 3);
    play("join NHD", {9, 2, 32, 128, nhd(2, 0, 32), nhd(8, 0, 32)}, 2, 4);
    play("HND to NHD", {5, 8, 64, 256, hnd(8, 0, 64), nhd(8, 0, 64)}, 3, 5);
    play("NHD to HND", {5, 8, 64, 256, nhd(8, 0, 64), hnd(8, 0, 64)}, 3, 6);
    play("one row", {1, 1, 1, 16, hnd(1, 0, 1), nhd(1, 0, 1)}, 1, 7);
    play("wide rows", {3, 3, 5, 7000, hnd(3, 0, 5), nhd(4, 1, 5)}, 2, 8);
    for (uint32_t rowBytes : {1, 2, 3, 4, 6, 8, 12, 20, 24, 33, 72, 80, 100, 500, 520, 1040})
    {
        play("odd rows", {4, 3, 7, rowBytes, hnd(3, 0, 7), nhd(5, 1, 7)}, 1, 100 + rowBytes);
    }
    // Nothing to do, in each way; nothing is touched.
    play("no blocks", {0, 2, 2, 16, hnd(2, 0, 2), nhd(2, 0, 2)}, 1, 9);
    play("no heads", {2, 0, 2, 16, hnd(2, 0, 2), nhd(2, 0, 2)}, 1, 10);
    play("no tokens", {2, 2, 0, 16, hnd(2, 0, 2), nhd(2, 0, 2)}, 1, 11);
    play("no bytes", {2, 2, 2, 0, hnd(2, 0, 2), nhd(2, 0, 2)}, 1, 12);
}

void randomLayouts(uint64_t seed)
{
    Random random(seed);
    Case shape{};
    shape.blocks = static_cast<uint32_t>(between(random, 0, 20));
    shape.heads = static_cast<uint32_t>(between(random, 1, 9));
    shape.tokens = static_cast<uint32_t>(between(random, 1, 70));
    uint64_t const unit = uint64_t(1) << between(random, 0, 4);
    shape.rowBytes = static_cast<uint32_t>(unit * between(random, 1, 600 / unit));
    shape.src = randomSide(random, shape);
    shape.dst = randomSide(random, shape);
    play("random layout", shape, static_cast<unsigned>(between(random, 1, 12)), seed);
}
} // namespace kernels
