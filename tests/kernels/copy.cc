// baton_copy: every pair of alignments, random lists on grids of any size, and what a GPU refuses.

#include "arena.h"

#include "../../src/device/kernels/segment.cuh"

#include <algorithm>

namespace kernels
{
namespace
{
constexpr unsigned kThreads = 256;
constexpr uint64_t kShift = uint64_t(1) << 44; // of translated addresses, which no process has

int launch(std::vector<BatonSegment> const& segments, unsigned blocks)
{
    BatonSegment const* list = segments.data();
    uint32_t count = static_cast<uint32_t>(segments.size());
    void* params[] = {&list, &count};
    return baton_host_launch("baton_copy", blocks, kThreads, params);
}

// Lengths that matter: none, some bytes, around a warp's round, long.
uint64_t randomLen(Random& random)
{
    switch (between(random, 0, 4))
    {
    case 0: return 0;
    case 1: return between(random, 1, 100);
    case 2: return 4096 + between(random, 0, 64) - 32;
    case 3: return 16 * between(random, 1, 600);
    default: return between(random, 100, 20000);
    }
}
} // namespace

// Lengths 0 to 130 at each alignment of source and destination: each in memory that ends with it, then all in one list.
void everyAlignment()
{
    constexpr uint64_t kLens = 131;
    constexpr uint64_t kRoom = 160;
    Random random(1);
    Arena shared(random, 160, 16 * 16 * kLens * kRoom);
    std::vector<BatonSegment> segments;
    for (uint64_t i = 0; i < 16 * 16 * kLens; ++i)
    {
        uint64_t const from = i % 16;
        uint64_t const to = i / 16 % 16;
        uint64_t const len = i / 256;
        Arena alone(random, from + len, to + len);
        alone.move(from, to, len);
        CHECK(launch({{alone.src() + from, alone.dst() + to, len}}, 1) == 0);
        alone.check("one alignment", i);
        shared.move(from, i * kRoom + to, len);
        segments.push_back({shared.src() + from, shared.dst() + i * kRoom + to, len});
    }
    CHECK(launch(segments, 3) == 0);
    shared.check("every alignment", 1);
}

void randomSegments(uint64_t seed)
{
    Random random(seed);
    uint64_t const count = between(random, 0, 3) == 0 ? between(random, 0, 3) : between(random, 1, 200);
    std::vector<BatonSegment> segments(count);
    uint64_t dstBytes = between(random, 0, 40);
    uint64_t longest = 0;
    for (auto& segment : segments)
    {
        segment.len = randomLen(random);
        segment.dst = dstBytes;
        dstBytes += segment.len + between(random, 0, 40);
        longest = std::max(longest, segment.len);
    }
    // At the same alignment as often as not; at the very end of the source now and then.
    Arena arena(random, longest + between(random, 0, 5000), dstBytes);
    bool const isAligned = between(random, 0, 1) == 0;
    for (auto& segment : segments)
    {
        uint64_t const last = arena.srcBytes() - segment.len;
        uint64_t from = between(random, 0, 4) == 0 ? last : between(random, 0, last);
        from -= isAligned && from >= 16 ? (arena.src() + from - arena.dst() - segment.dst) % 16 : 0;
        arena.move(from, segment.dst, segment.len);
        segment = {arena.src() + from, arena.dst() + segment.dst, segment.len};
    }
    std::shuffle(segments.begin(), segments.end(), random);
    CHECK(launch(segments, static_cast<unsigned>(between(random, 1, 30))) == 0);
    arena.check("random segments", seed);
}

// Addresses that are the device's only: reached through the translation, refused at both ends of what it knows.
void translatedSegments()
{
    static uint64_t begin, end, listBegin, listEnd;
    Random random(2);
    Arena arena(random, 10000, 10000);
    begin = std::min(arena.src(), arena.dst());
    end = std::max(arena.src(), arena.dst()) + 10000;
    std::vector<BatonSegment> segments = {{arena.src() + 3 + kShift, arena.dst() + 5 + kShift, 9000}};
    listBegin = reinterpret_cast<uint64_t>(segments.data());
    listEnd = listBegin + sizeof(BatonSegment);
    baton_host_set_address([](uint64_t at) -> uint64_t {
        bool const isList = at >= listBegin && at < listEnd;
        bool const isDevice = at >= begin + kShift && at < end + kShift;
        return isList ? at : isDevice ? at - kShift : 0;
    });
    arena.move(3, 5, 9000);
    CHECK(launch(segments, 1) == 0);
    arena.check("translated", 2);

    segments[0] = {begin + kShift, end + kShift - 100, 101};
    CHECK(launch(segments, 1) == 2);
    segments[0] = {begin + kShift - 1, begin + kShift + 5000, 100};
    CHECK(launch(segments, 1) == 2);
    segments[0] = {arena.src(), arena.dst(), 100};
    CHECK(launch(segments, 1) == 2);
    arena.check("after refusals", 2);
    baton_host_set_address(nullptr);
}

void refusedLaunches()
{
    void* none[] = {nullptr, nullptr, nullptr};
    CHECK(baton_host_launch("baton_move", 1, kThreads, none) == 1);
    CHECK(baton_host_launch("baton_copy", 0, kThreads, none) == 1);
    CHECK(baton_host_launch("baton_copy", 1, 0, none) == 1);
    CHECK(baton_host_launch("baton_copy", 1, 100, none) == 1);
    CHECK(baton_host_launch("baton_copy", 1, 2 * kThreads, none) == 1);
}
} // namespace kernels
