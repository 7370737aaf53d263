#include "host.h"

#include <cstring>

#define BATON_HOST_MACHINE "../../../tests/fake_cuda/kernels/machine.h"
#include "../../../src/device/kernels/baton.cu"

namespace
{
template <typename Param>
Param param(void** params, unsigned index)
{
    return *static_cast<Param const*>(params[index]);
}

void runCopy(void** params)
{
    baton_copy(param<BatonSegment const*>(params, 0), param<uint32_t>(params, 1));
}

void runTransform(void** params)
{
    baton_transform(param<BatonBlock const*>(params, 0), param<uint32_t>(params, 1), param<BatonRows>(params, 2));
}

void runThreads(void (*kernel)(void**), unsigned gridX, unsigned blockX, void** params)
{
    baton::gridDim.x = gridX;
    baton::blockDim.x = blockX;
    for (baton::blockIdx.x = 0; baton::blockIdx.x < gridX; ++baton::blockIdx.x)
    {
        for (baton::threadIdx.x = 0; baton::threadIdx.x < blockX; ++baton::threadIdx.x)
        {
            kernel(params);
        }
    }
}
} // namespace

void baton_host_set_address(uint64_t (*translate)(uint64_t))
{
    baton::translation.store(translate, std::memory_order_release);
}

int baton_host_launch(char const* name, unsigned gridX, unsigned blockX, void** params)
{
    void (*kernel)(void**) = std::strcmp(name, "baton_copy") == 0 ? runCopy
        : std::strcmp(name, "baton_transform") == 0               ? runTransform
                                                                  : nullptr;
    bool const isLaunch = gridX > 0 && blockX > 0 && blockX <= baton::kThreads && blockX % baton::kLanes == 0;
    if (kernel == nullptr || !isLaunch)
    {
        return 1;
    }
    try
    {
        runThreads(kernel, gridX, blockX, params);
    }
    catch (baton::BadAddress const&)
    {
        return 2;
    }
    catch (baton::Misaligned const&)
    {
        return 3;
    }
    return 0;
}
