// Memory of one side: pieces that hold a pattern, and bytes around them that nobody may touch.

#pragma once

#include "host_cuda/allocation.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace seams
{

// What a seam calls memory.
enum class Kind
{
    kDram,
    kVram
};

// What memory a scenario gives a side.
enum class Store
{
    kDram,
    kVram,       // one allocation on a GPU
    kVmm,        // chunks on a GPU, mapped side by side
    kVmmPrivate  // chunks that no other process can be given
};

// By its name in the list: dram, vram, vmm, vmm-private. Throws std::invalid_argument for any other.
Store storeNamed(std::string const& name);
char const* name(Store store);

// A piece of memory.
struct Span
{
    uintptr_t addr;
    size_t len;
};

// How a scenario's bytes are cut and placed. Both sides compute the same pieces from it.
struct Layout
{
    size_t bytes;
    size_t descriptors;
    std::string shape; // dense, gaps, reversed (the destination lies in reverse), uneven (odd lengths and gaps)

    bool operator==(Layout const& other) const
    {
        return bytes == other.bytes && descriptors == other.descriptors && shape == other.shape;
    }
};

// Whose memory it is: `reversed` reverses the destination alone.
enum class End
{
    kSource,
    kDestination
};

// The pieces of a layout in memory that starts at `base`, in the order in which they are paired.
std::vector<Span> piecesAt(Layout const& layout, End end, uintptr_t base);

// From the first piece's begin to the last one's end, gaps included; never 0.
size_t extentOf(Layout const& layout);

// Memory that holds a layout's pieces, with a margin before and behind. What lies on a GPU is looked at and changed in
// a copy here. Usable from any thread.
class Memory
{
public:
    // Everything in it is background. Throws host_cuda::Error where the GPU or its driver does not do.
    Memory(Layout const& layout, End end, Store store = Store::kDram);
    ~Memory();
    Memory(Memory const&) = delete;
    Memory& operator=(Memory const&) = delete;

    Kind kind() const
    {
        return mDevice != nullptr ? Kind::kVram : Kind::kDram;
    }

    uintptr_t base() const;

    std::vector<Span> pieces() const;

    // All pieces and the gaps between them: what is registered as one region. The margins are outside.
    Span extent() const;

    void fill(uint64_t seed);

    void clear();

    // What is wrong if the pieces should hold the pattern of `seed` and all else be background: empty, or the
    // first place and how many bytes.
    std::string faults(uint64_t seed) const;

    // Whether it is background everywhere: empty, or what is not.
    std::string traces() const;

    // How many whole words of the pieces hold the pattern of `seed` at their place.
    size_t wordsOf(uint64_t seed) const;

private:
    // Where this process sees an address of the memory.
    unsigned char* seen(uintptr_t address) const;
    // Brings the copy up to date, and hands back what has been changed in it. Of DRAM there is no copy.
    void pull() const;
    void push();

    Layout mLayout;
    End mEnd;
    size_t mSize;
    unsigned char* mMapping; // the memory itself, or the copy
    std::unique_ptr<host_cuda::Allocation> mDevice;
    mutable std::mutex mMutex; // the copy
};

} // namespace seams
