// The functions that hosts look up by name: all that this library exports (cmake/exports.txt).

#include "connection_manager.h"
#include "errors.h"
#include "loopback_agent.h"
#include "transfer_agent.h"

namespace
{

using baton::abi::ConfigFloor;
using baton::abi::ConfigP2;
using baton::abi::HostAge;
using baton::abi::kv_cache::BaseAgentConfig;

HostAge hostAge(char const* factory, void const* config)
{
    auto const age = static_cast<HostAge>(baton::bridge::host_age(factory));
    if (config == nullptr)
    {
        throw std::runtime_error(std::string("[baton] ") + factory + " was called without a config");
    }
    return age;
}

// The name is the first member at every age.
rust::Slice<uint8_t const> nameOf(void const* config)
{
    return baton::bytesOf(static_cast<ConfigFloor const*>(config)->mName);
}

baton::bridge::AgentSettings settingsOf(HostAge age, void const* config, bool isNixl)
{
    baton::bridge::AgentSettings settings{isNixl, nameOf(config), {}, 0};
    if (age >= HostAge::kP2)
    {
        for (auto const& param : static_cast<ConfigP2 const*>(config)->backendParams)
        {
            settings.backend_params.push_back(rust::String::lossy(param.first + "=" + param.second));
        }
    }
    if (age >= HostAge::kP4)
    {
        settings.bounce_buffer_mib = static_cast<BaseAgentConfig const*>(config)->agentBufferSizeMb;
    }
    return settings;
}

std::unique_ptr<baton::abi::TransferAgent> makeTransferAgent(
    char const* factory, void const* config, bool isNixl)
{
    return baton::orThrow(
        [&]
        {
            auto const age = hostAge(factory, config);
            auto agent = baton::bridge::open_agent(settingsOf(age, config, isNixl));
            return std::make_unique<baton::TransferAgent>(age, std::move(agent));
        });
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
    return makeTransferAgent("createNixlTransferAgent", config, true);
}

BATON_EXPORT std::unique_ptr<baton::abi::TransferAgent> createMooncakeTransferAgent(void const* config)
{
    return makeTransferAgent("createMooncakeTransferAgent", config, false);
}

BATON_EXPORT std::shared_ptr<baton::abi::kv_cache::BaseLoopbackAgent> createNixlLoopbackAgent(void const* config)
{
    return baton::orThrow(
        [&]() -> std::shared_ptr<baton::abi::kv_cache::BaseLoopbackAgent>
        {
            hostAge("createNixlLoopbackAgent", config);
            return std::make_shared<baton::LoopbackAgent>(baton::bridge::open_loopback(nameOf(config)));
        });
}

// Nothing is passed in: what the host would give comes from the environment. Other ranks may be waited for.
BATON_EXPORT std::unique_ptr<baton::abi::kv_cache::ConnectionManager> makeUcxConnectionManager()
{
    return baton::orThrow(
        [&]() -> std::unique_ptr<baton::abi::kv_cache::ConnectionManager>
        {
            auto const age = static_cast<HostAge>(baton::bridge::host_age("makeUcxConnectionManager"));
            return std::make_unique<baton::ConnectionManager>(age, baton::bridge::open_connections());
        });
}
