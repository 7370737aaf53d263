#include "connections/channel.h"

#include "failure.h"

#include <utility>

namespace engine_host
{
namespace
{

template <typename Call>
void guarded(std::string const& what, std::string const& peer, Call call)
{
    try
    {
        call();
    }
    catch (std::exception const& error)
    {
        throw Failure(FailureKind::kPeerLost, what + " " + peer + ": " + error.what(), peer);
    }
}

} // namespace

Channel::Channel(kv::Connection const* connection, std::string peer, std::atomic<bool> const& terminate)
    : mConnection(connection)
    , mPeer(std::move(peer))
    , mTerminate(&terminate)
{
}

void Channel::send(int tag, void const* data, size_t lengthBytes) const
{
    guarded("send to", mPeer, [&] { mConnection->send(kv::DataContext(tag, *mTerminate), data, lengthBytes); });
}

void Channel::receive(int tag, void* data, size_t lengthBytes) const
{
    guarded("recv from", mPeer, [&] { mConnection->recv(kv::DataContext(tag, *mTerminate), data, lengthBytes); });
}

} // namespace engine_host
