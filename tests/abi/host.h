// A small host: opens the library as TensorRT-LLM does and makes agents with it.

#pragma once

#include "check.h"
#include "tensorrt_llm/executor/transferAgent.h"

#include <dlfcn.h>

namespace host
{

using namespace tensorrt_llm::executor::kv_cache;

using AgentPtr = std::unique_ptr<BaseTransferAgent>;
using LoopbackPtr = std::shared_ptr<BaseLoopbackAgent>;
using Notifications = std::unordered_map<std::string, std::vector<std::string>>;

constexpr char const* kNixl = "libtensorrt_llm_nixl_wrapper.so";
constexpr char const* kMooncake = "libtensorrt_llm_mooncake_wrapper.so";

// The config as this age's AgentConnectionManager fills it.
inline BaseAgentConfig configFor(std::string name)
{
    BaseAgentConfig config{};
    config.mName = std::move(name);
    config.useProgThread = true;
#if HOST_AGE >= AGE_P0B
    config.useListenThread = true;
#endif
#if HOST_AGE == AGE_P0B || HOST_AGE == AGE_P1
    config.numWorkers = 8;
#endif
#if HOST_AGE >= AGE_P2
    config.backendParams["num_threads"] = "8";
#endif
#if HOST_AGE >= AGE_P4
    config.rank = 0;
    config.worldSize = 2;
    config.agentBufferSizeMb = 64;
    config.bounceParams["max_chunk_size"] = "33554432";
#endif
    return config;
}

inline void* openLibrary(char const* name)
{
    void* const handle = ::dlopen(name, RTLD_LAZY);
    if (handle == nullptr)
    {
        std::fprintf(stderr, "%s\n", ::dlerror());
        std::exit(1);
    }
    return handle;
}

template <typename Pointer>
Pointer create(char const* library, char const* factory, std::string const& name)
{
    using Factory = Pointer (*)(BaseAgentConfig const*);
    auto const make = reinterpret_cast<Factory>(::dlsym(openLibrary(library), factory));
    CHECK(make != nullptr);
    AtPageEnd<BaseAgentConfig> config([&] { return configFor(name); });
    Guarded<Pointer> made([&] { return make(config.get()); });
    CHECK(*made != nullptr);
    return std::move(*made);
}

inline AgentPtr createAgent(std::string const& name)
{
    return create<AgentPtr>(kNixl, "createNixlTransferAgent", name);
}

// One desc over all of a buffer, or over part of it.
inline MemoryDescs dram(std::vector<char> const& buffer)
{
    return {MemoryType::kDRAM, {MemoryDesc(buffer.data(), buffer.size(), 0)}};
}

inline MemoryDescs dram(std::vector<char> const& buffer, size_t offset, size_t len)
{
    return {MemoryType::kDRAM, {MemoryDesc(buffer.data() + offset, len, 0)}};
}

// Bytes that differ from place to place and from seed to seed.
inline std::vector<char> pattern(size_t len, unsigned seed)
{
    std::vector<char> bytes(len);
    for (size_t at = 0; at < len; ++at)
    {
        bytes[at] = static_cast<char>((at * 2654435761u + seed * 40503u) >> 11);
    }
    return bytes;
}

// The cases, one file each.
void slots();
void threads();
void badInput();
void lostPeer();
void loopback();
void gpuMemory();
void mooncake();
void connections();
void connectionThreads();
void connectionInput();
void connectionEnds();
void connectionCancel(); // from P4 on
void bothSeams();
void refused(std::string const& part);

} // namespace host
