// This rank's connection manager: opened, asked and closed as TensorRT-LLM's CacheTransceiver does it.
//
// Safe to use from several threads at once.
#pragma once

#include "options.h"

#include "connection_manager.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace engine_host
{

namespace kv = tensorrt_llm::executor::kv_cache;

class ConnectionManager
{
public:
    // Opens the library and makes the manager, which meets the other ranks of this phase. Throws Failure(kLibrary)
    // with the loader's or the library's text, or where it does not list every rank.
    explicit ConnectionManager(Options const& options);
    // Closes the library first and lets the manager go after that.
    ~ConnectionManager();
    ConnectionManager(ConnectionManager const&) = delete;
    ConnectionManager& operator=(ConnectionManager const&) = delete;

    // Where this rank can be reached: "ip:port".
    std::string connectionInfo() const;
    // A connection to each of these. Throws Failure(kPeerLost).
    std::vector<kv::Connection const*> connect(std::vector<std::string> const& connectionInfos);
    // The next message that starts with kIdTag, on whichever connection; null once `terminate` is set.
    kv::Connection const* accept(uint64_t& id, std::atomic<bool> const& terminate);

private:
    void* mLibrary = nullptr;
    std::unique_ptr<kv::ConnectionManager> mManager;
};

} // namespace engine_host
