// Memory of an engine rank: the block pool of its KV cache, and a staging slot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace engine_host
{

// Anonymous memory.
class Mapping
{
public:
    // Throws std::system_error where the system has no room. `lengthBytes` may be 0.
    explicit Mapping(uint64_t lengthBytes);
    ~Mapping();
    Mapping(Mapping const&) = delete;
    Mapping& operator=(Mapping const&) = delete;

    // Has all pages there, so that no transfer pays for page faults. That may take seconds: `between` is called again
    // and again meanwhile, and what it throws ends it.
    void populate(std::function<void()> const& between);

    std::byte* data() const
    {
        return mData;
    }

    uint64_t size() const
    {
        return mLengthBytes;
    }

private:
    std::byte* mData = nullptr;
    uint64_t mLengthBytes;
};

// A pool of equal blocks, handed out in a shuffled order, as a cache looks after hours of serving: the blocks of
// a request lie scattered.
class BlockPool
{
public:
    BlockPool(uint64_t blocks, uint64_t blockBytes, uint64_t seed);

    // Throws Failure(kUsage) when fewer are free.
    std::vector<uint32_t> allocate(uint64_t count);
    void release(std::vector<uint32_t> const& blocks);

    std::byte* block(uint32_t id) const
    {
        return mMapping.data() + id * mBlockBytes;
    }

    Mapping const& mapping() const
    {
        return mMapping;
    }

    void populate(std::function<void()> const& between)
    {
        mMapping.populate(between);
    }

    uint64_t blocks() const
    {
        return mBlocks;
    }

private:
    uint64_t mBlocks;
    uint64_t mBlockBytes;
    Mapping mMapping;
    std::vector<uint32_t> mFree;
};

} // namespace engine_host
