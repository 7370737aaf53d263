#include "agent/endpoint.h"

#include "failure.h"

#include <dlfcn.h>

#include <cstdlib>

namespace engine_host
{
namespace
{

using Clock = std::chrono::steady_clock;

constexpr auto kTickInterval = std::chrono::milliseconds(200);

// Runs a call into the library; its exception becomes a failure of this kind, about this peer.
template <typename Call>
auto guarded(FailureKind kind, std::string const& what, std::string const& peer, Call call) -> decltype(call())
{
    try
    {
        return call();
    }
    catch (std::exception const& error)
    {
        throw Failure(kind, what + ": " + error.what(), peer);
    }
}

std::unique_ptr<kv::BaseTransferAgent> makeAgent(Library const& library, std::string const& name)
{
    // This program is built against age P4 of the seam, whatever the environment says for other hosts: served as an
    // older one it would destroy a string that nobody made. A host that is TensorRT-LLM is recognised without this.
    setenv("BATON_TRTLLM_ABI", "p4", 1);
    void* const handle = dlopen(library.file, RTLD_LAZY); // kept to the end of the process, as TensorRT-LLM does
    if (handle == nullptr)
    {
        throw Failure(FailureKind::kLibrary, std::string(library.file) + " can not be loaded correctly: " + dlerror());
    }
    void* const factory = dlsym(handle, library.factory);
    if (factory == nullptr)
    {
        throw Failure(FailureKind::kLibrary, std::string(library.factory) + " function is not open correctly.");
    }
    kv::BaseAgentConfig const config{name, true, false, true, false, {}, {}, {}, 0, {}};
    auto agent = guarded(FailureKind::kLibrary, library.factory, {},
        [&] { return reinterpret_cast<kv::CreateTransferAgent>(factory)(&config); });
    if (agent == nullptr)
    {
        throw Failure(FailureKind::kLibrary, std::string(library.factory) + " returned no agent");
    }
    return agent;
}

} // namespace

kv::MemoryType typeOf(MemoryKind kind)
{
    return kind == MemoryKind::kVram ? kv::MemoryType::kVRAM : kv::MemoryType::kDRAM;
}

Endpoint::Endpoint(Options const& options, std::string const& name, Memory const& region)
    : mRegistered(typeOf(options.memory.kind),
          {kv::MemoryDesc(region.address(), region.size(), options.memory.device)})
    , mAgent(makeAgent(options.library, name))
    , mLastTick(Clock::now())
{
    guarded(FailureKind::kLibrary, "registerMemory", {}, [&] { mAgent->registerMemory(mRegistered); });
}

Endpoint::~Endpoint()
{
    mAgent->deregisterMemory(mRegistered); // never throws, says the seam
}

std::string Endpoint::connectionInfo()
{
    return guarded(
        FailureKind::kLibrary, "getLocalConnectionInfo", {}, [&] { return mAgent->getLocalConnectionInfo(); });
}

std::string Endpoint::metadata()
{
    return guarded(FailureKind::kLibrary, "getLocalAgentDesc", {},
        [&] { return mAgent->getLocalAgentDesc().getBackendAgentDesc(); });
}

void Endpoint::loadByConnectionInfo(std::string const& peer, std::string const& connectionInfo)
{
    guarded(FailureKind::kPeerLost, "loadRemoteAgent " + peer + " at " + connectionInfo, peer,
        [&] { mAgent->loadRemoteAgent(peer, kv::ConnectionInfoType(connectionInfo)); });
    mLoaded.insert(peer);
}

void Endpoint::loadByMetadata(std::string const& peer, std::string const& metadata)
{
    guarded(FailureKind::kPeerLost, "loadRemoteAgent " + peer, peer,
        [&]
        {
            mAgent->invalidateRemoteAgent(peer);
            mAgent->loadRemoteAgent(peer, kv::AgentDesc(metadata));
        });
    mLoaded.insert(peer);
}

bool Endpoint::isLoaded(std::string const& peer) const
{
    return mLoaded.count(peer) != 0;
}

void Endpoint::send(std::string const& peer, Message const& message)
{
    guarded(FailureKind::kPeerLost, "notifySyncMessage to " + peer, peer,
        [&] { mAgent->notifySyncMessage(peer, encode(message)); });
}

std::vector<Received> Endpoint::receive(bool& heard)
{
    auto notified = guarded(
        FailureKind::kLibrary, "getNotifiedSyncMessages", {}, [&] { return mAgent->getNotifiedSyncMessages(); });
    std::vector<Received> messages;
    for (auto const& [peer, texts] : notified)
    {
        heard = heard || !texts.empty();
        for (auto const& text : texts)
        {
            Message message = decode(text);
            if (!std::holds_alternative<Alive>(message))
            {
                messages.push_back({peer, std::move(message)});
            }
        }
    }
    return messages;
}

std::unique_ptr<kv::TransferStatus> Endpoint::write(
    std::string const& peer, kv::TransferDescs source, kv::TransferDescs destination)
{
    kv::TransferRequest const request(kv::TransferOp::kWRITE, std::move(source), std::move(destination), peer);
    auto status = guarded(FailureKind::kTransferFailed, "submitTransferRequests to " + peer, peer,
        [&] { return mAgent->submitTransferRequests(request); });
    if (status == nullptr)
    {
        throw Failure(FailureKind::kTransferFailed, "submitTransferRequests to " + peer + " returned no status", peer);
    }
    return status;
}

void Endpoint::tick()
{
    auto const now = Clock::now();
    if (now - mLastTick < kTickInterval)
    {
        return;
    }
    mLastTick = now;
    for (auto const& peer : mLoaded)
    {
        send(peer, Alive{});
    }
}

} // namespace engine_host
