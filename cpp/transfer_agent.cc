#include "transfer_agent.h"

#include "errors.h"
#include "transfer_status.h"

namespace baton
{

TransferAgent::TransferAgent(abi::HostAge age, ::rust::Box<bridge::SeamAgent> agent)
    : mAge{age}
    , mAgent{std::move(agent)}
{
}

TransferAgent::~TransferAgent()
{
    orLog(
        "~TransferAgent", [this] { return bridge::close_agent(std::move(mAgent)), true; }, false);
}

void TransferAgent::shutDown() noexcept
{
    orLog(
        "shutdown", [this] { return mAgent->shut_down(), true; }, false);
}

void TransferAgent::registerMemory(abi::kv_cache::RegisterDescs const& descs)
{
    orThrow([&] { mAgent->register_memory(memoryOf(descs)); });
}

void TransferAgent::deregisterMemory(abi::kv_cache::RegisterDescs const& descs)
{
    // Hosts call this from destructors.
    orLog(
        "deregisterMemory", [&] { return mAgent->deregister_memory(memoryOf(descs)), true; }, false);
}

void TransferAgent::loadRemoteAgent(std::string const& name, abi::kv_cache::AgentDesc const& agentDesc)
{
    orThrow([&] { mAgent->load_from_blob(bytesOf(name), bytesOf(agentDesc.getBackendAgentDesc())); });
}

void TransferAgent::loadRemoteAgent(std::string const& name, std::string const& connectionInfo)
{
    orThrow([&] { mAgent->load_from_connection_info(bytesOf(name), bytesOf(connectionInfo)); });
}

void TransferAgent::invalidateRemoteAgent(std::string const& name)
{
    orThrow([&] { mAgent->invalidate(bytesOf(name)); });
}

abi::AgentDescSlot TransferAgent::getLocalAgentDesc()
{
    // Everything that can throw happens before the host's slot is touched.
    auto blob = orThrow([&] { return stringOf(mAgent->local_blob()); });
    std::vector<abi::kv_cache::VramRegionMeta> regions;
    if (abi::hasVramRegions(mAge))
    {
        for (auto const& region : orThrow([&] { return mAgent->vram_regions(); }))
        {
            regions.push_back({region.base, region.len, region.chunk_len});
        }
    }
    return abi::AgentDescSlot(mAge, std::move(blob), std::move(regions));
}

std::string TransferAgent::getLocalConnectionInfo()
{
    return orThrow([&] { return std::string(mAgent->connection_info()); });
}

std::unique_ptr<abi::kv_cache::TransferStatus> TransferAgent::submitTransferRequests(
    abi::kv_cache::TransferRequest const& request)
{
    auto const& message = request.getSyncMessage();
    bridge::Request const passed{
        static_cast<uint8_t>(request.getOp()),
        memoryOf(request.getSrcDescs()),
        memoryOf(request.getDstDescs()),
        bytesOf(request.getRemoteName()),
        message.has_value(),
        message ? bytesOf(*message) : ::rust::Slice<uint8_t const>{},
    };
    return orThrow([&] { return std::make_unique<TransferStatus>(mAge, mAgent->submit(passed)); });
}

void TransferAgent::notifySyncMessage(std::string const& name, std::string const& syncMessage)
{
    orThrow([&] { mAgent->notify(bytesOf(name), bytesOf(syncMessage)); });
}

std::unordered_map<std::string, std::vector<std::string>> TransferAgent::getNotifiedSyncMessages()
{
    auto const taken = orThrow([&] { return mAgent->take_notifications(); });
    std::unordered_map<std::string, std::vector<std::string>> messages;
    for (auto const& peer : taken)
    {
        auto& ofPeer = messages[std::string(peer.peer)];
        ofPeer.reserve(ofPeer.size() + peer.messages.size());
        for (auto const& message : peer.messages)
        {
            ofPeer.push_back(stringOf(message.bytes));
        }
    }
    return messages;
}

bool TransferAgent::checkRemoteDescs(std::string const& name, abi::kv_cache::MemoryDescs const& memoryDescs)
{
    return orThrow([&] { return mAgent->check_remote(bytesOf(name), memoryOf(memoryDescs)); });
}

} // namespace baton
