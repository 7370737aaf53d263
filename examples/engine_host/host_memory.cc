#include "host_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

namespace engine_host
{
namespace
{

uint64_t map(uint64_t lengthBytes)
{
    if (lengthBytes == 0)
    {
        return 0;
    }
    void* const data
        = mmap(nullptr, lengthBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED)
    {
        throw std::system_error(errno, std::generic_category(), "mmap of " + std::to_string(lengthBytes) + " bytes");
    }
    madvise(data, lengthBytes, MADV_HUGEPAGE); // a hint: without huge pages it is only slower
    return reinterpret_cast<uintptr_t>(data);
}

} // namespace

HostMemory::HostMemory(uint64_t lengthBytes)
    : Memory(map(lengthBytes), lengthBytes)
{
}

HostMemory::~HostMemory()
{
    if (size() != 0)
    {
        munmap(at(0), size());
    }
}

void HostMemory::change(uint64_t offset, uint64_t, std::function<void(std::byte*)> const& change)
{
    change(static_cast<std::byte*>(at(offset)));
}

void HostMemory::look(uint64_t offset, uint64_t, std::function<void(std::byte const*)> const& look) const
{
    look(static_cast<std::byte const*>(at(offset)));
}

void HostMemory::zero(uint64_t offset, uint64_t lengthBytes)
{
    std::memset(at(offset), 0, lengthBytes);
}

void HostMemory::copyIn(uint64_t offset, uint64_t from, uint64_t lengthBytes)
{
    std::memcpy(at(offset), reinterpret_cast<void const*>(from), lengthBytes);
}

} // namespace engine_host
