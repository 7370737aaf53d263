#include "loopback_agent.h"

#include "errors.h"
#include "transfer_agent.h"

namespace baton
{

LoopbackAgent::LoopbackAgent(::rust::Box<bridge::SeamLoopback> agent)
    : mAgent{std::move(agent)}
{
}

void LoopbackAgent::executeLoopbackRequest(
    abi::kv_cache::MemoryDescs const& memoryDescs, abi::kv_cache::FileDescs const& fileDescs, bool isOffload)
{
    std::vector<bridge::File> files;
    files.reserve(fileDescs.getDescs().size());
    for (auto const& file : fileDescs.getDescs())
    {
        files.push_back({static_cast<int32_t>(file.getFd()), file.getLen()});
    }
    orThrow([&] { mAgent->execute(memoryOf(memoryDescs), {files.data(), files.size()}, isOffload); });
}

} // namespace baton
