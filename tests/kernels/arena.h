// Two memories, a launch from one to the other, and what the CPU says the other has to hold then.

#pragma once

#include "../fake_cuda/kernels/host.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#define CHECK(condition) \
    do \
    { \
        if (!(condition)) \
        { \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1); \
        } \
    } while (false)

namespace kernels
{
using Random = std::mt19937_64;

// A number of [low, high].
inline uint64_t between(Random& random, uint64_t low, uint64_t high)
{
    return std::uniform_int_distribution<uint64_t>(low, high)(random);
}

inline std::vector<unsigned char> noise(Random& random, size_t bytes)
{
    std::vector<unsigned char> made(bytes);
    for (auto& byte : made)
    {
        byte = static_cast<unsigned char>(random());
    }
    return made;
}

// Source and destination full of noise, each to the byte as long as asked. What a launch should do is told by move();
// check() compares every byte of both.
class Arena
{
public:
    Arena(Random& random, size_t srcBytes, size_t dstBytes)
        : mSrc(noise(random, srcBytes))
        , mDst(noise(random, dstBytes))
        , mSrcBefore(mSrc)
        , mExpected(mDst)
    {
    }

    uint64_t src() const
    {
        return reinterpret_cast<uint64_t>(mSrc.data());
    }

    uint64_t dst() const
    {
        return reinterpret_cast<uint64_t>(mDst.data());
    }

    size_t srcBytes() const
    {
        return mSrc.size();
    }

    // `len` bytes from one offset to the other have to be there after the launch.
    void move(uint64_t from, uint64_t to, uint64_t len)
    {
        CHECK(from + len <= mSrc.size() && to + len <= mExpected.size());
        std::copy_n(mSrcBefore.begin() + from, len, mExpected.begin() + to);
    }

    void check(char const* what, uint64_t seed) const
    {
        size_t at = 0;
        while (at < mDst.size() && mDst[at] == mExpected[at])
        {
            ++at;
        }
        if (at < mDst.size())
        {
            std::fprintf(stderr, "%s, seed %llu: byte %zu of the destination is wrong\n", what,
                static_cast<unsigned long long>(seed), at);
            std::exit(1);
        }
        CHECK(mSrc == mSrcBefore);
    }

private:
    std::vector<unsigned char> mSrc;
    std::vector<unsigned char> mDst;
    std::vector<unsigned char> mSrcBefore;
    std::vector<unsigned char> mExpected;
};

// The cases: each ends the program where it fails.
void everyAlignment();
void randomSegments(uint64_t seed);
void translatedSegments();
void refusedLaunches();
void namedLayouts();
void randomLayouts(uint64_t seed);
} // namespace kernels
