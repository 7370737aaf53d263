// Holds the layouts that Baton relies on against the headers of a real TensorRT-LLM: it includes the host's
// executor/transferAgent.h and nothing of ours, finds out which age those headers are, and fails to compile where
// they are none that Baton serves. cmake -DTRTLLM_INCLUDE_DIR=<checkout>/cpp/include builds it.

#include "tensorrt_llm/executor/transferAgent.h"

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace
{

using namespace tensorrt_llm::executor::kv_cache;

// --- which age the headers are, by what they have ---------------------------------------------------------------

template <typename T, typename = void>
struct HasLocalConnectionInfo : std::false_type
{
};

template <typename T>
struct HasLocalConnectionInfo<T, std::void_t<decltype(std::declval<T&>().getLocalConnectionInfo())>> : std::true_type
{
};

template <typename T, typename = void>
struct HasBackendParams : std::false_type
{
};

template <typename T>
struct HasBackendParams<T, std::void_t<decltype(std::declval<T&>().backendParams)>> : std::true_type
{
};

template <typename T, typename = void>
struct HasBounceParams : std::false_type
{
};

template <typename T>
struct HasBounceParams<T, std::void_t<decltype(std::declval<T&>().bounceParams)>> : std::true_type
{
};

template <typename T, typename = void>
struct HasVramRegions : std::false_type
{
};

template <typename T>
struct HasVramRegions<T, std::void_t<decltype(std::declval<T&>().getVramRegions())>> : std::true_type
{
};

static_assert(HasLocalConnectionInfo<BaseTransferAgent>::value,
    "these headers are older than TensorRT-LLM 1.2.0rc2: the virtual functions stand in another order");

constexpr int kAge = HasBounceParams<BaseAgentConfig>::value ? 4
    : HasVramRegions<AgentDesc>::value                       ? 3
    : HasBackendParams<BaseAgentConfig>::value               ? 2
                                                             : 0;

// --- what every age has ----------------------------------------------------------------------------------------

static_assert(sizeof(std::string) == 32, "Baton needs hosts built with _GLIBCXX_USE_CXX11_ABI=1");
static_assert(sizeof(MemoryType) == 1 && sizeof(TransferOp) == 1);
static_assert(static_cast<int>(MemoryType::kDRAM) == 0 && static_cast<int>(MemoryType::kVRAM) == 1
    && static_cast<int>(MemoryType::kBLK) == 2 && static_cast<int>(MemoryType::kOBJ) == 3
    && static_cast<int>(MemoryType::kFILE) == 4);
static_assert(static_cast<int>(TransferOp::kREAD) == 0 && static_cast<int>(TransferOp::kWRITE) == 1);
static_assert(sizeof(MemoryDesc) == 24);
static_assert(std::is_trivially_copyable_v<MemoryDesc>);
static_assert(sizeof(MemoryDescs) == 32);
static_assert(sizeof(FileDesc) == 16);
static_assert(sizeof(FileDescs) == 24);
static_assert(sizeof(TransferRequest) == 144);

#pragma GCC diagnostic ignored "-Winvalid-offsetof"
static_assert(offsetof(BaseAgentConfig, mName) == 0);
static_assert(offsetof(BaseAgentConfig, useProgThread) == 32);
static_assert(offsetof(BaseAgentConfig, multiThread) == 33);

// --- what differs -----------------------------------------------------------------------------------------------

static_assert(sizeof(AgentDesc) == (kAge >= 4 ? 88 : kAge >= 3 ? 56 : 32));
static_assert(!std::is_trivially_destructible_v<AgentDesc>);

template <typename Config>
constexpr bool configIsAsExpected()
{
    if constexpr (kAge >= 2)
    {
        if (offsetof(Config, backendParams) != 40)
        {
            return false;
        }
    }
    if constexpr (kAge >= 4)
    {
        return sizeof(Config) == 176 && offsetof(Config, agentBufferSizeMb) == 112
            && offsetof(Config, bounceParams) == 120;
    }
    return sizeof(Config) == 40 || (kAge >= 2 && sizeof(Config) >= 96);
}

static_assert(configIsAsExpected<BaseAgentConfig>());

// --- the order of the virtual functions --------------------------------------------------------------------------

// A pointer to a virtual member function holds one plus the byte offset of its slot (x86-64), or the offset, with
// the mark in its second word (aarch64).
template <typename Member>
std::size_t slotOf(Member member)
{
    static_assert(sizeof(Member) == 2 * sizeof(std::uintptr_t));
    std::uintptr_t words[2];
    __builtin_memcpy(words, &member, sizeof(member));
    return (words[0] & ~std::uintptr_t{1}) / sizeof(void*);
}

// Slots 4 and 5 of TransferStatus, where these headers have them.
template <typename Status>
auto lateSlotsFit(int) -> decltype(&Status::release, &Status::getLastStatusStr, bool{})
{
    return slotOf(&Status::release) == 4 && slotOf(&Status::getLastStatusStr) == 5;
}

template <typename Status>
bool lateSlotsFit(...)
{
    return true;
}

} // namespace

// Asked by check_host_main.cc and by the test hosts: which age this was compiled against, and whether the slots
// stand where Baton puts them. No constant expression tells the latter.
extern "C" int baton_host_headers_age()
{
    return kAge;
}

extern "C" bool baton_host_headers_slots_fit()
{
    using Agent = BaseTransferAgent;
    return slotOf(&Agent::registerMemory) == 2 && slotOf(&Agent::deregisterMemory) == 3
        && slotOf(static_cast<void (Agent::*)(std::string const&, AgentDesc const&)>(&Agent::loadRemoteAgent)) == 4
        && slotOf(static_cast<void (Agent::*)(std::string const&, std::string const&)>(&Agent::loadRemoteAgent)) == 5
        && slotOf(&Agent::invalidateRemoteAgent) == 6 && slotOf(&Agent::getLocalAgentDesc) == 7
        && slotOf(&Agent::getLocalConnectionInfo) == 8 && slotOf(&Agent::submitTransferRequests) == 9
        && slotOf(&Agent::notifySyncMessage) == 10 && slotOf(&Agent::getNotifiedSyncMessages) == 11
        && slotOf(&Agent::checkRemoteDescs) == 12 && slotOf(&TransferStatus::isCompleted) == 2
        && slotOf(&TransferStatus::wait) == 3 && lateSlotsFit<TransferStatus>(0)
        && slotOf(&BaseLoopbackAgent::executeLoopbackRequest) == 2;
}
