// Bad input at the seam: each gets a std::runtime_error that names the thing, and nothing is written. And a peer
// that is gone: the transfer ends, and not with success.

#include "host.h"

namespace host
{
namespace
{

constexpr size_t kBytes = 4096;

// The sum of submitting and waiting, the way this age learns of a failure.
void transfer(BaseTransferAgent& agent, TransferRequest const& request)
{
    auto const status = agent.submitTransferRequests(request);
#if HOST_AGE <= AGE_P0B
    status->wait();
#else
    auto const state = status->wait(-1);
    CHECK(state != TransferState::kIN_PROGRESS);
#if HOST_AGE == AGE_P1
    CHECK(state == TransferState::kSUCCESS); // failure would have thrown
#elif HOST_AGE == AGE_P2
    if (state == TransferState::kFAILURE)
    {
        throw std::runtime_error("kFAILURE");
    }
#else
    if (state == TransferState::kFAILURE)
    {
        auto const text = status->getLastStatusStr();
        CHECK(!text.empty());
        throw std::runtime_error(text);
    }
#endif
#endif
}

MemoryDescs of(MemoryType type, std::vector<char> const& buffer)
{
    return {type, {MemoryDesc(buffer.data(), buffer.size(), 0)}};
}

} // namespace

void badInput()
{
    auto const agent = createAgent("ctx0");
    auto const peer = createAgent("gen0");
    auto const source = pattern(kBytes, 1);
    std::vector<char> target(kBytes, 0), outside(kBytes, 0);
    agent->registerMemory(dram(source));
    peer->registerMemory(dram(target));

    expectError("register VRAM", "VRAM", [&] { agent->registerMemory(of(MemoryType::kVRAM, outside)); });
    expectError("register BLK", "BLK", [&] { agent->registerMemory(of(MemoryType::kBLK, outside)); });
    expectError("register OBJ", "OBJ", [&] { agent->registerMemory(of(MemoryType::kOBJ, outside)); });
    expectError("register an unknown kind", "memory type has the value 9",
        [&] { agent->registerMemory(of(static_cast<MemoryType>(9), outside)); });
    expectError("register nothing", "zero", [&] { agent->registerMemory(dram(outside, 0, 0)); });
    agent->deregisterMemory(of(static_cast<MemoryType>(9), outside)); // logged, never thrown

    expectError("load a malformed blob", "gen0", [&] { agent->loadRemoteAgent("gen0", AgentDesc("nonsense")); });
    auto const blob = peer->getLocalAgentDesc().getBackendAgentDesc();
    expectError("load half a blob", "gen0",
        [&] { agent->loadRemoteAgent("gen0", AgentDesc(blob.substr(0, blob.size() / 2))); });
    expectError("load nonsense for an address", "not-an-address",
        [&] { agent->loadRemoteAgent("gen0", std::string("not-an-address")); });
    expectError("load from nobody", "127.0.0.1:1", [&] { agent->loadRemoteAgent("gen0", std::string("127.0.0.1:1")); });
    expectError("load under a name that is not text", "UTF-8",
        [&] { agent->loadRemoteAgent("gen\xff", AgentDesc(blob)); });

    expectError("notify nobody", "nobody", [&] { agent->notifySyncMessage("nobody", "hello"); });
    expectError("transfer to nobody", "nobody",
        [&] { transfer(*agent, {TransferOp::kWRITE, dram(source), dram(target), "nobody"}); });
    agent->invalidateRemoteAgent("nobody"); // nothing to forget

    agent->loadRemoteAgent("gen0", AgentDesc(blob));
    auto const refuse = [&](char const* what, char const* part, MemoryDescs const& src, MemoryDescs const& dst)
    { expectError(what, part, [&] { transfer(*agent, {TransferOp::kWRITE, src, dst, "gen0"}); }); };
    refuse("write of zero length", "zero", dram(source, 0, 0), dram(target, 0, 0));
    refuse("write from outside", "is not inside one registered region", dram(outside), dram(target));
    refuse("write to outside", "gen0", dram(source), dram(outside));
    refuse("write past the end", "gen0", dram(source), dram(target, 1, kBytes));
    refuse("write of unequal lengths", "differ in length", dram(source), dram(target, 0, kBytes - 1));
    refuse("write that wraps", "address space", {MemoryType::kDRAM, {MemoryDesc(reinterpret_cast<void*>(~0ull - 7), 16, 0)}},
        dram(target, 0, 16));
    refuse("write to VRAM", "VRAM", dram(source), of(MemoryType::kVRAM, target));
    expectError("an operation of another version", "transfer operation has the value 7",
        [&] { transfer(*agent, {static_cast<TransferOp>(7), dram(source), dram(target), "gen0"}); });

    CHECK(target == std::vector<char>(kBytes, 0));
    CHECK(outside == std::vector<char>(kBytes, 0));

    agent->invalidateRemoteAgent("gen0");
    refuse("write after invalidate", "gen0", dram(source), dram(target));
}

void lostPeer()
{
    auto const agent = createAgent("ctx0");
    auto peer = createAgent("gen0");
    auto const source = pattern(kBytes, 1);
    std::vector<char> target(kBytes, 0);
    agent->registerMemory(dram(source));
    peer->registerMemory(dram(target));
    agent->loadRemoteAgent("gen0", peer->getLocalAgentDesc());
    peer.reset();
    expectError("write to a peer that is gone", HOST_AGE == AGE_P2 ? "" : "gen0",
        [&] { transfer(*agent, {TransferOp::kWRITE, dram(source), dram(target), "gen0"}); });
    CHECK(target == std::vector<char>(kBytes, 0));
}

} // namespace host
