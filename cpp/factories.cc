// The functions that hosts look up by name (S1, S3). The classes that hosts link against (S2) are in nixl_classes.h.

#include "agent_factory.h"
#include "connection_manager.h"
#include "errors.h"
#include "host_config.h"
#include "loopback_agent.h"

namespace
{

std::unique_ptr<baton::abi::TransferAgent> make(char const* factory, void const* config, bool isNixl)
{
    auto const made = baton::makeTransferAgent(factory, config, isNixl);
    return std::unique_ptr<baton::abi::TransferAgent>(static_cast<baton::abi::TransferAgent*>(made.agent));
}

} // namespace

#define BATON_EXPORT extern "C" __attribute__((visibility("default")))

#ifdef __clang__
#pragma clang diagnostic ignored "-Wreturn-type-c-linkage" // the seam is C++ under C names
#endif

// The host takes the result for std::unique_ptr<BaseTransferAgent>: one pointer, returned in memory, deleted
// through slot 1.
BATON_EXPORT std::unique_ptr<baton::abi::TransferAgent> createNixlTransferAgent(void const* config)
{
    return make("createNixlTransferAgent", config, true);
}

BATON_EXPORT std::unique_ptr<baton::abi::TransferAgent> createMooncakeTransferAgent(void const* config)
{
    return make("createMooncakeTransferAgent", config, false);
}

BATON_EXPORT std::shared_ptr<baton::abi::kv_cache::BaseLoopbackAgent> createNixlLoopbackAgent(void const* config)
{
    return baton::orThrow(
        [&]() -> std::shared_ptr<baton::abi::kv_cache::BaseLoopbackAgent>
        {
            baton::hostAge("createNixlLoopbackAgent", config);
            return std::make_shared<baton::LoopbackAgent>(baton::bridge::open_loopback(baton::nameOf(config)));
        });
}

// Nothing is passed in: what the host would give comes from the environment. Other ranks may be waited for.
BATON_EXPORT std::unique_ptr<baton::abi::kv_cache::ConnectionManager> makeUcxConnectionManager()
{
    return baton::orThrow(
        [&]() -> std::unique_ptr<baton::abi::kv_cache::ConnectionManager>
        {
            auto const age = static_cast<baton::abi::HostAge>(baton::bridge::host_age("makeUcxConnectionManager"));
            return std::make_unique<baton::ConnectionManager>(age, baton::bridge::open_connections());
        });
}
