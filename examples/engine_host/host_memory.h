// Anonymous memory of this process.
#pragma once

#include "memory.h"

namespace engine_host
{

class HostMemory final : public Memory
{
public:
    // Throws std::system_error where the system has no room.
    explicit HostMemory(uint64_t lengthBytes);
    ~HostMemory() override;

    void change(uint64_t offset, uint64_t lengthBytes, std::function<void(std::byte*)> const& change) override;
    void look(
        uint64_t offset, uint64_t lengthBytes, std::function<void(std::byte const*)> const& look) const override;
    void zero(uint64_t offset, uint64_t lengthBytes) override;
    void copyIn(uint64_t offset, uint64_t from, uint64_t lengthBytes) override;
    void settle() override {}
};

} // namespace engine_host
