// The product's kernels, run on the CPU, against plain loops: `kernels-test copy` or `kernels-test transform`.
//
// The seeds are fixed and printed; `kernels-test copy SEED` runs one alone.

#include "arena.h"

#include <string>
#include <unistd.h>

namespace
{
constexpr unsigned kWatchdogSeconds = 110;
constexpr uint64_t kFirstSeed = 6000;
constexpr uint64_t kSeeds = 150;

void eachSeed(char const* one, void (*random)(uint64_t))
{
    uint64_t const first = one == nullptr ? kFirstSeed : std::strtoull(one, nullptr, 10);
    uint64_t const count = one == nullptr ? kSeeds : 1;
    for (uint64_t seed = first; seed < first + count; ++seed)
    {
        random(seed);
    }
    std::printf("seeds %llu to %llu hold\n", static_cast<unsigned long long>(first),
        static_cast<unsigned long long>(first + count - 1));
}
} // namespace

int main(int argc, char** argv)
{
    alarm(kWatchdogSeconds);
    std::string const part = argc > 1 ? argv[1] : "";
    char const* seed = argc > 2 ? argv[2] : nullptr;
    if (part == "copy")
    {
        kernels::everyAlignment();
        kernels::translatedSegments();
        kernels::refusedLaunches();
        eachSeed(seed, kernels::randomSegments);
        return 0;
    }
    if (part == "transform")
    {
        kernels::namedLayouts();
        eachSeed(seed, kernels::randomLayouts);
        return 0;
    }
    std::fprintf(stderr, "usage: kernels-test copy|transform [SEED]\n");
    return 2;
}
