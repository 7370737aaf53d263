// Seam S1 as a host of age P4 (TensorRT-LLM 1.4.0rc1) sees it: the data that crosses, the three abstract
// classes, the factories. These are Baton's own declarations, in TensorRT-LLM's spellings, of the layouts that
// its executor/transferAgent.h fixes; the asserts at the end hold every size and offset on 64-bit Linux.
//
// A program that plays the host includes this file, opens a wrapper library with dlopen and calls through the
// vtables; it links nothing of Baton's. The library itself includes provider.h, which adds the older ages.
//
// Not here: serialisation and VMM helpers, which the host implements for itself.

#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <sys/types.h>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

// Where the host keeps these classes. Some hosts put an inline namespace `_v1` between; it shows in mangled names
// alone. What exports C++ symbols is compiled once for each spelling, with both of these given (cmake/wrapper.cmake):
// the second keeps apart what is ours and names the host's types.
#ifndef BATON_HOST_KV_CACHE
#define BATON_HOST_KV_CACHE tensorrt_llm::executor::kv_cache
#define BATON_ABI baton::abi
#endif

namespace BATON_ABI
{
// Reads the private members below, for the asserts alone.
struct LayoutCheck;
} // namespace BATON_ABI

namespace BATON_HOST_KV_CACHE
{

// --- data ------------------------------------------------------------------------------------------------------

enum class MemoryType : uint8_t
{
    kDRAM,
    kVRAM,
    kBLK,
    kOBJ,
    kFILE
};

enum class TransferOp : uint8_t
{
    kREAD,
    kWRITE
};

enum class TransferState : uint8_t
{
    kIN_PROGRESS,
    kSUCCESS,
    kFAILURE
};

// A piece of memory.
class MemoryDesc
{
public:
    MemoryDesc(std::vector<char> const& bytes, uint32_t deviceId = 0)
        : MemoryDesc(reinterpret_cast<uintptr_t>(bytes.data()), bytes.size(), deviceId)
    {
    }

    MemoryDesc(void* addr, size_t len, uint32_t deviceId)
        : MemoryDesc(reinterpret_cast<uintptr_t>(addr), len, deviceId)
    {
    }

    MemoryDesc(uintptr_t addr, size_t len, uint32_t deviceId)
        : mAddr{addr}
        , mLen{len}
        , mDeviceId{deviceId}
    {
    }

    [[nodiscard]] uintptr_t getAddr() const noexcept
    {
        return mAddr;
    }

    [[nodiscard]] size_t getLen() const noexcept
    {
        return mLen;
    }

    [[nodiscard]] uint32_t getDeviceId() const noexcept
    {
        return mDeviceId;
    }

private:
    friend struct ::BATON_ABI::LayoutCheck;

    uintptr_t mAddr;
    size_t mLen;
    uint32_t mDeviceId;
};

// Pieces of memory of one kind.
class MemoryDescs
{
public:
    MemoryDescs(MemoryType type, std::vector<MemoryDesc> descs)
        : mType{type}
        , mDescs{std::move(descs)}
    {
    }

    [[nodiscard]] MemoryType getType() const noexcept
    {
        return mType;
    }

    [[nodiscard]] std::vector<MemoryDesc> const& getDescs() const noexcept
    {
        return mDescs;
    }

private:
    friend struct ::BATON_ABI::LayoutCheck;

    MemoryType mType;
    std::vector<MemoryDesc> mDescs;
};

using TransferDescs = MemoryDescs;
using RegisterDescs = MemoryDescs;
using SyncMessage = std::string;
using ConnectionInfoType = std::string;

// An open file and how many bytes of it take part. Owns the descriptor: its destructor, on the host's side,
// closes it.
class FileDesc
{
public:
    FileDesc(std::string const& filename, int flags, mode_t mode, size_t len)
        : fd{::open(filename.c_str(), flags, mode)}
        , mLen{len}
    {
        if (fd < 0)
        {
            throw std::runtime_error("Failed to open '" + filename + "': " + std::strerror(errno));
        }
    }

    FileDesc(FileDesc&& other) noexcept
        : fd{std::exchange(other.fd, -1)}
        , mLen{std::exchange(other.mLen, 0)}
    {
    }

    FileDesc& operator=(FileDesc&& other) noexcept
    {
        std::swap(fd, other.fd);
        std::swap(mLen, other.mLen);
        return *this;
    }

    FileDesc(FileDesc const&) = delete;
    FileDesc& operator=(FileDesc const&) = delete;

    ~FileDesc()
    {
        if (fd != -1)
        {
            ::close(fd);
        }
    }

    [[nodiscard]] uint64_t getFd() const noexcept
    {
        return static_cast<uint64_t>(fd);
    }

    [[nodiscard]] size_t getLen() const noexcept
    {
        return mLen;
    }

private:
    friend struct ::BATON_ABI::LayoutCheck;

    int fd;
    size_t mLen;
};

// The files of one loopback request, in the order of its memory.
class FileDescs
{
public:
    FileDescs(std::vector<FileDesc>&& descs)
        : mDescs{std::move(descs)}
    {
    }

