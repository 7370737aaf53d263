// What the kernels ask of the machine (src/device/kernels/machine.cuh), done by the CPU: one lane after the other.
//
// Lanes meet in nothing but spread(), and here fetch() reads the whole entry for each lane; so a lane can run to its
// end before the next one starts.

#pragma once

#include <atomic>
#include <cstring>

#define __device__
#define __global__
#define __launch_bounds__(threads)
#define BATON_UNROLLED
#define BATON_ROLLED

namespace baton
{
struct Dim
{
    unsigned x;
};

// CUDA's names for whose turn it is.
inline thread_local Dim threadIdx, blockIdx, blockDim, gridDim;

// Thrown where a GPU would end the launch, and caught around it: a list names memory that the device does not have, or
// an access is not aligned to its own width.
struct BadAddress
{
};
struct Misaligned
{
};

inline std::atomic<uint64_t (*)(uint64_t)> translation{nullptr};

inline uint32_t lane()
{
    return threadIdx.x % kLanes;
}

inline uint32_t warp()
{
    return (blockIdx.x * blockDim.x + threadIdx.x) / kLanes;
}

inline uint32_t warps()
{
    return gridDim.x * (blockDim.x / kLanes);
}

// Both ends of a span have to be memory of the device, and as far apart as the list says.
inline uint64_t address(uint64_t first, uint64_t len)
{
    auto* translate = translation.load(std::memory_order_acquire);
    if (translate == nullptr || len == 0)
    {
        return first;
    }
    uint64_t const begin = translate(first);
    uint64_t const last = translate(first + (len - 1));
    if (begin == 0 || last - begin != len - 1)
    {
        throw BadAddress();
    }
    return begin;
}

template <typename Unit>
Unit* aligned(uint64_t at)
{
    if (at % alignof(Unit) != 0)
    {
        throw Misaligned();
    }
    return reinterpret_cast<Unit*>(at);
}

template <typename Unit>
Unit load(uint64_t at)
{
    return *aligned<Unit const>(at);
}

inline Vector loadKept(uint64_t at)
{
    return load<Vector>(at);
}

template <typename Unit>
void store(uint64_t at, Unit value)
{
    *aligned<Unit>(at) = value;
}

template <typename Entry>
struct Fetched
{
    Entry entry;
};

template <typename Entry>
Fetched<Entry> fetch(Entry const* list, uint64_t index, uint32_t count)
{
    Fetched<Entry> fetched{};
    if (index < count)
    {
        uint64_t const at = address(reinterpret_cast<uint64_t>(list + index), sizeof(Entry));
        std::memcpy(&fetched.entry, reinterpret_cast<void const*>(at), sizeof(Entry));
    }
    return fetched;
}

template <typename Entry>
Entry spread(Fetched<Entry> fetched)
{
    return fetched.entry;
}
} // namespace baton
