// Seam S3 as a host of age P4 (TensorRT-LLM 1.4.0rc1) sees it: what `backend: UCX` of the C++ transceiver opens.
// These are Baton's own declarations, in TensorRT-LLM's spellings, of the layouts that its
// executor/cacheCommunicator.h and executor/dataTransceiverState.h fix; the asserts at the end hold them on 64-bit
// Linux.
//
// A program that plays the host includes this file, opens libtensorrt_llm_ucx_wrapper.so with dlopen and calls
// through the vtables. Older ages differ in two ways, both harmless to whoever provides the newer one: DataContext
// ends after the tag (4 bytes), and Connection and ConnectionManager have fewer virtual functions.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace baton::abi
{
struct ConnectionLayoutCheck;
} // namespace baton::abi

namespace tensorrt_llm::executor::kv_cache
{

// --- data ------------------------------------------------------------------------------------------------------

// What a message is matched by, and the flag by which the host takes its wait back.
struct DataContext
{
public:
    explicit DataContext(int tag, std::atomic<bool> const& transferTerminate = sDefaultTransferTerminate)
        : mTag{tag}
        , mTransferTerminate{transferTerminate}
    {
    }

    [[nodiscard]] int getTag() const noexcept
    {
        return mTag;
    }

    // Not there before P4.
    [[nodiscard]] std::atomic<bool> const& getTransferTerminate() const noexcept
    {
        return mTransferTerminate;
    }

private:
    friend struct ::baton::abi::ConnectionLayoutCheck;

    inline static std::atomic<bool> sDefaultTransferTerminate{false};
    int const mTag;
    std::atomic<bool> const& mTransferTerminate;
};

struct MpiState
{
    std::vector<int32_t> mRanks;
};

// Where one rank's manager can be reached. IPv6 without brackets.
struct SocketState
{
    uint16_t mPort;
    std::string mIp;
};

struct AgentState
{
    std::string mAgentName;
    std::string mConnectionInfo;
};

// How to reach every rank of an instance, by rank, and which of them speaks.
class CommState final
{
public:
    CommState() = default;

    explicit CommState(std::vector<SocketState> socketState, int selfIdx = -1)
        : mState{std::move(socketState)}
        , mSelfIdx{selfIdx}
    {
    }

    [[nodiscard]] bool isSocketState() const noexcept
    {
        return std::holds_alternative<std::vector<SocketState>>(mState);
    }

    [[nodiscard]] std::vector<SocketState> const& getSocketState() const
    {
        return std::get<std::vector<SocketState>>(mState);
    }

    [[nodiscard]] int getSelfIdx() const noexcept
    {
        return mSelfIdx;
    }

private:
    friend struct ::baton::abi::ConnectionLayoutCheck;

    std::variant<std::monostate, MpiState, std::vector<SocketState>, std::vector<AgentState>> mState;
    int mSelfIdx{-1};
};

// --- the abstract classes: the order of the virtual functions is the seam ---------------------------------------

// Messages to and from one peer. A send and a receive with the same tag meet, in order.
class Connection
{
public:
    virtual ~Connection() = default;                                                          // 0, 1
    virtual void send(DataContext const& ctx, void const* data, size_t size) const = 0;       // 2
    virtual void recv(DataContext const& ctx, void* data, size_t size) const = 0;             // 3

    [[nodiscard]] virtual bool isThreadSafe() const noexcept                                  // 4
    {
        return false;
    }

    // Slots 5 and 6 exist since P4; ours are there at every age.
    virtual void activateBuffer(uint8_t) const {}                                             // 5

    [[nodiscard]] virtual std::optional<size_t> getPreAssignedBufferId(uint8_t) const         // 6
    {
        return std::nullopt;
    }
};

class ConnectionManager
{
public:
    virtual ~ConnectionManager() = default;                                                   // 0, 1
    virtual Connection const* recvConnect(DataContext const& ctx, void* data, size_t size) = 0; // 2
    [[nodiscard]] virtual std::vector<Connection const*> getConnections(CommState const& state) = 0; // 3
    [[nodiscard]] virtual CommState const& getCommState() const = 0;                          // 4
    [[nodiscard]] virtual bool isRunning() const = 0;                                         // 5, since P4
};

// The factory, as dlsym finds it: "makeUcxConnectionManager".
using MakeConnectionManager = std::unique_ptr<ConnectionManager> (*)();

} // namespace tensorrt_llm::executor::kv_cache

// --- sizes and offsets, as measured at the hosts ----------------------------------------------------------------

namespace baton::abi
{
struct ConnectionLayoutCheck
{
    using DataContext = tensorrt_llm::executor::kv_cache::DataContext;
    using CommState = tensorrt_llm::executor::kv_cache::CommState;
    using SocketState = tensorrt_llm::executor::kv_cache::SocketState;
    using AgentState = tensorrt_llm::executor::kv_cache::AgentState;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof" // supported by GCC and Clang for these classes
    static_assert(sizeof(DataContext) == 16);
    static_assert(offsetof(DataContext, mTag) == 0);

    static_assert(sizeof(SocketState) == 40);
    static_assert(offsetof(SocketState, mPort) == 0);
    static_assert(offsetof(SocketState, mIp) == 8);
    static_assert(sizeof(AgentState) == 64);

    static_assert(sizeof(CommState) == 40);
    static_assert(offsetof(CommState, mState) == 0);
    static_assert(offsetof(CommState, mSelfIdx) == 32);
#pragma GCC diagnostic pop

    static_assert(sizeof(tensorrt_llm::executor::kv_cache::Connection) == 8);
    static_assert(sizeof(tensorrt_llm::executor::kv_cache::ConnectionManager) == 8);
};
} // namespace baton::abi
