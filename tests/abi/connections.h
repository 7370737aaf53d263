// A small host of the connection manager: opens the library as TensorRT-LLM does and speaks through it.

#pragma once

#include "host.h"
#include "tensorrt_llm/executor/cacheCommunicator.h"

#include <thread>

namespace host
{

constexpr char const* kUcx = "libtensorrt_llm_ucx_wrapper.so";

using ManagerPtr = std::unique_ptr<ConnectionManager>;

inline ManagerPtr createManager(void* library)
{
    auto const make = reinterpret_cast<ManagerPtr (*)()>(::dlsym(library, "makeUcxConnectionManager"));
    CHECK(make != nullptr);
    Guarded<ManagerPtr> made([&] { return make(); });
    CHECK(*made != nullptr);
    return std::move(*made);
}

inline ManagerPtr createManager()
{
    return createManager(openLibrary(kUcx));
}

// A context that ends where readable memory ends: at an old age right after its tag.
class Context
{
public:
    explicit Context(int tag)
        : mContext([&] { return DataContext(tag); })
    {
    }

#if HOST_AGE >= AGE_P4
    Context(int tag, std::atomic<bool> const& terminate)
        : mContext([&] { return DataContext(tag, terminate); })
    {
    }
#endif

    operator DataContext const&() const
    {
        return *mContext.get();
    }

private:
    AtPageEnd<DataContext> mContext;
};

inline void send(Connection const& to, int tag, std::vector<char> const& bytes)
{
    to.send(Context(tag), bytes.data(), bytes.size());
}

// A receive that has to succeed: an error ends the program here, where no thread waits to be joined.
inline std::vector<char> receive(Connection const& from, int tag, size_t size)
{
    std::vector<char> bytes(size, 0x5A);
    try
    {
        from.recv(Context(tag), bytes.data(), bytes.size());
    }
    catch (std::exception const& error)
    {
        std::fprintf(stderr, "receive: %s\n", error.what());
        std::exit(1);
    }
    return bytes;
}

// Sends on another thread, as the peer's process would; joined at the end of the scope.
class Sending
{
public:
    Sending(Connection const& to, int tag, std::vector<char> bytes)
        : mBytes(std::move(bytes))
        , mThread([this, &to, tag] { send(to, tag, mBytes); })
    {
    }

    ~Sending()
    {
        mThread.join();
    }

private:
    std::vector<char> mBytes;
    std::thread mThread;
};

// Both ends of a connection between two managers of this process.
struct Pair
{
    Connection const* requester;
    Connection const* acceptor;
};

// The one connection of `from` to where `to` says it is.
inline Connection const* connectTo(ConnectionManager& from, ConnectionManager& to)
{
    Guarded<std::vector<Connection const*>> connections([&] { return from.getConnections(to.getCommState()); });
    CHECK(connections->size() == 1 && (*connections)[0] != nullptr);
    return (*connections)[0];
}

// Connects as hosts do: the requester's first message makes the acceptor's end known.
inline Pair connect(ConnectionManager& from, ConnectionManager& to)
{
    constexpr int kIdTag = 19;
    uint64_t const sent = 1;
    uint64_t id = 0;
    auto const* const requester = connectTo(from, to);
    requester->send(Context(kIdTag), &sent, sizeof(sent));
    auto const* const acceptor = to.recvConnect(Context(kIdTag), &id, sizeof(id));
    CHECK(acceptor != nullptr && id == sent);
    return {requester, acceptor};
}

} // namespace host
