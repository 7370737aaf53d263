#include "nixl_classes.h"

#include "agent_factory.h"

#include <cstring>

namespace BATON_HOST_KV_CACHE
{

namespace
{

using BATON_ABI::HostAge;

// Where a host of age P4 keeps the pointer that tells whether its bounce transport is on: it never is.
constexpr uintptr_t kBouncePointerOffset = 488;

void clearBouncePointer(HostAge age, void* storage) noexcept
{
    if (age == HostAge::kP4)
    {
        // As an address, for it lies in the host's storage, not in our object.
        auto const address = reinterpret_cast<uintptr_t>(storage) + kBouncePointerOffset;
        std::memset(reinterpret_cast<void*>(address), 0, sizeof(void*));
    }
}

} // namespace

// --- NixlTransferStatus ------------------------------------------------------------------------------------------

NixlTransferStatus::NixlTransferStatus(std::unique_ptr<TransferStatus> transfer) noexcept
    : mTransfer{std::move(transfer)}
{
    static_assert(sizeof(NixlTransferStatus) == kSize);
}

NixlTransferStatus::~NixlTransferStatus() noexcept = default;

bool NixlTransferStatus::isCompleted() const
{
    return mTransfer->isCompleted();
}

TransferState NixlTransferStatus::wait(int64_t timeout_ms) const
{
    return mTransfer->wait(timeout_ms);
}

bool NixlTransferStatus::release()
{
    return mTransfer->release();
}

std::string NixlTransferStatus::getLastStatusStr() const
{
    return mTransfer->getLastStatusStr();
}

int NixlTransferStatus::getLastStatus() const noexcept
{
    return baton::lastStatus(mTransfer.get());
}

// --- NixlTransferAgent -------------------------------------------------------------------------------------------

NixlTransferAgent::NixlTransferAgent(BaseAgentConfig const& config)
{
    auto const made = baton::makeTransferAgent("NixlTransferAgent", &config, true);
    mAgent.reset(static_cast<BATON_ABI::TransferAgent*>(made.agent));
    clearBouncePointer(static_cast<HostAge>(made.age), this);
}

NixlTransferAgent::~NixlTransferAgent() = default;

void NixlTransferAgent::shutdown() noexcept
{
    baton::shutDown(mAgent.get());
}

void NixlTransferAgent::registerMemory(RegisterDescs const& descs)
{
    mAgent->registerMemory(descs);
}

void NixlTransferAgent::deregisterMemory(RegisterDescs const& descs)
{
    mAgent->deregisterMemory(descs);
}

void NixlTransferAgent::loadRemoteAgent(std::string const& name, AgentDesc const& agentDesc)
{
    mAgent->loadRemoteAgent(name, agentDesc);
}

void NixlTransferAgent::loadRemoteAgent(std::string const& name, ConnectionInfoType const& connectionInfo)
{
    mAgent->loadRemoteAgent(name, connectionInfo);
}

void NixlTransferAgent::invalidateRemoteAgent(std::string const& name)
{
    mAgent->invalidateRemoteAgent(name);
}

BATON_ABI::AgentDescSlot NixlTransferAgent::getLocalAgentDesc()
{
    return mAgent->getLocalAgentDesc();
}

ConnectionInfoType NixlTransferAgent::getLocalConnectionInfo()
{
    return mAgent->getLocalConnectionInfo();
}

std::unique_ptr<TransferStatus> NixlTransferAgent::submitTransferRequests(TransferRequest const& request)
{
    return std::make_unique<NixlTransferStatus>(mAgent->submitTransferRequests(request));
}

void NixlTransferAgent::notifySyncMessage(std::string const& name, SyncMessage const& syncMessage)
{
    mAgent->notifySyncMessage(name, syncMessage);
}

std::unordered_map<std::string, std::vector<SyncMessage>> NixlTransferAgent::getNotifiedSyncMessages()
{
    return mAgent->getNotifiedSyncMessages();
}

bool NixlTransferAgent::checkRemoteDescs(std::string const& name, MemoryDescs const& memoryDescs)
{
    return mAgent->checkRemoteDescs(name, memoryDescs);
}

} // namespace BATON_HOST_KV_CACHE
