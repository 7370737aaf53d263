// Memory of a GPU as a serving engine has it: one allocation, or chunks of physical memory mapped side by side.
#pragma once

#include <cstdint>

namespace host_cuda
{

// Where memory is made, and how.
struct Placement
{
    uint32_t device = 0;
    uint64_t chunkBytes = 0;   // 0: one cuMemAlloc; else chunks of cuMemCreate, of that length or the next the driver has
    bool chunksShareable = true; // whether other processes can be given them, as POSIX file descriptors
};

// Usable from any thread. Addresses are for the GPU: the CPU reaches the bytes by read() and write() alone. What a
// call has changed is there for everybody, whichever stream or process, when it returns; copy() alone needs settle().
class Allocation
{
public:
    // Throws Error where the driver or its memory does not do. `lengthBytes` may be 0.
    Allocation(uint64_t lengthBytes, Placement const& placement);
    ~Allocation();
    Allocation(Allocation const&) = delete;
    Allocation& operator=(Allocation const&) = delete;

    uint64_t address() const
    {
        return mAddress;
    }

    uint64_t size() const
    {
        return mLengthBytes;
    }

    uint32_t device() const
    {
        return mPlacement.device;
    }

    void write(uint64_t offset, void const* from, uint64_t lengthBytes);
    void read(uint64_t offset, void* into, uint64_t lengthBytes) const;
    void set(uint64_t offset, uint8_t value, uint64_t lengthBytes);

    // Copies from an address of the same device; done after settle().
    void copy(uint64_t offset, uint64_t from, uint64_t lengthBytes);
    void settle();

private:
    void mapChunks();
    void unmapChunks();

    Placement mPlacement;
    uint64_t mLengthBytes;
    uint64_t mAddress = 0;
    uint64_t mMappedBytes = 0;   // whole chunks; 0 where there are none
    uint64_t mReservedBytes = 0;
};

} // namespace host_cuda
