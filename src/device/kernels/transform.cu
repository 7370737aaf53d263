// baton_transform: blocks whose rows lie in another order on the other side. A row is what one head keeps of one token;
// which rows there are and where they lie is said by strides (BatonRows), so one kernel splits heads, joins them, and
// turns HND (head, token, value) into NHD and back.
//
// A block is cut into tiles of up to 2 KiB, and a warp takes one tile at a time, in strides of all warps:
//
//     lanes    | row 0        | row 1        | .. |   as many rows side by side as a warp is wide: 4 of 128 bytes
//     in turn  | row 4        | row 5        | .. |   4 such steps: a tile is 16 rows of 128 bytes
//
// Rows above 512 bytes are several tiles wide. The accesses of a block have the widest unit, up to 16 bytes, that
// divides its two addresses, all strides and the row; rows of KV are multiples of 16 bytes, narrower units are for
// scales.

#pragma once

#include "machine.cuh"

namespace baton
{
constexpr uint32_t kSteps = 4; // rows that a lane loads before it stores the first of them

// A number of two digits: high * base + low.
struct Digits
{
    uint64_t high;
    uint32_t low;
};

__device__ inline Digits digits(uint32_t number, uint32_t base)
{
    return {number / base, number % base};
}

__device__ inline Digits add(Digits a, Digits b, uint32_t base)
{
    uint32_t const low = a.low + b.low;
    bool const carry = low >= base || low < a.low;
    return {a.high + b.high + (carry ? 1 : 0), carry ? low - base : low};
}

// How the rows of a block are cut into tiles; the same for all blocks of a launch.
struct Tiling
{
    uint32_t rowLanes; // lanes that share a row: a power of two
    uint32_t tilesAcross; // tiles that share a row
    uint32_t tiles; // of a block
};

__device__ inline Tiling tiling(BatonRows const& rows)
{
    uint32_t const vectors = (rows.row_bytes + sizeof(Vector) - 1) / sizeof(Vector);
    uint32_t rowLanes = 1;
    while (rowLanes < vectors && rowLanes < kLanes)
    {
        rowLanes *= 2;
    }
    uint32_t const tileRows = kLanes / rowLanes * kSteps;
    uint32_t const across = (vectors + rowLanes - 1) / rowLanes;
    return {rowLanes, across, (rows.heads * rows.tokens + tileRows - 1) / tileRows * across};
}

// Copies a tile of a block by accesses of one unit.
template <typename Unit>
__device__ inline void copyTile(BatonBlock block, BatonRows const& rows, Tiling const& tiling, uint32_t tile)
{
    uint32_t const across = tile % tiling.tilesAcross;
    uint32_t const begin = across * tiling.rowLanes * sizeof(Vector);
    uint32_t const width = tiling.rowLanes * sizeof(Vector);
    uint32_t const end = rows.row_bytes - begin < width ? rows.row_bytes : begin + width;
    uint32_t const stepRows = kLanes / tiling.rowLanes;
    uint32_t const firstRow = tile / tiling.tilesAcross * stepRows * kSteps + lane() / tiling.rowLanes;
    Digits const step = digits(stepRows, rows.tokens);

    // Where the lane's row of each step lies.
    uint64_t src[kSteps];
    uint64_t dst[kSteps];
    Digits row = digits(firstRow, rows.tokens); // head, token
    uint32_t steps = 0;
    BATON_UNROLLED
    for (uint32_t i = 0; i < kSteps; ++i)
    {
        bool const isRow = row.high < rows.heads;
        src[i] = block.src + row.high * rows.src_head_stride + row.low * rows.src_token_stride;
        dst[i] = block.dst + row.high * rows.dst_head_stride + row.low * rows.dst_token_stride;
        src[i] = isRow ? address(src[i], rows.row_bytes) : 0;
        dst[i] = isRow ? address(dst[i], rows.row_bytes) : 0;
        steps += isRow ? 1 : 0;
        row = add(row, step, rows.tokens);
    }

    uint32_t const stride = tiling.rowLanes * sizeof(Unit);
    for (uint32_t at = begin + lane() % tiling.rowLanes * sizeof(Unit); at < end; at += stride)
    {
        Unit value[kSteps];
        BATON_UNROLLED
        for (uint32_t i = 0; i < kSteps; ++i)
        {
            if (i < steps)
            {
                value[i] = load<Unit>(src[i] + at);
            }
        }
        BATON_UNROLLED
        for (uint32_t i = 0; i < kSteps; ++i)
        {
            if (i < steps)
            {
                store(dst[i] + at, value[i]);
            }
        }
    }
}

__device__ inline void transformTile(BatonBlock block, BatonRows const& rows, Tiling const& tiling, uint32_t tile)
{
    uint64_t const all = block.src | block.dst | rows.src_head_stride | rows.src_token_stride | rows.dst_head_stride
        | rows.dst_token_stride | rows.row_bytes;
    if (all % 16 == 0)
    {
        copyTile<Vector>(block, rows, tiling, tile);
    }
    else if (all % 8 == 0)
    {
        copyTile<unsigned long long>(block, rows, tiling, tile);
    }
    else if (all % 4 == 0)
    {
        copyTile<unsigned int>(block, rows, tiling, tile);
    }
    else if (all % 2 == 0)
    {
        copyTile<unsigned short>(block, rows, tiling, tile);
    }
    else
    {
        copyTile<unsigned char>(block, rows, tiling, tile);
    }
}
} // namespace baton

// Copies the rows of `count` blocks. Any grid will do; blocks have 256 threads. A block has less than 2^31 rows.
extern "C" __global__ void __launch_bounds__(baton::kThreads)
    baton_transform(BatonBlock const* blocks, uint32_t count, BatonRows rows)
{
    baton::Tiling const tiling = baton::tiling(rows);
    if (tiling.tiles == 0) // no rows, or nothing in them
    {
        return;
    }
    baton::Digits at = baton::digits(baton::warp(), tiling.tiles); // block, tile
    baton::Digits const stride = baton::digits(baton::warps(), tiling.tiles);
    auto next = baton::fetch(blocks, at.high, count);
    while (at.high < count)
    {
        BatonBlock const block = baton::spread(next);
        uint32_t const tile = at.low;
        at = baton::add(at, stride, tiling.tiles);
        next = baton::fetch(blocks, at.high, count);
        baton::transformTile(block, rows, tiling, tile);
    }
}
