#include "connections/manager.h"

#include "connections/protocol.h"
#include "console.h"
#include "failure.h"

#include <dlfcn.h>

#include <cstdlib>

namespace engine_host
{
namespace
{

std::string infoOf(kv::SocketState const& rank)
{
    bool const bracketed = rank.mIp.find(':') != std::string::npos;
    return (bracketed ? "[" + rank.mIp + "]" : rank.mIp) + ":" + std::to_string(rank.mPort);
}

kv::SocketState socketOf(std::string const& connectionInfo)
{
    auto const colon = connectionInfo.rfind(':');
    std::string ip = connectionInfo.substr(0, colon);
    uint64_t const port
        = colon == std::string::npos ? 0 : parseNumber(connectionInfo.substr(colon + 1), "the port of CONNECTION_INFO");
    if (ip.empty() || port == 0 || port > UINT16_MAX)
    {
        throw Failure(FailureKind::kUsage, "CONNECTION_INFO is ip:port, not \"" + connectionInfo + "\"");
    }
    if (ip.front() == '[' && ip.back() == ']')
    {
        ip = ip.substr(1, ip.size() - 2);
    }
    return {static_cast<uint16_t>(port), ip};
}

// Every rank of the phase has to be in the list that would go to the other phase with each request.
void requireAllRanks(kv::CommState const& state, Options const& options)
{
    size_t const ranks = options.ranks();
    size_t const listed = state.isSocketState() ? state.getSocketState().size() : 0;
    if (listed != ranks || state.getSelfIdx() != static_cast<int>(options.rank))
    {
        throw Failure(FailureKind::kLibrary,
            "getCommState lists " + std::to_string(listed) + " ranks and calls this one "
                + std::to_string(state.getSelfIdx()) + "; it is rank " + std::to_string(options.rank) + " of "
                + std::to_string(ranks) + ": set BATON_RENDEZVOUS, BATON_RANK and BATON_WORLD_SIZE for each rank");
    }
}

} // namespace

ConnectionManager::ConnectionManager(Options const& options)
{
    // As for the transfer agent: this program is of age P4, whatever the environment says for other hosts.
    setenv("BATON_TRTLLM_ABI", "p4", 1);
    Library const& library = options.library;
    mLibrary = dlopen(library.file, RTLD_LAZY);
    if (mLibrary == nullptr)
    {
        throw Failure(FailureKind::kLibrary, std::string(library.file) + " can not be loaded correctly: " + dlerror());
    }
    auto* const make = reinterpret_cast<kv::MakeConnectionManager>(dlsym(mLibrary, library.factory));
    if (make == nullptr)
    {
        throw Failure(FailureKind::kLibrary, std::string(library.factory) + " function is not open correctly.");
    }
    try
    {
        mManager = make();
    }
    catch (std::exception const& error)
    {
        throw Failure(FailureKind::kLibrary, std::string(library.factory) + ": " + error.what());
    }
    requireAllRanks(mManager->getCommState(), options);
}

ConnectionManager::~ConnectionManager()
{
    dlclose(mLibrary);
    mManager.reset();
}

std::string ConnectionManager::connectionInfo() const
{
    kv::CommState const& state = mManager->getCommState();
    return infoOf(state.getSocketState().at(static_cast<size_t>(state.getSelfIdx())));
}

std::vector<kv::Connection const*> ConnectionManager::connect(std::vector<std::string> const& connectionInfos)
{
    std::vector<kv::SocketState> ranks;
    for (std::string const& info : connectionInfos)
    {
        ranks.push_back(socketOf(info));
    }
    try
    {
        return mManager->getConnections(kv::CommState(std::move(ranks)));
    }
    catch (std::exception const& error)
    {
        throw Failure(FailureKind::kPeerLost, std::string("getConnections: ") + error.what());
    }
}

kv::Connection const* ConnectionManager::accept(uint64_t& id, std::atomic<bool> const& terminate)
{
    try
    {
        return mManager->recvConnect(kv::DataContext(kIdTag, terminate), &id, sizeof(id));
    }
    catch (std::exception const& error)
    {
        throw Failure(FailureKind::kPeerLost, std::string("recvConnect: ") + error.what());
    }
}

} // namespace engine_host
