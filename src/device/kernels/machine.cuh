// What the kernels ask of the machine: whose turn it is, loads and stores with their cache hints, entries of a list.
// This is the GPU's. BATON_HOST_MACHINE names the file of another one: tests/fake_cuda/kernels has the CPU's, so that
// the same kernels run without a GPU.
//
// Sources are read by ld.global.nc: they may be written between launches, never during one, so what a multiprocessor
// has cached stays true until the launch ends. Everything is touched once: vectors leave nothing in L1 (but see
// loadKept), and stores are the first to be evicted from L2, where the model's weights would rather be.

#pragma once

#include "segment.cuh"

namespace baton
{
constexpr uint32_t kLanes = 32; // of a warp
constexpr uint32_t kThreads = 256; // of a block

// The widest access of one lane: 16 bytes, little-endian.
struct alignas(16) Vector
{
    unsigned long long low;
    unsigned long long high;
};
} // namespace baton

#ifdef BATON_HOST_MACHINE
#include BATON_HOST_MACHINE
#else
// Before a loop: what the compiler does with it.
#define BATON_UNROLLED _Pragma("unroll")
#define BATON_ROLLED _Pragma("unroll 1")

namespace baton
{
__device__ inline uint32_t lane()
{
    return threadIdx.x % kLanes;
}

// The number of this warp among all of the launch, and how many there are.
__device__ inline uint32_t warp()
{
    return (blockIdx.x * blockDim.x + threadIdx.x) / kLanes;
}

__device__ inline uint32_t warps()
{
    return gridDim.x * (blockDim.x / kLanes);
}

// Where this machine reaches the `len` bytes that a list names by `first`.
__device__ inline uint64_t address(uint64_t first, uint64_t)
{
    return first;
}

template <typename Unit>
__device__ inline Unit load(uint64_t at)
{
    return __ldg(reinterpret_cast<Unit const*>(at));
}

template <>
__device__ inline Vector load<Vector>(uint64_t at)
{
    Vector value;
    asm("ld.global.nc.L1::no_allocate.v2.u64 {%0, %1}, [%2];" : "=l"(value.low), "=l"(value.high) : "l"(at));
    return value;
}

// The same for a vector that a neighbour reads, too: stays in L1.
__device__ inline Vector loadKept(uint64_t at)
{
    ulonglong2 const value = __ldg(reinterpret_cast<ulonglong2 const*>(at));
    return {value.x, value.y};
}

template <typename Unit>
__device__ inline void store(uint64_t at, Unit value)
{
    __stcs(reinterpret_cast<Unit*>(at), value);
}

template <>
__device__ inline void store<Vector>(uint64_t at, Vector value)
{
    __stcs(reinterpret_cast<ulonglong2*>(at), make_ulonglong2(value.low, value.high));
}

// An entry of a list on its way. The list lies in pinned host memory, a microsecond away: fetch() early, spread() late.
template <typename Entry>
struct Fetched
{
    unsigned long long word; // lane i holds the i-th word of the entry
};

// Starts to read entry `index`, once for the whole warp; nothing where it is not below `count`.
template <typename Entry>
__device__ inline Fetched<Entry> fetch(Entry const* list, uint64_t index, uint32_t count)
{
    constexpr uint32_t words = sizeof(Entry) / 8;
    auto const* word = reinterpret_cast<unsigned long long const*>(list) + index * words + lane();
    return {index < count && lane() < words ? *word : 0};
}

// Gives the entry to every lane. All lanes of the warp have to call it.
template <typename Entry>
__device__ inline Entry spread(Fetched<Entry> fetched)
{
    constexpr uint32_t words = sizeof(Entry) / 8;
    Entry entry;
    auto* word = reinterpret_cast<unsigned long long*>(&entry);
    BATON_UNROLLED
    for (uint32_t i = 0; i < words; ++i)
    {
        word[i] = __shfl_sync(0xffffffff, fetched.word, i);
    }
    return entry;
}
} // namespace baton
#endif
