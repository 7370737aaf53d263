#include "board.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fcntl.h>
#include <stdexcept>
#include <sys/mman.h>
#include <unistd.h>

namespace chaos
{
namespace
{

constexpr size_t kPage = 4096;
constexpr size_t kGap = 64;
constexpr size_t kFirstSlot = 2 * kPage;

size_t roundedUp(size_t bytes)
{
    return (bytes + kPage - 1) / kPage * kPage;
}

uint64_t nowNs()
{
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

} // namespace

Arena::Arena(std::string const& path, Shape const& shape)
    : mShape{shape}
    , mSize{kFirstSlot + shape.slots * (roundedUp(extentBytes()) + kPage)}
{
    int const file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    auto* const mapping = ::mmap(nullptr, mSize, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    auto const reason = std::string(std::strerror(errno));
    ::close(file);
    if (mapping == MAP_FAILED)
    {
        throw std::runtime_error("cannot map " + path + ": " + reason);
    }
    mMapping = static_cast<unsigned char*>(mapping);
    mBoard = reinterpret_cast<Board*>(mMapping);
}

Arena::~Arena()
{
    ::munmap(mMapping, mSize);
}

void Arena::reach(Phase phase)
{
    uint64_t never = 0;
    mBoard->reachedNs[static_cast<size_t>(phase)].compare_exchange_strong(never, nowNs());
}

seams::Span Arena::extent(size_t slot) const
{
    if (slot >= mShape.slots)
    {
        throw std::logic_error("no slot " + std::to_string(slot));
    }
    return {reinterpret_cast<uintptr_t>(mMapping) + kFirstSlot + slot * (roundedUp(extentBytes()) + kPage), extentBytes()};
}

std::vector<seams::Span> Arena::pieces(size_t slot) const
{
    return piecesAt(extent(slot).addr);
}

std::vector<seams::Span> Arena::piecesAt(uintptr_t base) const
{
    std::vector<seams::Span> pieces;
    for (size_t index = 0; index < mShape.pieces; ++index)
    {
        pieces.push_back({base + index * (mShape.pieceBytes + kGap), mShape.pieceBytes});
    }
    return pieces;
}

size_t Arena::extentBytes() const
{
    return mShape.pieces * (mShape.pieceBytes + kGap);
}

} // namespace chaos
