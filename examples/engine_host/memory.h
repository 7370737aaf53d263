// Memory of an engine rank: the block pool of its KV cache, and a staging slot; in DRAM, or on a GPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace engine_host
{

enum class MemoryKind : uint32_t
{
    kDram,
    kVram
};

constexpr char const* name(MemoryKind kind)
{
    return kind == MemoryKind::kDram ? "dram" : "vram";
}

// Which memory a rank has.
struct MemoryChoice
{
    MemoryKind kind = MemoryKind::kDram;
    // The rest is for VRAM.
    uint32_t device = 0;
    uint64_t chunkBytes = 0;     // 0: one allocation; else chunks of physical memory mapped side by side
    bool chunksShareable = true; // whether other processes can map the chunks
};

// Bytes that peers may reach. Usable from any thread. What a call has changed is there when it returns, whoever looks;
// copyIn() alone needs settle().
class Memory
{
public:
    virtual ~Memory() = default;
    Memory(Memory const&) = delete;
    Memory& operator=(Memory const&) = delete;

    // Where it begins. The CPU can follow an address of DRAM alone.
    uint64_t address() const
    {
        return mAddress;
    }

    uint64_t size() const
    {
        return mLengthBytes;
    }

    // An address in it, for calls that take pointers.
    void* at(uint64_t offset) const
    {
        return reinterpret_cast<void*>(mAddress + offset);
    }

    // Lets `change` change bytes from `offset` on: in place, or in a copy that goes back.
    virtual void change(uint64_t offset, uint64_t lengthBytes, std::function<void(std::byte*)> const& change) = 0;
    // Lets `look` read them.
    virtual void look(uint64_t offset, uint64_t lengthBytes, std::function<void(std::byte const*)> const& look) const
        = 0;
    virtual void zero(uint64_t offset, uint64_t lengthBytes) = 0;

    // Copies from an address in memory of the same choice; done after settle().
    virtual void copyIn(uint64_t offset, uint64_t from, uint64_t lengthBytes) = 0;
    virtual void settle() = 0;

    // Has all pages there, so that no transfer pays for page faults. That may take seconds: `between` is called again
    // and again meanwhile, and what it throws ends it.
    void populate(std::function<void()> const& between);

protected:
    Memory(uint64_t address, uint64_t lengthBytes)
        : mAddress(address)
        , mLengthBytes(lengthBytes)
    {
    }

private:
    uint64_t mAddress;
    uint64_t mLengthBytes;
};

// Throws std::system_error where the system has no room, Failure(kDevice) where the GPU or its driver does not do.
// `lengthBytes` may be 0.
std::unique_ptr<Memory> makeMemory(uint64_t lengthBytes, MemoryChoice const& choice);

// A pool of equal blocks, handed out in a shuffled order, as a cache looks after hours of serving: the blocks of
// a request lie scattered.
class BlockPool
{
public:
    BlockPool(uint64_t blocks, uint64_t blockBytes, uint64_t seed, MemoryChoice const& choice);

    // Throws Failure(kUsage) when fewer are free.
    std::vector<uint32_t> allocate(uint64_t count);
    void release(std::vector<uint32_t> const& blocks);

    // Where a block lies in the memory.
    uint64_t offsetOf(uint32_t id) const
    {
        return id * mBlockBytes;
    }

    void changeBlock(uint32_t id, std::function<void(std::byte*)> const& change)
    {
        mMemory->change(offsetOf(id), mBlockBytes, change);
    }

    void lookAtBlock(uint32_t id, std::function<void(std::byte const*)> const& look) const
    {
        mMemory->look(offsetOf(id), mBlockBytes, look);
    }

    Memory& memory() const
    {
        return *mMemory;
    }

    uint64_t blocks() const
    {
        return mBlocks;
    }

private:
    uint64_t mBlocks;
    uint64_t mBlockBytes;
    std::unique_ptr<Memory> mMemory;
    std::vector<uint32_t> mFree;
};

} // namespace engine_host
