// This rank's transfer agent: opened by dlopen as TensorRT-LLM opens it, with what the host keeps about peers.
//
// One thread. Whatever the library throws becomes a Failure that names the peer.
#pragma once

#include "agent/messages.h"
#include "memory.h"
#include "options.h"

#include "transfer_agent.h"

#include <chrono>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace engine_host
{

namespace kv = tensorrt_llm::executor::kv_cache;

struct Received
{
    std::string peer;
    Message message;
};

// How the seam calls it.
kv::MemoryType typeOf(MemoryKind kind);

class Endpoint
{
public:
    // Opens the library, makes the agent and registers a region, which must outlive it. Throws Failure(kLibrary) with
    // the loader's or the library's text.
    Endpoint(Options const& options, std::string const& name, Memory const& region);
    // Deregisters the region first, as hosts do.
    ~Endpoint();
    Endpoint(Endpoint const&) = delete;
    Endpoint& operator=(Endpoint const&) = delete;

    std::string connectionInfo();
    std::string metadata();

    // First contact from the generation side: by "ip:port".
    void loadByConnectionInfo(std::string const& peer, std::string const& connectionInfo);
    // First contact on the context side: forget whoever had that name, then load the descriptor that came along.
    void loadByMetadata(std::string const& peer, std::string const& metadata);
    bool isLoaded(std::string const& peer) const;

    void send(std::string const& peer, Message const& message);
    // What has come in since the last call, without the signs of life. Says so in `heard` if anything has.
    std::vector<Received> receive(bool& heard);
    std::unique_ptr<kv::TransferStatus> write(
        std::string const& peer, kv::TransferDescs source, kv::TransferDescs destination);

    // Sends a sign of life to every loaded peer, a few times a second: throws Failure(kPeerLost) when one is gone.
    void tick();

private:
    kv::RegisterDescs mRegistered;
    std::unique_ptr<kv::BaseTransferAgent> mAgent;
    std::set<std::string> mLoaded;
    std::chrono::steady_clock::time_point mLastTick;
};

} // namespace engine_host
