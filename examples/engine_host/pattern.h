// What the KV cache holds: every byte is a function of (request, logical block, offset in the model's block).
//
// The offset counts through all heads of the model, not those of one rank, so that a generation rank can check
// what it holds whatever rank it came from. The request's id is part of the function: bytes left over from an
// earlier request in a reused block fail the check, as do zeros.
#pragma once

#include "geometry.h"

#include <cstddef>
#include <cstdint>
#include <optional>

namespace engine_host
{

// Writes one logical block of a request into `block`, as a rank that holds `heads` lays it out.
void fillBlock(std::byte* block, Geometry const& geometry, HeadRange heads, uint64_t request, uint64_t logicalBlock);

// Where the first wrong byte of a block lies, counted within the block of this rank; nothing if all are right.
std::optional<uint64_t> findWrongByte(
    std::byte const* block, Geometry const& geometry, HeadRange heads, uint64_t request, uint64_t logicalBlock);

} // namespace engine_host
