#include "memory.h"

#include "device_memory.h"
#include "failure.h"
#include "host_memory.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <string>

namespace engine_host
{

namespace
{
constexpr uint64_t kStretchBytes = 16 << 20;
} // namespace

void Memory::populate(std::function<void()> const& between)
{
    for (uint64_t at = 0; at < mLengthBytes; at += kStretchBytes)
    {
        between();
        zero(at, std::min(kStretchBytes, mLengthBytes - at));
    }
}

std::unique_ptr<Memory> makeMemory(uint64_t lengthBytes, MemoryChoice const& choice)
{
    if (choice.kind == MemoryKind::kVram)
    {
        return makeDeviceMemory(lengthBytes, choice);
    }
    return std::make_unique<HostMemory>(lengthBytes);
}

BlockPool::BlockPool(uint64_t blocks, uint64_t blockBytes, uint64_t seed, MemoryChoice const& choice)
    : mBlocks(blocks)
    , mBlockBytes(blockBytes)
    , mMemory(makeMemory(blocks * blockBytes, choice))
    , mFree(blocks)
{
    std::iota(mFree.begin(), mFree.end(), 0U);
    std::shuffle(mFree.begin(), mFree.end(), std::mt19937_64(seed));
}

std::vector<uint32_t> BlockPool::allocate(uint64_t count)
{
    if (count > mFree.size())
    {
        throw Failure(FailureKind::kUsage, "the request needs " + std::to_string(count) + " blocks, "
                + std::to_string(mFree.size()) + " of " + std::to_string(mBlocks) + " are free");
    }
    std::vector<uint32_t> taken(mFree.end() - static_cast<std::ptrdiff_t>(count), mFree.end());
    mFree.resize(mFree.size() - count);
    return taken;
}

void BlockPool::release(std::vector<uint32_t> const& blocks)
{
    mFree.insert(mFree.begin(), blocks.begin(), blocks.end()); // oldest first: every block gets its turn
}

} // namespace engine_host
