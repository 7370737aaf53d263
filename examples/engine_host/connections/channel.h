// Messages to and from one peer.
#pragma once

#include "connection_manager.h"

#include <atomic>
#include <cstddef>
#include <string>

namespace engine_host
{

namespace kv = tensorrt_llm::executor::kv_cache;

// A connection, by the name of whoever is at its other end. What the library throws becomes a Failure(kPeerLost) that
// names it; `terminate` ends every call, with one that nobody reads.
class Channel
{
public:
    Channel(kv::Connection const* connection, std::string peer, std::atomic<bool> const& terminate);

    std::string const& peer() const
    {
        return mPeer;
    }

    kv::Connection const* connection() const
    {
        return mConnection;
    }

    void send(int tag, void const* data, size_t lengthBytes) const;
    void receive(int tag, void* data, size_t lengthBytes) const;

    template <typename Message>
    void say(int tag, Message const& message) const
    {
        send(tag, &message, sizeof(message));
    }

    template <typename Message>
    Message hear(int tag) const
    {
        Message message{};
        receive(tag, &message, sizeof(message));
        return message;
    }

private:
    kv::Connection const* mConnection;
    std::string mPeer;
    std::atomic<bool> const* mTerminate;
};

} // namespace engine_host
