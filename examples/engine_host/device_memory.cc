#include "device_memory.h"

#include "failure.h"

#include "host_cuda/allocation.h"
#include "host_cuda/driver.h"

namespace engine_host
{
namespace
{

using host_cuda::Allocation;

// Runs a call into the driver; its error becomes a failure of this rank.
template <typename Call>
auto guarded(Call call) -> decltype(call())
{
    try
    {
        return call();
    }
    catch (host_cuda::Error const& error)
    {
        throw Failure(FailureKind::kDevice, error.what());
    }
}

// The CPU works on copies.
class DeviceMemory final : public Memory
{
public:
    explicit DeviceMemory(std::unique_ptr<Allocation> allocation)
        : Memory(allocation->address(), allocation->size())
        , mAllocation(std::move(allocation))
    {
    }

    void change(uint64_t offset, uint64_t lengthBytes, std::function<void(std::byte*)> const& change) override
    {
        auto const copy = copyOf(offset, lengthBytes);
        change(copy.get());
        guarded([&] { mAllocation->write(offset, copy.get(), lengthBytes); });
    }

    void look(
        uint64_t offset, uint64_t lengthBytes, std::function<void(std::byte const*)> const& look) const override
    {
        look(copyOf(offset, lengthBytes).get());
    }

    void zero(uint64_t offset, uint64_t lengthBytes) override
    {
        guarded([&] { mAllocation->set(offset, 0, lengthBytes); });
    }

    void copyIn(uint64_t offset, uint64_t from, uint64_t lengthBytes) override
    {
        guarded([&] { mAllocation->copy(offset, from, lengthBytes); });
    }

    void settle() override
    {
        guarded([&] { mAllocation->settle(); });
    }

private:
    std::unique_ptr<std::byte[]> copyOf(uint64_t offset, uint64_t lengthBytes) const
    {
        std::unique_ptr<std::byte[]> copy(new std::byte[lengthBytes]); // uninitialised: the read fills it
        guarded([&] { mAllocation->read(offset, copy.get(), lengthBytes); });
        return copy;
    }

    std::unique_ptr<Allocation> mAllocation;
};

} // namespace

std::unique_ptr<Memory> makeDeviceMemory(uint64_t lengthBytes, MemoryChoice const& choice)
{
    host_cuda::Placement const placement{choice.device, choice.chunkBytes, choice.chunksShareable};
    return guarded(
        [&] { return std::make_unique<DeviceMemory>(std::make_unique<Allocation>(lengthBytes, placement)); });
}

} // namespace engine_host
