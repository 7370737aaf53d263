#include "memory.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <sys/mman.h>

namespace seams
{
namespace
{

constexpr size_t kMargin = 4096;
constexpr unsigned char kBackground = 0xEE;
constexpr size_t kWord = sizeof(uint64_t);

// The pattern's word number `index`; its bytes in memory order.
uint64_t word(uint64_t seed, uint64_t index)
{
    uint64_t const mixed = (index + 1) * 0x9E3779B97F4A7C15u + seed * 0xD1B54A32D192ED03u;
    return mixed ^ (mixed >> 29);
}

// The pattern's byte at `position` of what is moved.
unsigned char byteAt(uint64_t seed, size_t position)
{
    auto const whole = word(seed, position / kWord);
    unsigned char bytes[kWord];
    std::memcpy(bytes, &whole, kWord);
    return bytes[position % kWord];
}

// Calls `bytes(at, len, position)` for the ragged ends of a piece and `words(at, count, index)` for its middle.
template <typename Bytes, typename Words>
void walk(unsigned char* at, size_t len, size_t position, Bytes&& bytes, Words&& words)
{
    size_t const head = std::min(len, (kWord - position % kWord) % kWord);
    bytes(at, head, position);
    size_t const count = (len - head) / kWord;
    words(at + head, count, (position + head) / kWord);
    size_t const done = head + count * kWord;
    bytes(at + done, len - done, position + done);
}

// Lengths of the pieces. Uneven ones come in pairs: what one has less the other has more.
std::vector<size_t> lengthsOf(Layout const& layout)
{
    if (layout.descriptors == 0)
    {
        return {};
    }
    std::vector<size_t> lengths(layout.descriptors, layout.bytes / layout.descriptors);
    if (layout.shape == "uneven")
    {
        for (size_t at = 0; at + 1 < lengths.size(); at += 2)
        {
            size_t const moved = lengths[at] * (at % 11) / 12;
            lengths[at] -= moved;
            lengths[at + 1] += moved;
        }
    }
    lengths.back() += layout.bytes % layout.descriptors;
    return lengths;
}

size_t gapAfter(Layout const& layout, size_t index)
{
    return layout.shape == "dense" ? 0 : layout.shape == "uneven" ? 1 + index % 13 : 64;
}

constexpr uint64_t kChunk = 2 << 20;

std::unique_ptr<host_cuda::Allocation> allocate(Store store, size_t size)
{
    if (store == Store::kDram)
    {
        return nullptr;
    }
    host_cuda::Placement placement;
    placement.chunkBytes = store == Store::kVram ? 0 : kChunk;
    placement.chunksShareable = store != Store::kVmmPrivate;
    return std::make_unique<host_cuda::Allocation>(size, placement);
}

constexpr std::pair<Store, char const*> kStores[]
    = {{Store::kDram, "dram"}, {Store::kVram, "vram"}, {Store::kVmm, "vmm"}, {Store::kVmmPrivate, "vmm-private"}};

// The first byte that is not background, or `end`.
unsigned char const* touched(unsigned char const* begin, unsigned char const* end)
{
    return std::find_if(begin, end, [](unsigned char byte) { return byte != kBackground; });
}

} // namespace

Store storeNamed(std::string const& wanted)
{
    for (auto const& [store, known] : kStores)
    {
        if (wanted == known)
        {
            return store;
        }
    }
    throw std::invalid_argument("there is no memory '" + wanted + "'");
}

char const* name(Store wanted)
{
    for (auto const& [store, known] : kStores)
    {
        if (wanted == store)
        {
            return known;
        }
    }
    return "?";
}

std::vector<Span> piecesAt(Layout const& layout, End end, uintptr_t base)
{
    auto const lengths = lengthsOf(layout);
    std::vector<Span> pieces(lengths.size());
    bool const backwards = layout.shape == "reversed" && end == End::kDestination;
    for (size_t place = 0; place < lengths.size(); ++place)
    {
        size_t const index = backwards ? lengths.size() - 1 - place : place;
        pieces[index] = {base, lengths[index]};
        base += lengths[index] + gapAfter(layout, place);
    }
    return pieces;
}

size_t extentOf(Layout const& layout)
{
    size_t gaps = 0;
    for (size_t place = 0; place < layout.descriptors; ++place)
    {
        gaps += gapAfter(layout, place);
    }
    return std::max<size_t>(layout.bytes + gaps, kWord);
}

Memory::Memory(Layout const& layout, End end, Store store)
    : mLayout{layout}
    , mEnd{end}
    , mSize{extentOf(layout) + 2 * kMargin}
    , mDevice{allocate(store, mSize)}
{
    auto* const mapping = ::mmap(nullptr, mSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED)
    {
        throw std::runtime_error("no memory for " + std::to_string(mSize) + " bytes");
    }
    mMapping = static_cast<unsigned char*>(mapping);
    clear();
}

Memory::~Memory()
{
    ::munmap(mMapping, mSize);
}

uintptr_t Memory::base() const
{
    return (mDevice != nullptr ? mDevice->address() : reinterpret_cast<uintptr_t>(mMapping)) + kMargin;
}

unsigned char* Memory::seen(uintptr_t address) const
{
    return mMapping + (address - base() + kMargin);
}

void Memory::pull() const
{
    if (mDevice != nullptr)
    {
        mDevice->read(0, mMapping, mSize);
    }
}

void Memory::push()
{
    if (mDevice != nullptr)
    {
        mDevice->write(0, mMapping, mSize);
    }
}

std::vector<Span> Memory::pieces() const
{
    return piecesAt(mLayout, mEnd, base());
}

Span Memory::extent() const
{
    return {base(), mSize - 2 * kMargin};
}

void Memory::clear()
{
    std::lock_guard const lock(mMutex);
    std::memset(mMapping, kBackground, mSize);
    push();
}

void Memory::fill(uint64_t seed)
{
    std::lock_guard const lock(mMutex);
    pull();
    size_t position = 0;
    for (auto const& piece : pieces())
    {
        walk(
            seen(piece.addr), piece.len, position,
            [&](unsigned char* at, size_t len, size_t from)
            {
                for (size_t byte = 0; byte < len; ++byte)
                {
                    at[byte] = byteAt(seed, from + byte);
                }
            },
            [&](unsigned char* at, size_t count, size_t index)
            {
                for (size_t which = 0; which < count; ++which)
                {
                    auto const whole = word(seed, index + which);
                    std::memcpy(at + which * kWord, &whole, kWord);
                }
            });
        position += piece.len;
    }
    push();
}

size_t Memory::wordsOf(uint64_t seed) const
{
    std::lock_guard const lock(mMutex);
    pull();
    size_t found = 0, position = 0;
    for (auto const& piece : pieces())
    {
        walk(
            seen(piece.addr), piece.len, position,
            [](unsigned char*, size_t, size_t) {},
            [&](unsigned char* at, size_t count, size_t index)
            {
                for (size_t which = 0; which < count; ++which)
                {
                    auto const wanted = word(seed, index + which);
                    found += std::memcmp(at + which * kWord, &wanted, kWord) == 0;
                }
            });
        position += piece.len;
    }
    return found;
}

std::string Memory::faults(uint64_t seed) const
{
    std::lock_guard const lock(mMutex);
    pull();
    size_t wrong = 0, first = 0, position = 0;
    auto const note = [&](bool differs, size_t where)
    {
        first = differs && wrong == 0 ? where : first;
        wrong += differs;
    };
    auto all = pieces();
    for (auto const& piece : all)
    {
        walk(
            seen(piece.addr), piece.len, position,
            [&](unsigned char* at, size_t len, size_t from)
            {
                for (size_t byte = 0; byte < len; ++byte)
                {
                    note(at[byte] != byteAt(seed, from + byte), from + byte);
                }
            },
            [&](unsigned char* at, size_t count, size_t index)
            {
                for (size_t which = 0; which < count; ++which)
                {
                    auto const wanted = word(seed, index + which);
                    note(std::memcmp(at + which * kWord, &wanted, kWord) != 0, (index + which) * kWord);
                }
            });
        position += piece.len;
    }
    if (wrong != 0)
    {
        return std::to_string(wrong) + " bytes or words differ, the first near position " + std::to_string(first);
    }
    std::sort(all.begin(), all.end(), [](Span const& a, Span const& b) { return a.addr < b.addr; });
    auto const* free = mMapping;
    all.push_back({base() - kMargin + mSize, 0});
    for (auto const& piece : all)
    {
        auto const* const end = seen(piece.addr);
        if (auto const* const at = touched(free, end); at != end)
        {
            return "a byte outside the pieces was written, at offset " + std::to_string(at - mMapping - kMargin);
        }
        free = end + piece.len;
    }
    return {};
}

std::string Memory::traces() const
{
    std::lock_guard const lock(mMutex);
    pull();
    auto const* const at = touched(mMapping, mMapping + mSize);
    return at == mMapping + mSize
        ? std::string()
        : "something was written, at offset " + std::to_string(at - mMapping - static_cast<ptrdiff_t>(kMargin));
}

} // namespace seams
