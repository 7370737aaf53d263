// A panic in the engine itself, while it is driven: that agent ends, and the host and its other agents live.

#include "provoke.h"

#include <thread>

namespace panics
{

using namespace host;

namespace
{

constexpr char const* kFailed = "the engine of agent 'ctx0' failed: provoked while driving ctx0";

// Every call says the same, or what stands for it.
void expectFailed(Agents& agents)
{
    auto& agent = *agents.context;
    std::vector<char> const more(5000);
    expectError("submit", kFailed, [&] { agent.submitTransferRequests(agents.write()); });
    expectError("register", kFailed, [&] { agent.registerMemory(dram(more)); });
    expectError("load", kFailed, [&] { agent.loadRemoteAgent("gen0", agents.generation->getLocalAgentDesc()); });
    expectError("load", kFailed, [&] { agent.loadRemoteAgent("gen0", agents.generation->getLocalConnectionInfo()); });
    expectError("notify", kFailed, [&] { agent.notifySyncMessage("gen0", "word"); });
    expectError("take", kFailed, [&] { agent.getNotifiedSyncMessages(); });
    expectError("check", kFailed, [&] { agent.checkRemoteDescs("gen0", dram(agents.target)); });
    expectError("desc", kFailed, [&] { agent.getLocalAgentDesc(); });
    expectError("info", kFailed, [&] { agent.getLocalConnectionInfo(); });
    agent.invalidateRemoteAgent("gen0");
    agent.deregisterMemory(dram(more));
}

// The peer is told by closed sockets: its next word cannot be said.
void awaitLoss(BaseTransferAgent& agent, std::string const& peer)
{
    for (;;) // the alarm ends a program that hangs
    {
        try
        {
            agent.notifySyncMessage(peer, "word");
        }
        catch (std::runtime_error const& error)
        {
            std::printf("peer: %s\n", error.what());
            CHECK(std::string(error.what()).find(peer) != std::string::npos);
            return;
        }
        std::this_thread::yield();
    }
}

} // namespace

void engine()
{
    {
        Agents agents;
        agents.move();
        auto const bystander = createAgent("bystander");
        auto const status = agents.context->submitTransferRequests(agents.write());
        ask("while driving ctx0");
        auto const end = status->wait(-1);
        awaitLoss(*agents.generation, "ctx0");
        expectNoneLeft();
        CHECK(status->isCompleted());
        // It may have been over before: then it stays what it was.
        auto const text = status->getLastStatusStr();
        CHECK((end == TransferState::kSUCCESS) == text.empty());
        CHECK(text.empty() || text.find("the engine of this agent failed: provoked") != std::string::npos);
        CHECK(text.empty() ? status->release() : !status->release()); // over `local` the peer pulls by itself
        expectFailed(agents);
        agents.context->deregisterMemory(dram(agents.source));
        CHECK(logged().find("must not be used for anything else") != std::string::npos);
        bystander->loadRemoteAgent("gen0", agents.generation->getLocalAgentDesc());
        agents.context.reset();
    }
    Agents().move();
}

} // namespace panics
