// A stand-in for the headers of TensorRT-LLM that declare the connection manager's seam (this one and
// dataTransceiverState.h), at the age that HOST_AGE names. Written apart from cpp/abi, as its neighbour is.

#pragma once

#include "tensorrt_llm/executor/transferAgent.h"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace tensorrt_llm::executor::kv_cache
{

#if HOST_AGE >= AGE_P4
struct DataContext
{
public:
    explicit DataContext(int tag, std::atomic<bool> const& transferTerminate = sDefaultTransferTerminate)
        : mTag{tag}
        , mTransferTerminate(transferTerminate)
    {
    }

private:
    inline static std::atomic<bool> sDefaultTransferTerminate{false};
    int const mTag;
    std::atomic<bool> const& mTransferTerminate;
};

static_assert(sizeof(DataContext) == 16);
#else
struct DataContext
{
public:
    explicit DataContext(int tag)
        : mTag{tag}
    {
    }

private:
    int const mTag;
};

static_assert(sizeof(DataContext) == 4);
#endif

struct MpiState
{
    std::vector<int> mRanks;
};

struct SocketState
{
    std::uint16_t mPort;
    std::string mIp;
};

struct AgentState
{
    std::string mAgentName;
    std::string mConnectionInfo;
};

class CommState final
{
public:
    CommState() = default;

    explicit CommState(std::vector<int> ranks, int selfIdx = -1)
        : mState{MpiState{std::move(ranks)}}
        , mSelfIdx{selfIdx}
    {
    }

    explicit CommState(std::vector<SocketState> sockets, int selfIdx = -1)
        : mState{std::move(sockets)}
        , mSelfIdx{selfIdx}
    {
    }

    explicit CommState(std::vector<AgentState> agents, int selfIdx = -1)
        : mState{std::move(agents)}
        , mSelfIdx{selfIdx}
    {
    }

    [[nodiscard]] bool isSocketState() const
    {
        return std::holds_alternative<std::vector<SocketState>>(mState);
    }

    [[nodiscard]] std::vector<SocketState> const& getSocketState() const
    {
        return std::get<std::vector<SocketState>>(mState);
    }

    [[nodiscard]] int getSelfIdx() const
    {
        return mSelfIdx;
    }

private:
    std::variant<std::monostate, MpiState, std::vector<SocketState>, std::vector<AgentState>> mState;
    int mSelfIdx{-1};
};

struct Connection
{
public:
    virtual ~Connection() = default;
    virtual void send(DataContext const& ctx, void const* data, size_t size) const = 0;
    virtual void recv(DataContext const& ctx, void* data, size_t size) const = 0;

    [[nodiscard]] virtual bool isThreadSafe() const noexcept
    {
        return false;
    }

#if HOST_AGE >= AGE_P4
    virtual void activateBuffer(uint8_t) const {}

    [[nodiscard]] virtual std::optional<size_t> getPreAssignedBufferId(uint8_t) const
    {
        return std::nullopt;
    }
#endif
};

class ConnectionManager
{
public:
    virtual ~ConnectionManager() = default;
    virtual Connection const* recvConnect(DataContext const& ctx, void* data, size_t size) = 0;
    [[nodiscard]] virtual std::vector<Connection const*> getConnections(CommState const& state) = 0;
    [[nodiscard]] virtual CommState const& getCommState() const = 0;
#if HOST_AGE >= AGE_P4
    [[nodiscard]] virtual bool isRunning() const = 0;
#endif
};

} // namespace tensorrt_llm::executor::kv_cache
