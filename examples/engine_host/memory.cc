#include "memory.h"

#include "failure.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <numeric>
#include <random>
#include <string>
#include <system_error>

namespace engine_host
{

namespace
{
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kStretchBytes = 16 << 20;
} // namespace

Mapping::Mapping(uint64_t lengthBytes)
    : mLengthBytes(lengthBytes)
{
    if (lengthBytes == 0)
    {
        return;
    }
    void* const data
        = mmap(nullptr, lengthBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
    {
        throw std::system_error(errno, std::generic_category(), "mmap of " + std::to_string(lengthBytes) + " bytes");
    }
    mData = static_cast<std::byte*>(data);
    madvise(data, lengthBytes, MADV_HUGEPAGE); // a hint: without huge pages it is only slower
}

void Mapping::populate(std::function<void()> const& between)
{
    for (uint64_t at = 0; at < mLengthBytes; at += kPageBytes)
    {
        if (at % kStretchBytes == 0)
        {
            between();
        }
        mData[at] = std::byte{0};
    }
}

Mapping::~Mapping()
{
    if (mData != nullptr)
    {
        munmap(mData, mLengthBytes);
    }
}

BlockPool::BlockPool(uint64_t blocks, uint64_t blockBytes, uint64_t seed)
    : mBlocks(blocks)
    , mBlockBytes(blockBytes)
    , mMapping(blocks * blockBytes)
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