    [[nodiscard]] std::vector<FileDesc> const& getDescs() const noexcept
    {
        return mDescs;
    }

private:
    std::vector<FileDesc> mDescs;
};

// How one region of GPU memory is cut into physical chunks. Since age P3.
struct VramRegionMeta
{
    uintptr_t baseAddr;
    size_t totalLen;
    size_t chunkSize; // 0: one allocation
};

// What a peer needs to reach an agent. It grew: 32 bytes to age P2, 56 at P3, 88 at P4.
class AgentDesc final
{
public:
    AgentDesc(std::string backendAgentDesc)
        : mBackendAgentDesc{std::move(backendAgentDesc)}
    {
    }

    AgentDesc(std::string backendAgentDesc, std::vector<VramRegionMeta> vramRegions, std::string bounceHandshake = {})
        : mBackendAgentDesc{std::move(backendAgentDesc)}
        , mVramRegions{std::move(vramRegions)}
        , mBounceHandshake{std::move(bounceHandshake)}
    {
    }

    [[nodiscard]] std::string const& getBackendAgentDesc() const noexcept
    {
        return mBackendAgentDesc;
    }

    [[nodiscard]] std::vector<VramRegionMeta> const& getVramRegions() const noexcept
    {
        return mVramRegions;
    }

    [[nodiscard]] std::string const& getBounceHandshake() const noexcept
    {
        return mBounceHandshake;
    }

private:
    friend struct ::BATON_ABI::LayoutCheck;

    std::string mBackendAgentDesc;
    std::vector<VramRegionMeta> mVramRegions;
    std::string mBounceHandshake;
};

// What to move, and the message that follows the data.
class TransferRequest
{
public:
    TransferRequest(TransferOp op, TransferDescs srcDescs, TransferDescs dstDescs, std::string const& remoteName,
        std::optional<SyncMessage> syncMessage = std::nullopt)
        : mOp{op}
        , mSrcDescs{std::move(srcDescs)}
        , mDstDescs{std::move(dstDescs)}
        , mRemoteName{remoteName}
        , mSyncMessage{std::move(syncMessage)}
    {
    }

    [[nodiscard]] TransferOp getOp() const noexcept
    {
        return mOp;
    }

    // Always the submitter's memory, for a read as for a write.
    [[nodiscard]] TransferDescs const& getSrcDescs() const noexcept
    {
        return mSrcDescs;
    }

    // Always the peer's memory, for a read as for a write.
    [[nodiscard]] TransferDescs const& getDstDescs() const noexcept
    {
        return mDstDescs;
    }

    [[nodiscard]] std::string const& getRemoteName() const noexcept
    {
        return mRemoteName;
    }

    [[nodiscard]] std::optional<SyncMessage> const& getSyncMessage() const noexcept
    {
        return mSyncMessage;
    }

private:
    friend struct ::BATON_ABI::LayoutCheck;

    TransferOp mOp;
    TransferDescs mSrcDescs;
    TransferDescs mDstDescs;
    std::string mRemoteName;
    std::optional<SyncMessage> mSyncMessage;
};

// How an agent is made. The host keeps it only for the factory call. Older ages end earlier: provider.h.
struct BaseAgentConfig
{
    std::string mName;
    bool useProgThread;
    bool multiThread;
    bool useListenThread;
    bool enableTelemetry;
    std::unordered_map<std::string, std::string> backendParams;
    std::optional<int> rank;
    std::optional<int> worldSize;
    size_t agentBufferSizeMb{0};
    std::unordered_map<std::string, std::string> bounceParams;
};

// --- the abstract classes: the order of the virtual functions is the seam ---------------------------------------

// A submitted transfer. Slots 4 and 5 exist since late P3; ours has all six at every age.
class TransferStatus
{
public:
    virtual ~TransferStatus() = default;                                // 0, 1
    [[nodiscard]] virtual bool isCompleted() const = 0;                 // 2
    virtual TransferState wait(int64_t timeout_ms = -1) const = 0;      // 3: void and without argument to P0b

    [[nodiscard]] virtual bool release()                                // 4
    {
        return false;
    }

