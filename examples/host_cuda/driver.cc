#include "driver.h"

#include <dlfcn.h>

#include <cstdlib>

namespace host_cuda
{
namespace
{

// Looks functions up, one after the other.
class Library
{
public:
    Library()
    {
        char const* const named = std::getenv("BATON_CUDA_LIBRARY");
        mName = named != nullptr && *named != '\0' ? named : "libcuda.so.1";
        mHandle = dlopen(mName.c_str(), RTLD_NOW); // kept to the end of the process
        if (mHandle == nullptr)
        {
            throw Error(std::string("GPU memory needs the NVIDIA driver: ") + dlerror());
        }
    }

    template <typename Function>
    void find(Function& function, char const* symbol) const
    {
        void* const address = dlsym(mHandle, symbol);
        if (address == nullptr)
        {
            throw Error(mName + " has no " + symbol + ": the NVIDIA driver is too old");
        }
        function = reinterpret_cast<Function>(address);
    }

private:
    std::string mName;
    void* mHandle;
};

Functions resolve()
{
    Library const library;
    Functions functions{};
    library.find(functions.cuInit, "cuInit");
    library.find(functions.cuGetErrorName, "cuGetErrorName");
    library.find(functions.cuGetErrorString, "cuGetErrorString");
    library.find(functions.cuDeviceGetCount, "cuDeviceGetCount");
    library.find(functions.cuDeviceGet, "cuDeviceGet");
    library.find(functions.cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
    library.find(functions.cuCtxSetCurrent, "cuCtxSetCurrent");
    library.find(functions.cuCtxSynchronize, "cuCtxSynchronize");
    library.find(functions.cuMemAlloc, "cuMemAlloc_v2");
    library.find(functions.cuMemFree, "cuMemFree_v2");
    library.find(functions.cuMemcpyHtoD, "cuMemcpyHtoD_v2");
    library.find(functions.cuMemcpyDtoH, "cuMemcpyDtoH_v2");
    library.find(functions.cuMemcpyDtoD, "cuMemcpyDtoD_v2");
    library.find(functions.cuMemsetD8, "cuMemsetD8_v2");
    library.find(functions.cuMemGetAllocationGranularity, "cuMemGetAllocationGranularity");
    library.find(functions.cuMemAddressReserve, "cuMemAddressReserve");
    library.find(functions.cuMemAddressFree, "cuMemAddressFree");
    library.find(functions.cuMemCreate, "cuMemCreate");
    library.find(functions.cuMemRelease, "cuMemRelease");
    library.find(functions.cuMemMap, "cuMemMap");
    library.find(functions.cuMemUnmap, "cuMemUnmap");
    library.find(functions.cuMemSetAccess, "cuMemSetAccess");
    return functions;
}

} // namespace

Driver& Driver::get()
{
    static Driver* const driver = new Driver; // objects that live longer than main() may still free their memory
    return *driver;
}

Driver::Driver()
    : mFunctions(resolve())
{
    check(mFunctions.cuInit(0), "cuInit");
    int32_t count = 0;
    check(mFunctions.cuDeviceGetCount(&count), "cuDeviceGetCount");
    mContexts.resize(static_cast<size_t>(count));
}

void Driver::use(uint32_t device)
{
    Context context = nullptr;
    {
        std::lock_guard<std::mutex> const lock(mMutex);
        if (device >= mContexts.size())
        {
            throw Error("there is no device " + std::to_string(device) + ": the CUDA driver has "
                + std::to_string(mContexts.size()));
        }
        if (mContexts[device] == nullptr)
        {
            int32_t handle = 0;
            check(mFunctions.cuDeviceGet(&handle, static_cast<int32_t>(device)), "cuDeviceGet");
            check(mFunctions.cuDevicePrimaryCtxRetain(&mContexts[device], handle), "cuDevicePrimaryCtxRetain");
        }
        context = mContexts[device];
    }
    check(mFunctions.cuCtxSetCurrent(context), "cuCtxSetCurrent");
}

void Driver::check(Result result, std::string const& call) const
{
    if (result == 0)
    {
        return;
    }
    char const* name = nullptr;
    char const* text = nullptr;
    mFunctions.cuGetErrorName(result, &name);
    mFunctions.cuGetErrorString(result, &text);
    throw Error(call + ": " + (name != nullptr ? name : "error " + std::to_string(result))
        + (text != nullptr ? std::string(" (") + text + ")" : ""));
}

} // namespace host_cuda
