// The loopback agent: memory to files and back, and what it refuses.

#include "host.h"

namespace host
{
namespace
{

constexpr size_t kBytes = 300000;

// An unnamed file that lives as long as its descriptors.
int scratchFile()
{
    char name[] = "/tmp/baton-loopback-XXXXXX";
    int const fd = ::mkstemp(name);
    CHECK(fd >= 0 && ::unlink(name) == 0);
    return fd;
}

// FileDescs closes what it holds, so it gets descriptors of its own.
FileDescs files(std::vector<std::pair<int, size_t>> const& list)
{
    std::vector<FileDesc> descs;
    for (auto const& entry : list)
    {
        descs.emplace_back(::dup(entry.first), entry.second);
    }
    return FileDescs(std::move(descs));
}

} // namespace

void loopback()
{
    auto const agent = create<LoopbackPtr>(kNixl, "createNixlLoopbackAgent", "disk0");
    int const first = scratchFile();
    int const second = scratchFile();

    auto const wanted = pattern(kBytes, 5);
    auto data = wanted;
    std::vector<MemoryDesc> blocks{MemoryDesc(data.data(), 100000, 0), MemoryDesc(data.data() + 100000, 200000, 0)};
    MemoryDescs const memory{MemoryType::kDRAM, blocks};
    agent->executeLoopbackRequest(memory, files({{first, 100000}, {second, 200000}}), true);

    std::vector<char> onDisk(200000);
    CHECK(::pread(second, onDisk.data(), onDisk.size(), 0) == 200000);
    CHECK(std::memcmp(onDisk.data(), wanted.data() + 100000, onDisk.size()) == 0);
    CHECK(::lseek(second, 0, SEEK_CUR) == 0); // positional: the file's own position stands still

    data.assign(kBytes, 0);
    agent->executeLoopbackRequest(memory, files({{first, 100000}, {second, 200000}}), false);
    CHECK(data == wanted);

    expectError("file shorter than stated", "ends at offset 100000, 200000 bytes short",
        [&] { agent->executeLoopbackRequest(memory, files({{first, 300000}}), false); });
    expectError("unequal lengths", "300000 bytes of memory against 5 bytes of files",
        [&] { agent->executeLoopbackRequest(memory, files({{first, 5}}), true); });
    expectError("GPU memory that is none", "VRAM 0x",
        [&] { agent->executeLoopbackRequest({MemoryType::kVRAM, blocks}, files({{first, kBytes}}), true); });
    CHECK(::ftruncate(first, 0) == 0 && ::close(first) == 0 && ::close(second) == 0);
}

} // namespace host
