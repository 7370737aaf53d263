// A stand-in for the header of the same name in TensorRT-LLM, at the age that HOST_AGE names. The test hosts and
// the layout check are compiled against it, so it is written apart from cpp/abi: what the two agree on is tested.
//
// Only what a host needs to call the seam is here. HOST_V1 puts everything into the inline namespace that some
// hosts have.

#pragma once

#define AGE_LEGACY (-1) // before 1.2.0rc2: another order of virtual functions
#define AGE_P0 0
#define AGE_P0B 1
#define AGE_P1 2
#define AGE_P2 3
#define AGE_P3 4
#define AGE_P4 5

#ifndef HOST_AGE
#define HOST_AGE AGE_P4
#endif

#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <string>
#include <unistd.h>
#include <unordered_map>
#include <utility>
#include <vector>

#ifdef HOST_V1
#define HOST_NAMESPACE_BEGIN \
    namespace tensorrt_llm \
    { \
    inline namespace _v1 \
    {
#define HOST_NAMESPACE_END \
    } \
    }
#else
#define HOST_NAMESPACE_BEGIN \
    namespace tensorrt_llm \
    {
#define HOST_NAMESPACE_END }
#endif

HOST_NAMESPACE_BEGIN

namespace executor::kv_cache
{

enum class MemoryType : uint8_t
{
    kDRAM = 0,
    kVRAM = 1,
    kBLK = 2,
    kOBJ = 3,
    kFILE = 4
};

enum class TransferOp : uint8_t
{
    kREAD = 0,
    kWRITE = 1
};

enum class TransferState : uint8_t
{
    kIN_PROGRESS = 0,
    kSUCCESS = 1,
    kFAILURE = 2
};

class MemoryDesc
{
public:
    MemoryDesc(void const* addr, size_t len, uint32_t deviceId)
        : mAddr(reinterpret_cast<uintptr_t>(addr))
        , mLen(len)
        , mDeviceId(deviceId)
    {
    }

    MemoryDesc(uintptr_t addr, size_t len, uint32_t deviceId)
        : mAddr(addr)
        , mLen(len)
        , mDeviceId(deviceId)
    {
    }

    uintptr_t getAddr() const noexcept
    {
        return mAddr;
    }

    size_t getLen() const noexcept
    {
        return mLen;
    }

    uint32_t getDeviceId() const noexcept
    {
        return mDeviceId;
    }

private:
    uintptr_t mAddr;
    size_t mLen;
    uint32_t mDeviceId;
};

class MemoryDescs
{
public:
    MemoryDescs(MemoryType type, std::vector<MemoryDesc> descs)
        : mType(type)
        , mDescs(std::move(descs))
    {
    }

    MemoryType getType() const noexcept
    {
        return mType;
    }

    std::vector<MemoryDesc> const& getDescs() const noexcept
    {
        return mDescs;
    }

private:
    MemoryType mType;
    std::vector<MemoryDesc> mDescs;
};

class FileDesc
{
public:
    FileDesc(int open, size_t len)
        : fd(open)
        , mLen(len)
    {
    }

    FileDesc(FileDesc&& other) noexcept
        : fd(std::exchange(other.fd, -1))
        , mLen(other.mLen)
    {
    }

    ~FileDesc()
    {
        if (fd != -1)
        {
            ::close(fd);
        }
    }

private:
    int fd;
    size_t mLen;
};

class FileDescs
{
public:
    explicit FileDescs(std::vector<FileDesc>&& descs)
        : mDescs(std::move(descs))
    {
    }

private:
    std::vector<FileDesc> mDescs;
};

#if HOST_AGE >= AGE_P3
struct VramRegionMeta
{
    uintptr_t baseAddr;
    size_t totalLen;
    size_t chunkSize;
};
#endif

class AgentDesc final
{
public:
    explicit AgentDesc(std::string backendAgentDesc)
        : mBackendAgentDesc(std::move(backendAgentDesc))
    {
    }

#if HOST_AGE >= AGE_P3
    // Of the host's library: agent_desc.cc.
    std::string serialize() const;
    static AgentDesc deserialize(std::string const& data);
#endif

    std::string const& getBackendAgentDesc() const
    {
        return mBackendAgentDesc;
    }

#if HOST_AGE >= AGE_P3
    std::vector<VramRegionMeta> const& getVramRegions() const
    {
        return mVramRegions;
    }
#endif
#if HOST_AGE >= AGE_P4
    std::string const& getBounceHandshake() const
    {
        return mBounceHandshake;
    }
#endif

private:
    std::string mBackendAgentDesc;
#if HOST_AGE >= AGE_P3
    std::vector<VramRegionMeta> mVramRegions;
#endif
#if HOST_AGE >= AGE_P4
    std::string mBounceHandshake;
#endif
};

class TransferRequest
{
public:
    TransferRequest(TransferOp op, MemoryDescs src, MemoryDescs dst, std::string remoteName,
        std::optional<std::string> syncMessage = std::nullopt)
        : mOp(op)
        , mSrcDescs(std::move(src))
        , mDstDescs(std::move(dst))
        , mRemoteName(std::move(remoteName))
        , mSyncMessage(std::move(syncMessage))
    {
    }

    TransferOp getOp() const noexcept
    {
        return mOp;
    }

    MemoryDescs const& getSrcDescs() const noexcept
    {
        return mSrcDescs;
    }

    MemoryDescs const& getDstDescs() const noexcept
    {
        return mDstDescs;
    }

    std::string const& getRemoteName() const noexcept
    {
        return mRemoteName;
    }

    std::optional<std::string> const& getSyncMessage() const noexcept
    {
        return mSyncMessage;
    }

private:
    TransferOp mOp;
    MemoryDescs mSrcDescs;
    MemoryDescs mDstDescs;
    std::string mRemoteName;
    std::optional<std::string> mSyncMessage;
};

class TransferStatus
{
public:
    virtual ~TransferStatus() = default;
    virtual bool isCompleted() const = 0;
#if HOST_AGE <= AGE_P0B
    virtual void wait() const = 0;
#else
    virtual TransferState wait(int64_t timeout_ms = -1) const = 0;
#endif
#if HOST_AGE >= AGE_P3
    virtual bool release()
    {
        return false;
    }

    virtual std::string getLastStatusStr() const
    {
        return {};
    }
#endif
};

struct BaseAgentConfig
{
    std::string mName;
    bool useProgThread;
    bool multiThread;
#if HOST_AGE >= AGE_P0B
    bool useListenThread;
#endif
#if HOST_AGE == AGE_P0B || HOST_AGE == AGE_P1
    unsigned int numWorkers;
#endif
#if HOST_AGE >= AGE_P2
    bool enableTelemetry;
    std::unordered_map<std::string, std::string> backendParams;
#endif
    // Early P3 ends here. Late P3 has the ranks of P4; Baton may not count on them.
#if HOST_AGE >= AGE_P4
    std::optional<int> rank;
    std::optional<int> worldSize;
    size_t agentBufferSizeMb;
    std::unordered_map<std::string, std::string> bounceParams;
#endif
};

class BaseTransferAgent
{
public:
    virtual ~BaseTransferAgent() = default;
    virtual void registerMemory(MemoryDescs const& descs) = 0;
    virtual void deregisterMemory(MemoryDescs const& descs) = 0;
#if HOST_AGE == AGE_LEGACY
    virtual void loadRemoteAgent(std::string const& name, AgentDesc const& agentDesc) = 0;
    virtual AgentDesc getLocalAgentDesc() = 0;
    virtual void invalidateRemoteAgent(std::string const& name) = 0;
    virtual std::unique_ptr<TransferStatus> submitTransferRequests(TransferRequest const& request) = 0;
    virtual void notifySyncMessage(std::string const& name, std::string const& syncMessage) = 0;
    virtual std::unordered_map<std::string, std::vector<std::string>> getNotifiedSyncMessages() = 0;
    virtual std::string getConnectionInfo() = 0;
    virtual void connectRemoteAgent(std::string const& name, std::string const& connectionInfo) = 0;
#else
    virtual void loadRemoteAgent(std::string const& name, AgentDesc const& agentDesc) = 0;
    virtual void loadRemoteAgent(std::string const& name, std::string const& connectionInfo) = 0;
    virtual void invalidateRemoteAgent(std::string const& name) = 0;
    virtual AgentDesc getLocalAgentDesc() = 0;
    virtual std::string getLocalConnectionInfo() = 0;
    virtual std::unique_ptr<TransferStatus> submitTransferRequests(TransferRequest const& request) = 0;
    virtual void notifySyncMessage(std::string const& name, std::string const& syncMessage) = 0;
    virtual std::unordered_map<std::string, std::vector<std::string>> getNotifiedSyncMessages() = 0;
#endif
    virtual bool checkRemoteDescs(std::string const& name, MemoryDescs const& descs) = 0;
};

class BaseLoopbackAgent
{
public:
    virtual ~BaseLoopbackAgent() = default;
    virtual void executeLoopbackRequest(MemoryDescs const& memory, FileDescs const& files, bool isOffload) = 0;
};

} // namespace executor::kv_cache

HOST_NAMESPACE_END
