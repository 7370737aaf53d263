#include "allocation.h"

#include "driver.h"

#include <string>

namespace host_cuda
{
namespace
{

uint64_t roundUp(uint64_t bytes, uint64_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

// The driver, with the device's context made the calling thread's.
Driver& driverOn(uint32_t device)
{
    Driver& driver = Driver::get();
    driver.use(device);
    return driver;
}

MemAllocationProp chunkProp(Placement const& placement)
{
    MemAllocationProp prop;
    prop.requestedHandleTypes = placement.chunksShareable ? kHandleTypePosixFd : 0;
    prop.location.id = static_cast<int32_t>(placement.device);
    return prop;
}

std::string sized(char const* call, uint64_t bytes)
{
    return std::string(call) + " of " + std::to_string(bytes) + " bytes";
}

} // namespace

Allocation::Allocation(uint64_t lengthBytes, Placement const& placement)
    : mPlacement(placement)
    , mLengthBytes(lengthBytes)
{
    Driver& driver = driverOn(placement.device);
    if (lengthBytes == 0)
    {
        return;
    }
    if (placement.chunkBytes == 0)
    {
        driver.check(driver.functions().cuMemAlloc(&mAddress, lengthBytes), sized("cuMemAlloc", lengthBytes));
        return;
    }
    try
    {
        mapChunks();
    }
    catch (...)
    {
        unmapChunks();
        throw;
    }
}

void Allocation::mapChunks()
{
    Driver& driver = Driver::get();
    Functions const& cuda = driver.functions();
    MemAllocationProp const prop = chunkProp(mPlacement);
    size_t granularity = 0;
    driver.check(cuda.cuMemGetAllocationGranularity(&granularity, &prop, kGranularityMinimum),
        "cuMemGetAllocationGranularity");
    mPlacement.chunkBytes = roundUp(mPlacement.chunkBytes, granularity);
    uint64_t const total = roundUp(mLengthBytes, mPlacement.chunkBytes);
    driver.check(cuda.cuMemAddressReserve(&mAddress, total, 0, 0, 0), sized("cuMemAddressReserve", total));
    mReservedBytes = total;
    while (mMappedBytes < total)
    {
        Handle chunk = 0;
        driver.check(
            cuda.cuMemCreate(&chunk, mPlacement.chunkBytes, &prop, 0), sized("cuMemCreate", mPlacement.chunkBytes));
        Result const mapped = cuda.cuMemMap(mAddress + mMappedBytes, mPlacement.chunkBytes, 0, chunk, 0);
        driver.check(cuda.cuMemRelease(chunk), "cuMemRelease"); // its mapping holds it from here on
        driver.check(mapped, "cuMemMap");
        mMappedBytes += mPlacement.chunkBytes;
    }
    MemAccessDesc const access{prop.location};
    driver.check(cuda.cuMemSetAccess(mAddress, total, &access, 1), "cuMemSetAccess");
}

void Allocation::unmapChunks()
{
    Functions const& cuda = Driver::get().functions();
    for (; mMappedBytes != 0; mMappedBytes -= mPlacement.chunkBytes)
    {
        cuda.cuMemUnmap(mAddress + mMappedBytes - mPlacement.chunkBytes, mPlacement.chunkBytes);
    }
    if (mReservedBytes != 0)
    {
        cuda.cuMemAddressFree(mAddress, mReservedBytes);
    }
}

Allocation::~Allocation()
{
    if (mAddress == 0)
    {
        return;
    }
    try
    {
        Driver& driver = driverOn(mPlacement.device);
        driver.functions().cuCtxSynchronize();
        if (mReservedBytes != 0)
        {
            unmapChunks();
        }
        else
        {
            driver.functions().cuMemFree(mAddress);
        }
    }
    catch (Error const&)
    {
        // A device that has failed frees nothing; the process that sees it is on its way out.
    }
}

void Allocation::write(uint64_t offset, void const* from, uint64_t lengthBytes)
{
    Driver& driver = driverOn(mPlacement.device);
    driver.check(driver.functions().cuMemcpyHtoD(mAddress + offset, from, lengthBytes), "cuMemcpyHtoD");
    settle(); // the copy may return while the last of it is on its way
}

void Allocation::read(uint64_t offset, void* into, uint64_t lengthBytes) const
{
    Driver& driver = driverOn(mPlacement.device);
    driver.check(driver.functions().cuMemcpyDtoH(into, mAddress + offset, lengthBytes), "cuMemcpyDtoH");
}

void Allocation::set(uint64_t offset, uint8_t value, uint64_t lengthBytes)
{
    Driver& driver = driverOn(mPlacement.device);
    driver.check(driver.functions().cuMemsetD8(mAddress + offset, value, lengthBytes), "cuMemsetD8");
    settle();
}

void Allocation::copy(uint64_t offset, uint64_t from, uint64_t lengthBytes)
{
    Driver& driver = driverOn(mPlacement.device);
    driver.check(driver.functions().cuMemcpyDtoD(mAddress + offset, from, lengthBytes), "cuMemcpyDtoD");
}

void Allocation::settle()
{
    Driver& driver = driverOn(mPlacement.device);
    driver.check(driver.functions().cuCtxSynchronize(), "cuCtxSynchronize");
}

} // namespace host_cuda
