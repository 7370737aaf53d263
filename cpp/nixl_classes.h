// Seam S2: the two classes that TensorRT-LLM's Python binding is linked against and constructs by itself.
//
// * The storage of NixlTransferAgent is the host's, sized by the host's own declaration of it (496 bytes at P4), and
//   inline functions of the host read two places there: a counter at +8, which is ours, and a pointer at +488 (P4),
//   which lies beyond our object. The constructor makes both read as zero and touches nothing else beyond its own
//   extent.
// * NixlTransferStatus is made here, and no smaller than the host's declaration, so that an inline function of the
//   host would read zeroes.
// * A host that declares a class `final` calls every function by its name, one that does not calls most through the
//   vtable: all are exported (cmake/exports.txt).
//
// Compiled once for each spelling of the host's namespace. Thread rule: as baton::TransferAgent.

#pragma once

#include "abi/provider.h"

namespace BATON_HOST_KV_CACHE
{

class __attribute__((visibility("default"))) NixlTransferStatus final : public TransferStatus
{
public:
    explicit NixlTransferStatus(std::unique_ptr<TransferStatus> transfer) noexcept;
    ~NixlTransferStatus() noexcept override;

    [[nodiscard]] bool isCompleted() const override;
    [[nodiscard]] TransferState wait(int64_t timeout_ms) const override;
    [[nodiscard]] bool release() override;
    [[nodiscard]] std::string getLastStatusStr() const override;

    // 0 success, 1 in progress, negative: failed.
    [[nodiscard]] int getLastStatus() const noexcept;

private:
    // The host's has 24 bytes before late P3 and 80 at P4.
    static constexpr size_t kSize = 128;

    std::unique_ptr<TransferStatus> mTransfer;
    std::byte mZeroes[kSize - sizeof(void*) - sizeof(mTransfer)]{};
};

class __attribute__((visibility("default"))) NixlTransferAgent : public BATON_ABI::TransferAgent
{
public:
    explicit NixlTransferAgent(BaseAgentConfig const& config);
    ~NixlTransferAgent() override;

    NixlTransferAgent(NixlTransferAgent const&) = delete;
    NixlTransferAgent& operator=(NixlTransferAgent const&) = delete;

    // Without a size: an object that the host has made with `new` has the host's, not ours.
    static void operator delete(void* storage) noexcept
    {
        ::operator delete(storage);
    }

    // Idempotent. Afterwards every call that could move anything throws; invalidateRemoteAgent does nothing.
    void shutdown() noexcept;

    void registerMemory(RegisterDescs const& descs) override;
    void deregisterMemory(RegisterDescs const& descs) override;
    void loadRemoteAgent(std::string const& name, AgentDesc const& agentDesc) override;
    void loadRemoteAgent(std::string const& name, ConnectionInfoType const& connectionInfo) override;
    void invalidateRemoteAgent(std::string const& name) override;
    BATON_ABI::AgentDescSlot getLocalAgentDesc() override;
    ConnectionInfoType getLocalConnectionInfo() override;
    [[nodiscard]] std::unique_ptr<TransferStatus> submitTransferRequests(TransferRequest const& request) override;
    void notifySyncMessage(std::string const& name, SyncMessage const& syncMessage) override;
    [[nodiscard]] std::unordered_map<std::string, std::vector<SyncMessage>> getNotifiedSyncMessages() override;
    bool checkRemoteDescs(std::string const& name, MemoryDescs const& memoryDescs) override;

private:
    uint64_t mBounceSubmitCount{0}; // read by inline functions of the host
    std::unique_ptr<BATON_ABI::TransferAgent> mAgent;
};

} // namespace BATON_HOST_KV_CACHE
