// The two concrete classes as a host declares them to its own Python binding: with the host's sizes, the host's
// inline functions, and no definitions, which are the wrapper library's. Written apart from cpp/nixl_classes.h: what
// the two agree on is tested.
//
// HOST_FINAL: the agent is final, as in older hosts, so that the compiler calls its functions by name.

#pragma once

#include "tensorrt_llm/executor/transferAgent.h"

#include <atomic>

#ifdef HOST_FINAL
#define HOST_AGENT_FINAL final
#else
#define HOST_AGENT_FINAL
#endif

HOST_NAMESPACE_BEGIN

namespace executor::kv_cache
{

#if HOST_AGE >= AGE_P3
class NixlTransferStatus final : public TransferStatus
{
public:
    ~NixlTransferStatus() noexcept override;

    NixlTransferStatus(NixlTransferStatus const&) = delete;
    NixlTransferStatus& operator=(NixlTransferStatus const&) = delete;

    bool isCompleted() const override;
    TransferState wait(int64_t timeout_ms = -1) const override;
    bool release() override;
    std::string getLastStatusStr() const override;
    int getLastStatus() const noexcept;

private:
    std::byte mRoom[72];
};

static_assert(sizeof(NixlTransferStatus) == 80);
#else
// Without a destructor of its own: dropping one does not reach the library.
class NixlTransferStatus final : public TransferStatus
{
public:
    bool isCompleted() const override;
    TransferState wait(int64_t timeout_ms = -1) const override;

private:
    void* mRawAgent;
    void* mHandle;
};

static_assert(sizeof(NixlTransferStatus) == 24);
#endif

class NixlTransferAgent HOST_AGENT_FINAL : public BaseTransferAgent
{
public:
    explicit NixlTransferAgent(BaseAgentConfig const& config);
    ~NixlTransferAgent();

    NixlTransferAgent(NixlTransferAgent const&) = delete;
    NixlTransferAgent& operator=(NixlTransferAgent const&) = delete;

#if HOST_AGE >= AGE_P3
    void shutdown() noexcept;
#endif
    void registerMemory(MemoryDescs const& descs) override;
    void deregisterMemory(MemoryDescs const& descs) override;
    void loadRemoteAgent(std::string const& name, AgentDesc const& agentDesc) override;
    AgentDesc getLocalAgentDesc() override;
    void invalidateRemoteAgent(std::string const& name) override;
    std::unique_ptr<TransferStatus> submitTransferRequests(TransferRequest const& request) override;
    void notifySyncMessage(std::string const& name, std::string const& syncMessage) override;
    std::unordered_map<std::string, std::vector<std::string>> getNotifiedSyncMessages() override;
    std::string getLocalConnectionInfo() override;
    void loadRemoteAgent(std::string const& name, std::string const& connectionInfo) override;
    bool checkRemoteDescs(std::string const& name, MemoryDescs const& descs) override;

#if HOST_AGE >= AGE_P4
    bool isBounceEnabled() const noexcept
    {
        return mBounce != nullptr;
    }

    uint64_t getBounceSubmitCount() const noexcept
    {
        return mBounceSubmitCount.load(std::memory_order_relaxed);
    }

private:
    std::atomic<uint64_t> mBounceSubmitCount;
    std::byte mRoom[472];
    void* mBounce;
#else
private:
    std::byte mRoom[456];
#endif
};

#if HOST_AGE >= AGE_P4
static_assert(sizeof(NixlTransferAgent) == 496);
#endif

} // namespace executor::kv_cache

HOST_NAMESPACE_END
