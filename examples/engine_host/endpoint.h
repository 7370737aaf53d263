// This rank's transfer agent: opened by dlopen as TensorRT-LLM opens it, with what the host keeps about peers.
//
// One thread. Whatever the library throws becomes a Failure that names the peer.
#pragma once

#include "messages.h"
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

class Endpoint
{
public:
    // Opens the library and makes the agent. Throws Failure(kLibrary) with the loader's or the library's text.
    Endpoint(Library const& library, std::string name);

    std::string const& name() const
    {
        return mName;
    }

    void registerMemory(std::vector<kv::MemoryDesc> const& regions);
    void deregisterMemory(std::vector<kv::MemoryDesc> const& regions) noexcept;
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
        std::string const& peer, std::vector<kv::MemoryDesc> source, std::vector<kv::MemoryDesc> destination);

    // Sends a sign of life to every loaded peer, a few times a second: throws Failure(kPeerLost) when one is gone.
    void tick();

private:
    std::string mName;
    std::unique_ptr<kv::BaseTransferAgent> mAgent;
    std::set<std::string> mLoaded;
    std::chrono::steady_clock::time_point mLastTick;
};

// Waits for the next turn of a polling loop: yields while there is work, sleeps shortly once there is none.
class Backoff
{
public:
    void worked();
    void idle();

private:
    std::chrono::steady_clock::time_point mLastWork = std::chrono::steady_clock::now();
};

// Nanoseconds on the clock that processes of one machine share.
uint64_t monotonicNs();

} // namespace engine_host
