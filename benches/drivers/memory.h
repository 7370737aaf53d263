// The buffer of a driver, and the descriptor list of a cell.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace bench
{

// What a command could not do, for the person who runs the bench.
class Failed : public std::runtime_error
{
    using std::runtime_error::runtime_error;
};

// One copy: offsets in the buffers of the two sides, and bytes.
struct Piece
{
    uint64_t source;
    uint64_t destination;
    uint64_t bytes;
};

// The descriptor list of a cell.
struct Cell
{
    std::vector<Piece> pieces;

    // Throws Failed where the file is none, or where what it names of the reader's side, the source or the destination, is
    // not in a buffer of so many bytes.
    static Cell read(std::string const& path, bool isSource, uint64_t bufferBytes);
};

// Private memory, every page of it touched.
class Buffer
{
public:
    Buffer() = default;
    Buffer(uint64_t bytes, bool hasPattern);
    ~Buffer();
    Buffer(Buffer&& other) noexcept;
    Buffer& operator=(Buffer&& other) noexcept;

    [[nodiscard]] uint64_t address() const
    {
        return reinterpret_cast<uint64_t>(mData);
    }

    [[nodiscard]] uint64_t size() const
    {
        return mBytes;
    }

    void clear();

    // Throws Failed at the first byte that is not as `cell` leaves a cleared buffer.
    void check(Cell const& cell) const;

private:
    std::byte* mData = nullptr;
    uint64_t mBytes = 0;
};

// Throws Failed with what the system says.
[[noreturn]] void failWithErrno(std::string const& what);

} // namespace bench
