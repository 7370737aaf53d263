// baton_copy: a list of segments, each copied as it is. Gather and scatter are lists whose one side is contiguous.
//
// A warp takes one segment at a time, in strides of all warps, and reads the next entry of the list while it copies.
//
//     src   ..[head][vector][vector] ... [vector][tail]..     head, tail: below 32 bytes each, a byte for a lane
//     dst   ..[head][vector][vector] ... [vector][tail]..     vectors: 16 bytes, aligned at dst, 512 a warp
//
// Where src is aligned as dst is, modulo 16, a vector is one load. Elsewhere the bytes of a vector lie in two aligned
// ones of the source, which are loaded and shifted together (the second is the first of the next lane, and comes from
// L1): all accesses are 16 bytes wide at any alignment. No load leaves the segment, so none leaves the allocation.

#pragma once

#include "machine.cuh"

namespace baton
{
// Vectors that a lane loads before it stores the first of them. 4 KiB are one round of a warp.
constexpr uint32_t kInFlight = 8;
constexpr uint32_t kInFlightShifted = 4; // of two loads each

// Bytes `shift` to `shift` + 15 of the 32 in `first` and `second`; `shift` is 1 to 15.
__device__ inline Vector shiftedTogether(Vector first, Vector second, uint32_t shift)
{
    bool const upper = shift >= 8;
    unsigned long long const low = upper ? first.high : first.low;
    unsigned long long const middle = upper ? second.low : first.high;
    unsigned long long const high = upper ? second.high : second.low;
    uint32_t const right = 8 * (shift % 8);
    uint32_t const left = 63 - right; // and one more: a shift by 64 has no meaning
    return {(low >> right) | (middle << 1 << left), (middle >> right) | (high << 1 << left)};
}

// The vectors between head and tail. `src` is `shift` bytes above a multiple of 16.
//
// A lane that has nothing left to load loads the last vector once more: loads without conditions all start at once.
template <bool isShifted>
__device__ inline void copyVectors(uint64_t src, uint64_t dst, uint64_t vectors, uint32_t shift)
{
    constexpr uint32_t inFlight = isShifted ? kInFlightShifted : kInFlight;
    constexpr uint32_t round = inFlight * kLanes;
    src -= isShifted ? shift : 0;
    BATON_ROLLED // a round is long enough; more only costs registers
    while (vectors > 0)
    {
        uint32_t const left = vectors < round ? static_cast<uint32_t>(vectors) : round;
        Vector first[inFlight];
        Vector second[inFlight];
        BATON_UNROLLED
        for (uint32_t i = 0; i < inFlight; ++i)
        {
            uint32_t const index = i * kLanes + lane();
            uint64_t const at = src + (index < left ? index : left - 1) * sizeof(Vector);
            first[i] = isShifted ? loadKept(at) : load<Vector>(at);
            second[i] = isShifted ? loadKept(at + sizeof(Vector)) : Vector{};
        }
        BATON_UNROLLED
        for (uint32_t i = 0; i < inFlight; ++i)
        {
            uint32_t const index = i * kLanes + lane();
            Vector const value = isShifted ? shiftedTogether(first[i], second[i], shift) : first[i];
            if (index < left)
            {
                store(dst + index * sizeof(Vector), value);
            }
        }
        vectors -= left;
        src += round * sizeof(Vector);
        dst += round * sizeof(Vector);
    }
}

__device__ inline void copySegment(BatonSegment segment)
{
    uint64_t const src = address(segment.src, segment.len);
    uint64_t const dst = address(segment.dst, segment.len);
    uint64_t const len = segment.len;

    // The head ends at a multiple of 16 of dst. Where the source is shifted against it, its first vector reads `shift`
    // bytes before its own and its last one 16 - `shift` behind, so head and tail have to be that long.
    uint32_t const shift = static_cast<uint32_t>(src - dst) % sizeof(Vector);
    uint32_t const behind = shift == 0 ? 0 : sizeof(Vector) - shift;
    uint64_t head = -dst % sizeof(Vector);
    head += head < shift ? sizeof(Vector) : 0;
    uint64_t const vectors = len < head + behind ? 0 : (len - head - behind) / sizeof(Vector);
    if (vectors == 0) // up to 60 bytes: all of it is head and tail
    {
        head = len < kLanes ? len : kLanes;
    }
    uint64_t const tail = head + vectors * sizeof(Vector);

    bool const hasHead = lane() < head;
    bool const hasTail = tail + lane() < len;
    unsigned char const first = hasHead ? load<unsigned char>(src + lane()) : 0;
    unsigned char const last = hasTail ? load<unsigned char>(src + tail + lane()) : 0;
    if (shift == 0)
    {
        copyVectors<false>(src + head, dst + head, vectors, shift);
    }
    else
    {
        copyVectors<true>(src + head, dst + head, vectors, shift);
    }
    if (hasHead)
    {
        store(dst + lane(), first);
    }
    if (hasTail)
    {
        store(dst + tail + lane(), last);
    }
}
} // namespace baton

// Copies `count` segments. Any grid will do; blocks have 256 threads.
extern "C" __global__ void __launch_bounds__(baton::kThreads) baton_copy(BatonSegment const* segments, uint32_t count)
{
    uint64_t index = baton::warp();
    auto next = baton::fetch(segments, index, count);
    while (index < count)
    {
        BatonSegment const segment = baton::spread(next);
        index += baton::warps();
        next = baton::fetch(segments, index, count);
        baton::copySegment(segment);
    }
}
