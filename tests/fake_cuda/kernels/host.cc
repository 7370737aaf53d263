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

void run_copy(void** params)
{
    baton_copy(param<BatonSegment const*>(params, 0), param<uint32_t>(params, 1));
}

void run_transform(void** params)
{
    baton_transform(param<BatonBlock const*>(params, 0), param<uint32_t>(params, 1), param<BatonRows>(params, 2));
}

void run_threads(void (*kernel)(void**), unsigned grid_x, unsigned block_x, void** params)
{
    baton::gridDim.x = grid_x;
    baton::blockDim.x = block_x;
    for (baton::blockIdx.x = 0; baton::blockIdx.x < grid_x; ++baton::blockIdx.x)
    {
        for (baton::threadIdx.x = 0; baton::threadIdx.x < block_x; ++baton::threadIdx.x)
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

int baton_host_launch(char const* name, unsigned grid_x, unsigned block_x, void** params)
{
    void (*kernel)(void**) = std::strcmp(name, "baton_copy") == 0 ? run_copy
        : std::strcmp(name, "baton_transform") == 0               ? run_transform
                                                                  : nullptr;
    bool const is_launch = grid_x > 0 && block_x > 0 && block_x <= baton::kThreads && block_x % baton::kLanes == 0;
    if (kernel == nullptr || !is_launch)
    {
        return 1;
    }
    try
    {
        run_threads(kernel, grid_x, block_x, params);
    }
    catch (baton::BadAddress const&)
    {
        return 2;
    }
    return 0;
}
