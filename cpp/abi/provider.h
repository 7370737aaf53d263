// Seams S1 and S2 as the library provides them, to hosts of every age from P0 on: what differs between the ages, and how
// one set of vtables serves them all. What does not differ comes from transfer_agent.h.
//
// * Slot 7 returns AgentDesc by value, into a slot of the host's that has 32, 56 or 88 bytes by age: AgentDescSlot.
// * From P3 that AgentDesc has regions of GPU memory. Ours says which are registered and where their chunks meet, as
//   TensorRT-LLM's own agents read it: a sender cuts its descriptors there.
// * The config grew at its end: read only what the age has.
// * TransferStatus got slots 4 and 5; an older host never calls them.
// * wait() got an argument; an older host leaves its register unset: the age says whether to look.

#pragma once

#include "transfer_agent.h"

#include <new>

namespace BATON_ABI
{

namespace kv_cache = BATON_HOST_KV_CACHE;

// Values are those of HostAge in src/host/age.rs.
enum class HostAge : uint8_t
{
    kP0,
    kP1,
    kP2,
    kP3,
    kP4
};

// Whether AgentDesc has regions of GPU memory.
constexpr bool hasVramRegions(HostAge age)
{
    return age >= HostAge::kP3;
}

// Whether wait() has its argument. P1 has it too, but shares the floor of P0 and P0b, which have not.
constexpr bool hasTimedWait(HostAge age)
{
    return age >= HostAge::kP2;
}

// Whether DataContext (connection_manager.h) goes on after its tag.
constexpr bool hasTerminateFlag(HostAge age)
{
    return age >= HostAge::kP4;
}

// The return slot of getLocalAgentDesc, filled as far as the host's AgentDesc reaches.
//
// It has a destructor and so is returned in memory (by the hidden pointer in rdi on x86-64, in x8 on aarch64), as
// every age's AgentDesc is. The constructor runs on the host's slot itself, because a returned prvalue is never
// copied, and writes what the age has and not a byte more: that is why the room is raw and left as it is.
class AgentDescSlot
{
public:
    AgentDescSlot(
        HostAge age, std::string&& backendAgentDesc, std::vector<kv_cache::VramRegionMeta>&& vramRegions) noexcept
    {
        new (mRoom) std::string(std::move(backendAgentDesc));
        if (hasVramRegions(age))
        {
            new (mRoom + kVramRegionsOffset) std::vector<kv_cache::VramRegionMeta>(std::move(vramRegions));
        }
        if (age >= HostAge::kP4)
        {
            new (mRoom + kBounceHandshakeOffset) std::string();
        }
    }

    AgentDescSlot(AgentDescSlot const&) = delete;
    AgentDescSlot& operator=(AgentDescSlot const&) = delete;

    // The host destroys the parts, as its AgentDesc.
    ~AgentDescSlot() {}

private:
    static constexpr size_t kVramRegionsOffset = 32;
    static constexpr size_t kBounceHandshakeOffset = 56;

    alignas(8) std::byte mRoom[sizeof(kv_cache::AgentDesc)];
};

// BaseTransferAgent with slot 7 by age. An AgentDesc argument begins with its string at every age, and nothing
// else of it is read: the regions of a peer are in that string too, and what is registered later follows on the control
// stream, while a descriptor stays what it was. TensorRT-LLM's C++ runtime hands the string alone from peer to peer,
// so that regions which are missing contradict nothing.
class TransferAgent
{
public:
    virtual ~TransferAgent() = default;                                                                        // 0, 1
    virtual void registerMemory(kv_cache::RegisterDescs const& descs) = 0;                                     // 2
    virtual void deregisterMemory(kv_cache::RegisterDescs const& descs) = 0;                                   // 3
    virtual void loadRemoteAgent(std::string const& name, kv_cache::AgentDesc const& agentDesc) = 0;           // 4
    virtual void loadRemoteAgent(std::string const& name, std::string const& connectionInfo) = 0;              // 5
    virtual void invalidateRemoteAgent(std::string const& name) = 0;                                           // 6
    virtual AgentDescSlot getLocalAgentDesc() = 0;                                                             // 7
    virtual std::string getLocalConnectionInfo() = 0;                                                          // 8
    virtual std::unique_ptr<kv_cache::TransferStatus> submitTransferRequests(kv_cache::TransferRequest const&) // 9
        = 0;
    virtual void notifySyncMessage(std::string const& name, std::string const& syncMessage) = 0;               // 10
    virtual std::unordered_map<std::string, std::vector<std::string>> getNotifiedSyncMessages() = 0;           // 11
    virtual bool checkRemoteDescs(std::string const& name, kv_cache::MemoryDescs const& memoryDescs) = 0;      // 12
};

// The config as far as P0, P0b and P1 agree. What follows at +34 differs between them and is not read.
struct ConfigFloor
{
    std::string mName;
    bool useProgThread;
    bool multiThread;
};

// The config of P2; at P3 too this much is certain.
struct ConfigP2
{
    std::string mName;
    bool useProgThread;
    bool multiThread;
    bool useListenThread;
    bool enableTelemetry;
    std::unordered_map<std::string, std::string> backendParams;
};

static_assert(sizeof(ConfigFloor) == 40);
static_assert(sizeof(ConfigP2) == 96);
static_assert(sizeof(AgentDescSlot) == 88 && alignof(AgentDescSlot) == alignof(kv_cache::AgentDesc));
static_assert(!std::is_trivially_destructible_v<AgentDescSlot>, "or it would be returned otherwise");
static_assert(sizeof(TransferAgent) == sizeof(kv_cache::BaseTransferAgent));

} // namespace BATON_ABI
