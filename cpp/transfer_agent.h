// The transfer agent that the factories hand to the host: every slot passes its arguments to the engine.

#pragma once

#include "abi/provider.h"
#include "baton/src/ffi/bridge.rs.h"

namespace baton
{

// Safe to use from several threads at once, as the engine behind it is.
class TransferAgent final : public abi::TransferAgent
{
public:
    TransferAgent(abi::HostAge age, ::rust::Box<bridge::SeamAgent> agent);
    ~TransferAgent() override;

    // Idempotent; later calls that could move anything throw.
    void shutDown() noexcept;

    void registerMemory(abi::kv_cache::RegisterDescs const& descs) override;
    void deregisterMemory(abi::kv_cache::RegisterDescs const& descs) override;
    void loadRemoteAgent(std::string const& name, abi::kv_cache::AgentDesc const& agentDesc) override;
    void loadRemoteAgent(std::string const& name, std::string const& connectionInfo) override;
    void invalidateRemoteAgent(std::string const& name) override;
    abi::AgentDescSlot getLocalAgentDesc() override;
    std::string getLocalConnectionInfo() override;
    std::unique_ptr<abi::kv_cache::TransferStatus> submitTransferRequests(
        abi::kv_cache::TransferRequest const& request) override;
    void notifySyncMessage(std::string const& name, std::string const& syncMessage) override;
    std::unordered_map<std::string, std::vector<std::string>> getNotifiedSyncMessages() override;
    bool checkRemoteDescs(std::string const& name, abi::kv_cache::MemoryDescs const& memoryDescs) override;

private:
    abi::HostAge const mAge;
    ::rust::Box<bridge::SeamAgent> mAgent;
};

// The descriptors of the host as the engine sees them: the same bytes, not copied.
inline bridge::Memory memoryOf(abi::kv_cache::MemoryDescs const& descs)
{
    auto const& list = descs.getDescs();
    return {static_cast<uint8_t>(descs.getType()), {list.data(), list.size()}};
}

} // namespace baton
