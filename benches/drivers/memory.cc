#include "memory.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sys/mman.h>
#include <utility>

namespace bench
{
namespace
{

constexpr uint64_t kWord = sizeof(uint64_t);

uint64_t splitmix64(uint64_t index)
{
    uint64_t z = (index + 1) * 0x9E3779B97F4A7C15U;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

} // namespace

Cell Cell::read(std::string const& path, bool isSource, uint64_t bufferBytes)
{
    static_assert(sizeof(Piece) == 3 * kWord);
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    auto const length = static_cast<std::streamoff>(file.tellg());
    if (!file || length <= 0 || length % static_cast<std::streamoff>(sizeof(Piece)) != 0)
    {
        throw Failed(path + " is no descriptor list");
    }
    Cell cell;
    cell.pieces.resize(static_cast<size_t>(length) / sizeof(Piece));
    file.seekg(0);
    if (!file.read(reinterpret_cast<char*>(cell.pieces.data()), length))
    {
        throw Failed(path + " cannot be read");
    }
    for (auto const& piece : cell.pieces)
    {
        auto const offset = isSource ? piece.source : piece.destination;
        bool const isInside = offset <= bufferBytes && piece.bytes <= bufferBytes - offset;
        bool const isWords = piece.bytes % kWord == 0 && piece.source % kWord == 0 && piece.destination % kWord == 0;
        if (piece.bytes == 0 || !isWords || !isInside)
        {
            throw Failed(path + " names what is not in a buffer of " + std::to_string(bufferBytes) + " bytes");
        }
    }
    return cell;
}

Buffer::Buffer(uint64_t bytes, bool hasPattern)
    : mBytes{bytes}
{
    if (bytes == 0)
    {
        return;
    }
    void* const data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
    {
        failWithErrno("mapping " + std::to_string(bytes) + " bytes");
    }
    mData = static_cast<std::byte*>(data);
    clear();
    for (uint64_t word = 0; hasPattern && word < bytes / kWord; ++word)
    {
        auto const value = splitmix64(word);
        std::memcpy(mData + word * kWord, &value, kWord);
    }
}

Buffer::~Buffer()
{
    if (mData != nullptr)
    {
        ::munmap(mData, mBytes);
    }
}

Buffer::Buffer(Buffer&& other) noexcept
    : mData{std::exchange(other.mData, nullptr)}
    , mBytes{std::exchange(other.mBytes, 0)}
{
}

Buffer& Buffer::operator=(Buffer&& other) noexcept
{
    std::swap(mData, other.mData);
    std::swap(mBytes, other.mBytes);
    return *this;
}

void Buffer::clear()
{
    std::memset(mData, 0, mBytes);
}

void Buffer::check(Cell const& cell) const
{
    auto pieces = cell.pieces;
    std::sort(pieces.begin(), pieces.end(),
        [](Piece const& one, Piece const& other) { return one.destination < other.destination; });
    uint64_t at = 0;
    auto const look = [&](uint64_t end, auto&& expected)
    {
        for (; at < end; at += kWord)
        {
            uint64_t value = 0;
            std::memcpy(&value, mData + at, std::min(kWord, end - at));
            if (value != expected(at))
            {
                throw Failed("wrong data at offset " + std::to_string(at) + " of the destination");
            }
        }
    };
    auto const zero = [](uint64_t) { return uint64_t{0}; };
    for (auto const& piece : pieces)
    {
        look(piece.destination, zero);
        look(piece.destination + piece.bytes,
            [&](uint64_t offset) { return splitmix64((piece.source + offset - piece.destination) / kWord); });
    }
    look(mBytes, zero);
}

void failWithErrno(std::string const& what)
{
    throw Failed(what + ": " + std::strerror(errno));
}

} // namespace bench
