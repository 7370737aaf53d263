// Memory of one side: pieces that hold a pattern, and bytes around them that nobody may touch.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace seams
{

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

// A mapping that holds a layout's pieces, with a margin before and behind.
class Memory
{
public:
    // Everything in it is background.
    Memory(Layout const& layout, End end);
    ~Memory();
    Memory(Memory const&) = delete;
    Memory& operator=(Memory const&) = delete;

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
    Layout mLayout;
    End mEnd;
    unsigned char* mMapping;
    size_t mSize;
};

} // namespace seams
