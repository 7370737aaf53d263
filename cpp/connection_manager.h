// The connection manager that the factory hands to the host: every slot passes its arguments to the engine.

#pragma once

#include "abi/connection_manager.h"
#include "abi/provider.h"
#include "baton/src/ffi/bridge.rs.h"

#include <map>
#include <mutex>

namespace baton
{

class ConnectionManager;

// One end of a connection. Lives as long as its manager: hosts keep pointers to it.
class Connection final : public abi::kv_cache::Connection
{
public:
    Connection(ConnectionManager const& manager, uint32_t id);

    void send(abi::kv_cache::DataContext const& ctx, void const* data, size_t size) const override;
    void recv(abi::kv_cache::DataContext const& ctx, void* data, size_t size) const override;
    [[nodiscard]] bool isThreadSafe() const noexcept override;

private:
    ConnectionManager const& mManager;
    uint32_t const mId;
};

// Safe to use from several threads at once, as the engine behind it is.
class ConnectionManager final : public abi::kv_cache::ConnectionManager
{
public:
    ConnectionManager(abi::HostAge age, ::rust::Box<bridge::SeamConnections> connections);
    ~ConnectionManager() override;

    // Null when the context's flag has ended the wait.
    abi::kv_cache::Connection const* recvConnect(
        abi::kv_cache::DataContext const& ctx, void* data, size_t size) override;
    [[nodiscard]] std::vector<abi::kv_cache::Connection const*> getConnections(
        abi::kv_cache::CommState const& state) override;
    [[nodiscard]] abi::kv_cache::CommState const& getCommState() const override;
    [[nodiscard]] bool isRunning() const override;

private:
    friend class Connection;

    CancelFlag cancelFlagOf(abi::kv_cache::DataContext const& ctx) const;
    abi::kv_cache::Connection const* connectionOf(uint32_t id);

    abi::HostAge const mAge;
    ::rust::Box<bridge::SeamConnections> mConnections;
    abi::kv_cache::CommState const mCommState;
    std::mutex mMutex;
    std::map<uint32_t, Connection> mByEngineId;
};

} // namespace baton
