// The CUDA driver as a host program uses it: opened at run time, so that the program runs where there is none.
//
// These are this folder's own declarations of what the driver API fixes; nothing of a CUDA toolkit is needed. The
// library is libcuda.so.1, or what BATON_CUDA_LIBRARY names: the one that Baton opens too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace host_cuda
{

// What failed, and how the driver calls it.
class Error : public std::runtime_error
{
public:
    using std::runtime_error::runtime_error;
};

// --- types of the driver API -------------------------------------------------------------------------------------

using Result = uint32_t; // an unknown code stays a number
using Context = struct ContextOpaque*;
using Address = uint64_t; // CUdeviceptr
using Handle = uint64_t;  // CUmemGenericAllocationHandle

struct MemLocation
{
    int32_t type = 1; // a device
    int32_t id = 0;
};

struct MemAllocationProp
{
    int32_t type = 1; // pinned: it stays where it is
    int32_t requestedHandleTypes = 0;
    MemLocation location;
    void* win32HandleMetaData = nullptr;
    uint8_t compressionType = 0;
    uint8_t gpuDirectRdmaCapable = 0;
    uint16_t usage = 0;
    uint8_t reserved[4] = {};
};

struct MemAccessDesc
{
    MemLocation location;
    int32_t flags = 3; // read and write
};

static_assert(sizeof(MemAllocationProp) == 32 && offsetof(MemAllocationProp, win32HandleMetaData) == 16);
static_assert(sizeof(MemAccessDesc) == 12);

constexpr int32_t kHandleTypePosixFd = 1;
constexpr int32_t kGranularityMinimum = 0;

// The functions that hosts call, by their names in the library.
struct Functions
{
    Result (*cuInit)(uint32_t flags);
    Result (*cuGetErrorName)(Result code, char const** name);
    Result (*cuGetErrorString)(Result code, char const** text);
    Result (*cuDeviceGetCount)(int32_t* count);
    Result (*cuDeviceGet)(int32_t* device, int32_t ordinal);
    Result (*cuDevicePrimaryCtxRetain)(Context* context, int32_t device);
    Result (*cuCtxSetCurrent)(Context context);
    Result (*cuCtxSynchronize)();
    Result (*cuMemAlloc)(Address* address, size_t bytes);
    Result (*cuMemFree)(Address address);
    Result (*cuMemcpyHtoD)(Address to, void const* from, size_t bytes);
    Result (*cuMemcpyDtoH)(void* to, Address from, size_t bytes);
    Result (*cuMemcpyDtoD)(Address to, Address from, size_t bytes);
    Result (*cuMemsetD8)(Address to, uint8_t value, size_t bytes);
    Result (*cuMemGetAllocationGranularity)(size_t* bytes, MemAllocationProp const* prop, int32_t option);
    Result (*cuMemAddressReserve)(Address* address, size_t bytes, size_t alignment, Address hint, uint64_t flags);
    Result (*cuMemAddressFree)(Address address, size_t bytes);
    Result (*cuMemCreate)(Handle* handle, size_t bytes, MemAllocationProp const* prop, uint64_t flags);
    Result (*cuMemRelease)(Handle handle);
    Result (*cuMemMap)(Address address, size_t bytes, size_t offset, Handle handle, uint64_t flags);
    Result (*cuMemUnmap)(Address address, size_t bytes);
    Result (*cuMemSetAccess)(Address address, size_t bytes, MemAccessDesc const* access, size_t count);
};

// --- the driver ---------------------------------------------------------------------------------------------------

class Driver
{
public:
    // The one of this process, opened by the first call and never closed. Throws Error: no library, a function it
    // lacks, or no device.
    static Driver& get();

    Functions const& functions() const
    {
        return mFunctions;
    }

    // Makes the device's primary context, retained at first use and never released, the calling thread's. Throws Error
    // where there is no such device.
    void use(uint32_t device);

    // Throws Error unless the call succeeded.
    void check(Result result, std::string const& call) const;

private:
    Driver();

    Functions mFunctions{};
    std::mutex mMutex;
    std::vector<Context> mContexts; // by ordinal; null where none has been retained
};

} // namespace host_cuda