    [[nodiscard]] virtual std::string getLastStatusStr() const          // 5
    {
        return {};
    }
};

class BaseTransferAgent
{
public:
    virtual ~BaseTransferAgent() = default;                                                                  // 0, 1
    virtual void registerMemory(RegisterDescs const& descs) = 0;                                             // 2
    virtual void deregisterMemory(RegisterDescs const& descs) = 0;                                           // 3
    virtual void loadRemoteAgent(std::string const& name, AgentDesc const& agentDesc) = 0;                   // 4
    virtual void loadRemoteAgent(std::string const& name, ConnectionInfoType const& connectionInfo) = 0;     // 5
    virtual void invalidateRemoteAgent(std::string const& name) = 0;                                         // 6
    virtual AgentDesc getLocalAgentDesc() = 0;                                                               // 7
    virtual ConnectionInfoType getLocalConnectionInfo() = 0;                                                 // 8
    [[nodiscard]] virtual std::unique_ptr<TransferStatus> submitTransferRequests(TransferRequest const&) = 0; // 9
    virtual void notifySyncMessage(std::string const& name, SyncMessage const& syncMessage) = 0;             // 10
    virtual std::unordered_map<std::string, std::vector<SyncMessage>> getNotifiedSyncMessages() = 0;         // 11
    virtual bool checkRemoteDescs(std::string const& name, MemoryDescs const& memoryDescs) = 0;              // 12
};

// Moves memory to files (offload) and back.
class BaseLoopbackAgent
{
public:
    virtual ~BaseLoopbackAgent() = default;                                                                  // 0, 1
    virtual void executeLoopbackRequest(MemoryDescs const& memoryDescs, FileDescs const& fileDescs, bool isOffload)
        = 0;                                                                                                 // 2
};

// The factories, as dlsym finds them: "createNixlTransferAgent" and "createMooncakeTransferAgent", and
// "createNixlLoopbackAgent".
using CreateTransferAgent = std::unique_ptr<BaseTransferAgent> (*)(BaseAgentConfig const*);
using CreateLoopbackAgent = std::shared_ptr<BaseLoopbackAgent> (*)(BaseAgentConfig const*);

} // namespace BATON_HOST_KV_CACHE

// --- sizes and offsets, as measured at the hosts ----------------------------------------------------------------

namespace BATON_ABI
{
struct LayoutCheck
{
    using MemoryDesc = BATON_HOST_KV_CACHE::MemoryDesc;
    using MemoryDescs = BATON_HOST_KV_CACHE::MemoryDescs;
    using FileDesc = BATON_HOST_KV_CACHE::FileDesc;
    using AgentDesc = BATON_HOST_KV_CACHE::AgentDesc;
    using TransferRequest = BATON_HOST_KV_CACHE::TransferRequest;
    using BaseAgentConfig = BATON_HOST_KV_CACHE::BaseAgentConfig;

    static_assert(sizeof(std::string) == 32, "the new std::string (_GLIBCXX_USE_CXX11_ABI=1) of libstdc++ is needed");

    static_assert(sizeof(MemoryDesc) == 24 && alignof(MemoryDesc) == 8);
    static_assert(offsetof(MemoryDesc, mAddr) == 0);
    static_assert(offsetof(MemoryDesc, mLen) == 8);
    static_assert(offsetof(MemoryDesc, mDeviceId) == 16);

    static_assert(sizeof(MemoryDescs) == 32);
    static_assert(offsetof(MemoryDescs, mType) == 0);
    static_assert(offsetof(MemoryDescs, mDescs) == 8);

    static_assert(sizeof(FileDesc) == 16);
    static_assert(offsetof(FileDesc, fd) == 0);
    static_assert(offsetof(FileDesc, mLen) == 8);
    static_assert(sizeof(BATON_HOST_KV_CACHE::FileDescs) == 24);

    static_assert(sizeof(BATON_HOST_KV_CACHE::VramRegionMeta) == 24);

    static_assert(sizeof(AgentDesc) == 88);
    static_assert(offsetof(AgentDesc, mBackendAgentDesc) == 0);
    static_assert(offsetof(AgentDesc, mVramRegions) == 32);
    static_assert(offsetof(AgentDesc, mBounceHandshake) == 56);

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof" // supported by GCC and Clang for these classes
    static_assert(sizeof(TransferRequest) == 144);
    static_assert(offsetof(TransferRequest, mOp) == 0);
    static_assert(offsetof(TransferRequest, mSrcDescs) == 8);
    static_assert(offsetof(TransferRequest, mDstDescs) == 40);
    static_assert(offsetof(TransferRequest, mRemoteName) == 72);
    static_assert(offsetof(TransferRequest, mSyncMessage) == 104);

    static_assert(sizeof(BaseAgentConfig) == 176);
    static_assert(offsetof(BaseAgentConfig, mName) == 0);
    static_assert(offsetof(BaseAgentConfig, useProgThread) == 32);
    static_assert(offsetof(BaseAgentConfig, multiThread) == 33);
    static_assert(offsetof(BaseAgentConfig, useListenThread) == 34);
    static_assert(offsetof(BaseAgentConfig, enableTelemetry) == 35);
    static_assert(offsetof(BaseAgentConfig, backendParams) == 40);
    static_assert(offsetof(BaseAgentConfig, rank) == 96);
    static_assert(offsetof(BaseAgentConfig, worldSize) == 104);
    static_assert(offsetof(BaseAgentConfig, agentBufferSizeMb) == 112);
    static_assert(offsetof(BaseAgentConfig, bounceParams) == 120);
#pragma GCC diagnostic pop

    // Pointer, so that a virtual class has a vtable and nothing else.
    static_assert(sizeof(BATON_HOST_KV_CACHE::TransferStatus) == 8);
    static_assert(sizeof(BATON_HOST_KV_CACHE::BaseTransferAgent) == 8);
    static_assert(sizeof(BATON_HOST_KV_CACHE::BaseLoopbackAgent) == 8);
};
} // namespace BATON_ABI
