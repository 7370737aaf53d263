// GPU memory: what is registered of it stands in the AgentDesc of the ages that have room for it, with the chunks as
// TensorRT-LLM's own agent reads them, and the older ages' AgentDesc stays as it was; the loopback agent moves it to files
// and back.

#include "host.h"

#include "host_cuda/allocation.h"

#include <algorithm>
#include <array>

namespace host
{
namespace
{

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kChunk = 2 * kMiB; // what devices have at least

MemoryDescs vram(uint64_t address, size_t length)
{
    return {MemoryType::kVRAM, {MemoryDesc(static_cast<uintptr_t>(address), length, 0)}};
}

#if HOST_AGE >= AGE_P3
using Stretch = std::array<uint64_t, 3>; // base, length, chunk length

// What the agent's descriptor says of GPU memory, by address.
std::vector<Stretch> told(BaseTransferAgent& agent)
{
    Guarded<AgentDesc> desc([&] { return agent.getLocalAgentDesc(); });
    std::vector<Stretch> stretches;
    for (auto const& region : desc->getVramRegions())
    {
        stretches.push_back({region.baseAddr, region.totalLen, region.chunkSize});
    }
    CHECK(std::is_sorted(stretches.begin(), stretches.end()));
    return stretches;
}

void expectTold(BaseTransferAgent& agent, std::vector<Stretch> wanted)
{
    std::sort(wanted.begin(), wanted.end());
    CHECK(told(agent) == wanted);
}
#else
void expectTold(BaseTransferAgent& agent, std::vector<std::array<uint64_t, 3>> const&)
{
    Guarded<AgentDesc> desc([&] { return agent.getLocalAgentDesc(); });
    CHECK(!desc->getBackendAgentDesc().empty());
}
#endif

// An unnamed file that lives as long as its descriptors.
int scratchFile()
{
    char name[] = "/tmp/baton-vram-XXXXXX";
    int const fd = ::mkstemp(name);
    CHECK(fd >= 0 && ::unlink(name) == 0);
    return fd;
}

// FileDescs closes what it holds, so it gets a descriptor of its own.
FileDescs fileOf(int fd, size_t len)
{
    std::vector<FileDesc> descs;
    descs.emplace_back(::dup(fd), len);
    return FileDescs(std::move(descs));
}

// The loopback agent, with pieces of GPU memory in another order than they lie.
void loopbackOfGpuMemory(host_cuda::Allocation& memory)
{
    auto const agent = create<LoopbackPtr>(kNixl, "createNixlLoopbackAgent", "disk0");
    auto const wanted = pattern(memory.size(), 9);
    size_t const half = memory.size() / 2 - 5;
    MemoryDescs const swapped{MemoryType::kVRAM,
        {MemoryDesc(static_cast<uintptr_t>(memory.address() + half), memory.size() - half, 0),
            MemoryDesc(static_cast<uintptr_t>(memory.address()), half, 0)}};
    int const file = scratchFile();
    memory.write(0, wanted.data(), wanted.size());
    agent->executeLoopbackRequest(swapped, fileOf(file, memory.size()), true);
    std::vector<char> onDisk(memory.size());
    CHECK(::pread(file, onDisk.data(), onDisk.size(), 0) == static_cast<ssize_t>(onDisk.size()));
    std::rotate(onDisk.begin(), onDisk.end() - static_cast<ptrdiff_t>(half), onDisk.end());
    CHECK(onDisk == wanted);
    memory.set(0, 0, memory.size());
    agent->executeLoopbackRequest(swapped, fileOf(file, memory.size()), false);
    std::vector<char> back(memory.size());
    memory.read(0, back.data(), back.size());
    CHECK(back == wanted && ::close(file) == 0);
}

} // namespace

void gpuMemory()
{
    host_cuda::Allocation plain(kMiB, {});
    host_cuda::Allocation chunks(3 * kChunk, {0, kChunk, true});
    auto const context = createAgent("ctx0");
    auto const generation = createAgent("gen0");
    expectTold(*context, {});

    // Of one allocation; of chunks whose last one is not used to its end; twice the same.
    context->registerMemory(vram(plain.address(), plain.size()));
    expectTold(*context, {{plain.address(), kMiB, 0}});
    context->registerMemory(vram(chunks.address(), 5 * kMiB));
    context->registerMemory(vram(chunks.address(), 5 * kMiB));
    expectTold(*context, {{plain.address(), kMiB, 0}, {chunks.address(), 5 * kMiB, kChunk}});

    // A peer gets along with all that it may be told, and with none of it.
    generation->loadRemoteAgent("ctx0", context->getLocalAgentDesc());
    generation->invalidateRemoteAgent("ctx0");
    generation->loadRemoteAgent("ctx0", AgentDesc(context->getLocalAgentDesc().getBackendAgentDesc()));
    CHECK(generation->checkRemoteDescs("ctx0", vram(chunks.address() + kChunk - 8, 16)));

    context->deregisterMemory(vram(chunks.address(), 5 * kMiB));
    context->deregisterMemory(vram(chunks.address(), 5 * kMiB));
    context->deregisterMemory(vram(plain.address(), plain.size()));
    expectTold(*context, {});

    // Memory that begins inside a chunk: no multiple of its length from there is an edge, so each piece is named.
    uint64_t const inside = chunks.address() + 4096;
    context->registerMemory(vram(inside, 2 * kChunk));
    expectTold(*context,
        {{inside, kChunk - 4096, 0}, {chunks.address() + kChunk, kChunk, 0}, {chunks.address() + 2 * kChunk, 4096, 0}});
    context->deregisterMemory(vram(inside, 2 * kChunk));

    loopbackOfGpuMemory(plain);
    loopbackOfGpuMemory(chunks);
}

} // namespace host
