#include "pattern.h"

#include <cstring>

namespace engine_host
{
namespace
{

constexpr uint64_t kStep = 0x9E3779B97F4A7C15ULL;
constexpr uint64_t kMultiplier = 0xD6E8FEB86659FD93ULL;

uint64_t mix(uint64_t value)
{
    value ^= value >> 32;
    value *= kMultiplier;
    return value ^ (value >> 29);
}

// The pattern of one block: word n is at(n). Cheap enough that memory is the limit, not arithmetic.
struct BlockPattern
{
    uint64_t seed;

    BlockPattern(uint64_t request, uint64_t logicalBlock)
        : seed(mix(mix(request + 1) + (logicalBlock + 1) * kStep))
    {
    }

    uint64_t at(uint64_t word) const
    {
        return mix(seed + word * kStep);
    }
};

// One run of a rank's block: where it lies in the rank's block and in the model's block, in words.
struct PlaneWords
{
    uint64_t planes;
    uint64_t perPlane;
    uint64_t modelStride;
    uint64_t modelFirst;

    PlaneWords(Geometry const& geometry, HeadRange heads)
        : planes(uint64_t{geometry.layers} * geometry.kvFactor)
        , perPlane(heads.count() * geometry.headBytes() / sizeof(uint64_t))
        , modelStride(geometry.kvHeads * geometry.headBytes() / sizeof(uint64_t))
        , modelFirst(heads.begin * geometry.headBytes() / sizeof(uint64_t))
    {
    }
};

} // namespace

void fillBlock(std::byte* block, Geometry const& geometry, HeadRange heads, uint64_t request, uint64_t logicalBlock)
{
    BlockPattern const pattern(request, logicalBlock);
    PlaneWords const words(geometry, heads);
    auto* out = reinterpret_cast<uint64_t*>(block); // blocks are page-backed and 8-byte multiples
    for (uint64_t plane = 0; plane < words.planes; ++plane, out += words.perPlane)
    {
        uint64_t const first = plane * words.modelStride + words.modelFirst;
        for (uint64_t word = 0; word < words.perPlane; ++word)
        {
            out[word] = pattern.at(first + word);
        }
    }
}

std::optional<uint64_t> findWrongByte(
    std::byte const* block, Geometry const& geometry, HeadRange heads, uint64_t request, uint64_t logicalBlock)
{
    BlockPattern const pattern(request, logicalBlock);
    PlaneWords const words(geometry, heads);
    auto const* in = reinterpret_cast<uint64_t const*>(block);
    for (uint64_t plane = 0; plane < words.planes; ++plane, in += words.perPlane)
    {
        uint64_t const first = plane * words.modelStride + words.modelFirst;
        uint64_t difference = 0;
        for (uint64_t word = 0; word < words.perPlane; ++word)
        {
            difference |= in[word] ^ pattern.at(first + word);
        }
        for (uint64_t word = 0; difference != 0 && word < words.perPlane; ++word)
        {
            uint64_t const wrong = in[word] ^ pattern.at(first + word);
            if (wrong != 0)
            {
                uint64_t const byteInWord = static_cast<uint64_t>(__builtin_ctzll(wrong)) / 8;
                return (plane * words.perPlane + word) * sizeof(uint64_t) + byteInWord;
            }
        }
    }
    return std::nullopt;
}

} // namespace engine_host
