// What a rank of either phase has, whatever its seam: pool, slot, and how KV lies in both.
#pragma once

#include "console.h"
#include "memory.h"
#include "options.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace engine_host
{

// A request in the pool of one rank: its logical blocks, in order.
struct Request
{
    uint64_t id;
    std::vector<uint32_t> blocks;
};

// Consecutive logical blocks of a request.
struct BlockSpan
{
    uint32_t const* first;
    uint64_t count;
};

struct Rank
{
    Rank(Options const& options, Console& console);
    Rank(Rank const&) = delete;
    Rank& operator=(Rank const&) = delete;

    Options const& options;
    Console& console;
    std::string const name; // unique among the ranks of a run
    std::vector<Piece> const pieces; // of each request, those that this rank sends or receives
    BlockPool pool;
    std::unique_ptr<Memory> const slot;

    // What the runtime of this shape lets peers reach: the C++ one its slot, the Python one its pool.
    Memory const& shared() const;

    // Whether a request of that many blocks lies in the slot as a whole.
    bool fitsSlot(uint64_t blocks) const;
    // Throws Failure(kUsage) when it does not.
    void requireSlot(Request const& request) const;
    // Length of a piece of that many blocks.
    uint64_t pieceBytes(Piece const& piece, uint64_t blocks) const;
    // Where in the slot a piece lies, for that many blocks. Pieces of the same heads share their place.
    uint64_t place(Piece const& piece, uint64_t blocks) const;

    // Packs a piece into the slot, block after block, its heads only; and the other way round.
    void gather(Piece const& piece, BlockSpan blocks, uint64_t place) const;
    void scatter(Piece const& piece, BlockSpan blocks, uint64_t place) const;
};

inline BlockSpan allOf(Request const& request)
{
    return {request.blocks.data(), request.blocks.size()};
}

} // namespace engine_host
