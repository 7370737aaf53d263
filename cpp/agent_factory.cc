#include "agent_factory.h"

#include "errors.h"
#include "host_config.h"
#include "transfer_agent.h"
#include "transfer_status.h"

namespace baton
{

namespace
{

bridge::AgentSettings settingsOf(abi::HostAge age, void const* config, bool isNixl)
{
    bridge::AgentSettings settings{isNixl, nameOf(config), {}, 0};
    if (age >= abi::HostAge::kP2)
    {
        for (auto const& param : static_cast<abi::ConfigP2 const*>(config)->backendParams)
        {
            settings.backend_params.push_back(::rust::String::lossy(param.first + "=" + param.second));
        }
    }
    if (age >= abi::HostAge::kP4)
    {
        settings.bounce_buffer_mib = static_cast<abi::kv_cache::BaseAgentConfig const*>(config)->agentBufferSizeMb;
    }
    return settings;
}

} // namespace

MadeAgent makeTransferAgent(char const* caller, void const* config, bool isNixl)
{
    return orThrow(
        [&]
        {
            auto const age = hostAge(caller, config);
            auto agent = bridge::open_agent(settingsOf(age, config, isNixl));
            abi::TransferAgent* const made = new TransferAgent(age, std::move(agent));
            return MadeAgent{static_cast<uint8_t>(age), made};
        });
}

void shutDown(void* agent) noexcept
{
    static_cast<TransferAgent*>(static_cast<abi::TransferAgent*>(agent))->shutDown();
}

int lastStatus(void const* status) noexcept
{
    return static_cast<TransferStatus const*>(static_cast<abi::kv_cache::TransferStatus const*>(status))->lastStatus();
}

} // namespace baton
