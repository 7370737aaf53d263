// That the conformance hosts' own checks can fail: a byte that is wrong, at the wrong place or beside its place is
// found, and a list that cannot be followed is refused.

#include "memory.h"
#include "scenario.h"

#include "host_cuda/driver.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <unistd.h>

using namespace seams;

namespace
{

#define CHECK(condition) \
    do \
    { \
        if (!(condition)) \
        { \
            std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            std::exit(1); \
        } \
    } while (false)

unsigned char* at(uintptr_t address)
{
    return reinterpret_cast<unsigned char*>(address);
}

// What a good move does: every piece to its pair.
void copy(Memory const& from, Memory const& to)
{
    auto const sources = from.pieces(), targets = to.pieces();
    CHECK(sources.size() == targets.size());
    for (size_t piece = 0; piece < sources.size(); ++piece)
    {
        CHECK(sources[piece].len == targets[piece].len);
        std::memcpy(at(targets[piece].addr), at(sources[piece].addr), sources[piece].len);
    }
}

// Whether `spoil` of one byte is found, and whether all is well again without it.
void expectFound(Memory& memory, uint64_t seed, uintptr_t address)
{
    CHECK(memory.faults(seed).empty());
    *at(address) ^= 1;
    CHECK(!memory.faults(seed).empty());
    *at(address) ^= 1;
    CHECK(memory.faults(seed).empty());
}

void everyByteCounts(Layout const& layout)
{
    Memory source(layout, End::kSource), target(layout, End::kDestination);
    CHECK(target.traces().empty());
    source.fill(7);
    copy(source, target);
    CHECK(target.faults(7).empty() && source.faults(7).empty());
    CHECK(!target.faults(8).empty() && !target.traces().empty());
    for (auto const& piece : target.pieces())
    {
        for (size_t offset = 0; offset < piece.len; ++offset)
        {
            expectFound(target, 7, piece.addr + offset);
        }
    }
    auto const extent = target.extent();
    expectFound(target, 7, extent.addr - 1);
    expectFound(target, 7, extent.addr + extent.len);
    if (layout.shape != "dense")
    {
        expectFound(target, 7, target.pieces().front().addr + target.pieces().front().len);
    }
}

// Two pieces that have changed places hold good bytes at the wrong place.
void placesCount()
{
    Layout const layout{4096, 4, "gaps"};
    Memory memory(layout, End::kSource);
    memory.fill(3);
    CHECK(memory.wordsOf(3) == 512 && memory.wordsOf(4) == 0);
    auto const pieces = memory.pieces();
    std::swap_ranges(at(pieces[0].addr), at(pieces[0].addr) + pieces[0].len, at(pieces[1].addr));
    CHECK(!memory.faults(3).empty());
    CHECK(memory.wordsOf(3) == 256);
}

// The same checks see memory of a GPU, a byte beside a chunk's edge too. Nothing here reaches it but by the driver.
void gpuMemoryIsSeen(Store store)
{
    Layout const layout{5 << 20, 7, "uneven"};
    Memory memory(layout, End::kSource, store);
    CHECK(memory.kind() == Kind::kVram && memory.traces().empty());
    memory.fill(3);
    CHECK(memory.faults(3).empty() && !memory.faults(4).empty() && memory.wordsOf(3) > 600000);
    auto const& cuda = host_cuda::Driver::get().functions();
    auto const piece = memory.pieces().at(3);
    for (auto const address : {memory.base() - 1, memory.extent().addr + memory.extent().len, piece.addr + piece.len / 2})
    {
        unsigned char byte = 0;
        CHECK(cuda.cuMemcpyDtoH(&byte, address, 1) == 0 && cuda.cuMemsetD8(address, byte ^ 1, 1) == 0);
        CHECK(!memory.faults(3).empty());
        CHECK(cuda.cuMemsetD8(address, byte, 1) == 0 && memory.faults(3).empty());
    }
    memory.clear();
    CHECK(memory.traces().empty() && memory.wordsOf(3) == 0);
}

void lengthsAddUp()
{
    for (char const* shape : {"dense", "gaps", "reversed", "uneven"})
    {
        for (size_t const descriptors : {1, 2, 7, 65536})
        {
            Layout const layout{1000003, descriptors, shape};
            auto const pieces = piecesAt(layout, End::kDestination, 4096);
            auto const end = 4096 + extentOf(layout);
            size_t total = 0;
            for (auto const& piece : pieces)
            {
                CHECK(piece.len != 0 && piece.addr >= 4096 && piece.addr + piece.len <= end);
                total += piece.len;
            }
            CHECK(total == layout.bytes && pieces.size() == descriptors);
        }
    }
}

void expectRefused(std::string const& line, std::string const& part)
{
    std::string name = "/tmp/baton-seam-selftest-XXXXXX";
    int const file = ::mkstemp(name.data());
    CHECK(file >= 0);
    ::close(file);
    std::ofstream(name) << "kind move bytes says\na move bytes=1\n" << line << "\n";
    std::string text;
    try
    {
        readScenarios(name);
    }
    catch (std::runtime_error const& error)
    {
        text = error.what();
    }
    ::unlink(name.c_str());
    std::printf("%s\n", text.c_str());
    CHECK(text.find(":3: " + part) != std::string::npos);
}

} // namespace

int main()
{
    for (char const* shape : {"dense", "gaps", "reversed", "uneven"})
    {
        everyByteCounts({150, 4, shape});
        everyByteCounts({1, 1, shape});
    }
    placesCount();
    lengthsAddUp();
    for (auto const store : {Store::kVram, Store::kVmm, Store::kVmmPrivate})
    {
        CHECK(storeNamed(name(store)) == store);
        gpuMemoryIsSeen(store);
    }
    expectRefused("a move bytes=2", "the name is used twice");
    expectRefused("b fall bytes=2", "no kind 'fall' is declared");
    expectRefused("b move byte=2", "a move has no parameter 'byte'");
    return 0;
}
