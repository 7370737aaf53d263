#include "connection_manager.h"

#include "errors.h"

#include <tuple>

namespace baton
{
namespace
{

namespace kv = abi::kv_cache;

kv::CommState commStateOf(bridge::SeamConnections const& connections)
{
    std::vector<kv::SocketState> ranks;
    for (auto const& rank : connections.ranks())
    {
        ranks.push_back({rank.port, std::string(rank.ip)});
    }
    return kv::CommState(std::move(ranks), connections.rank());
}

} // namespace

Connection::Connection(ConnectionManager const& manager, uint32_t id)
    : mManager{manager}
    , mId{id}
{
}

void Connection::send(kv::DataContext const& ctx, void const* data, size_t size) const
{
    auto const cancelled = mManager.cancelFlagOf(ctx);
    orThrow([&] { mManager.mConnections->send(mId, ctx.getTag(), reinterpret_cast<uintptr_t>(data), size, cancelled); });
}

void Connection::recv(kv::DataContext const& ctx, void* data, size_t size) const
{
    auto const cancelled = mManager.cancelFlagOf(ctx);
    orThrow(
        [&] { mManager.mConnections->receive(mId, ctx.getTag(), reinterpret_cast<uintptr_t>(data), size, cancelled); });
}

bool Connection::isThreadSafe() const noexcept
{
    return true;
}

ConnectionManager::ConnectionManager(abi::HostAge age, ::rust::Box<bridge::SeamConnections> connections)
    : mAge{age}
    , mConnections{std::move(connections)}
    , mCommState{commStateOf(*mConnections)}
{
}

ConnectionManager::~ConnectionManager()
{
    orLog(
        "~ConnectionManager", [this] { return bridge::close_connections(std::move(mConnections)), true; }, false);
}

kv::Connection const* ConnectionManager::recvConnect(kv::DataContext const& ctx, void* data, size_t size)
{
    auto const cancelled = cancelFlagOf(ctx);
    auto const accepted = orThrow(
        [&] { return mConnections->accept(ctx.getTag(), reinterpret_cast<uintptr_t>(data), size, cancelled); });
    return accepted.is_some ? connectionOf(accepted.id) : nullptr;
}

std::vector<kv::Connection const*> ConnectionManager::getConnections(kv::CommState const& state)
{
    if (!state.isSocketState())
    {
        throw std::runtime_error(
            "[baton] getConnections: the peer's state holds no sockets: it was not made by a UCX connection manager; "
            "set backend: UCX on both sides");
    }
    std::vector<kv::Connection const*> connections;
    for (auto const& rank : state.getSocketState())
    {
        auto const id = orThrow([&] { return mConnections->connect(bytesOf(rank.mIp), rank.mPort); });
        connections.push_back(connectionOf(id));
    }
    return connections;
}

kv::CommState const& ConnectionManager::getCommState() const
{
    return mCommState;
}

bool ConnectionManager::isRunning() const
{
    return orLog(
        "isRunning", [this] { return mConnections->is_open(); }, false);
}

// Older contexts end after their tag: what lies behind is not read.
CancelFlag ConnectionManager::cancelFlagOf(kv::DataContext const& ctx) const
{
    return CancelFlag(abi::hasTerminateFlag(mAge) ? &ctx.getTransferTerminate() : nullptr);
}

kv::Connection const* ConnectionManager::connectionOf(uint32_t id)
{
    std::lock_guard<std::mutex> const lock(mMutex);
    return &mByEngineId.try_emplace(id, *this, id).first->second;
}

} // namespace baton
