// The library under its names, and the hosts that it refuses under each of them.

#include "connections.h"

namespace host
{

// The twin under its own name is the same library: what one agent loads, the other serves.
// And it stays when the host closes it, because objects and threads of it may live on.
void mooncake()
{
    void* const library = openLibrary(kMooncake);
    CHECK(library == openLibrary(kNixl));
    CHECK(::dlclose(library) == 0 && ::dlclose(library) == 0);
    CHECK(::dlopen(kNixl, RTLD_LAZY | RTLD_NOLOAD) == library);

    auto const twin = create<AgentPtr>(kMooncake, "createMooncakeTransferAgent", "mooncake0");
    auto const nixl = createAgent("nixl0");
    auto const source = pattern(4096, 9);
    std::vector<char> target(4096);
    twin->registerMemory(dram(source));
    nixl->registerMemory(dram(target));
    twin->loadRemoteAgent("nixl0", nixl->getLocalAgentDesc());
    auto const status = twin->submitTransferRequests({TransferOp::kWRITE, dram(source), dram(target), "nixl0"});
    status->wait();
    CHECK(status->isCompleted());
    CHECK(source == target);
}

// The factories refuse this host, with a text that says so, what was found, and the way out.
void refused(std::string const& part)
{
    auto const nixl = [] { createAgent("ctx0"); };
    auto const loopback = [] { create<LoopbackPtr>(kNixl, "createNixlLoopbackAgent", "disk0"); };
    expectError("createNixlTransferAgent", part, nixl);
    expectError("createNixlLoopbackAgent", part, loopback);
    expectError("makeUcxConnectionManager", part, [] { createManager(); });
    expectError("createNixlTransferAgent", "BATON_TRTLLM_ABI", nixl);
}

} // namespace host
