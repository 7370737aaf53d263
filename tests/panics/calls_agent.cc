// Panics in the calls on an agent.

#include "provoke.h"

namespace panics
{
namespace
{

using namespace host;

// S2's class, which alone has a call that shuts an agent down, in storage as the host's compiler makes it.
class DirectAgent
{
public:
    explicit DirectAgent(std::string const& name)
    {
        auto const config = configFor(name);
        slot<void (*)(void*, BaseAgentConfig const*)>("C1ERKNS1_15BaseAgentConfigE")(mStorage, &config);
    }

    ~DirectAgent()
    {
        slot<void (*)(void*)>("D1Ev")(mStorage);
    }

    DirectAgent(DirectAgent const&) = delete;
    DirectAgent& operator=(DirectAgent const&) = delete;

    void shutdown()
    {
        slot<void (*)(void*)>("8shutdownEv")(mStorage);
    }

    BaseTransferAgent& operator*()
    {
        return *reinterpret_cast<BaseTransferAgent*>(mStorage);
    }

private:
    template <typename Function>
    static Function slot(std::string const& name)
    {
        auto const symbol = "_ZN12tensorrt_llm8executor8kv_cache17NixlTransferAgent" + name;
        auto const found = reinterpret_cast<Function>(::dlsym(openLibrary(kNixl), symbol.c_str()));
        CHECK(found != nullptr);
        return found;
    }

    alignas(16) unsigned char mStorage[1024] = {};
};

std::vector<std::string> await(BaseTransferAgent& agent, std::string const& from, std::string const& wanted)
{
    std::vector<std::string> messages;
    while (messages.empty() || messages.back() != wanted) // the alarm ends a program that hangs
    {
        auto const taken = agent.getNotifiedSyncMessages();
        if (auto const ofPeer = taken.find(from); ofPeer != taken.end())
        {
            messages.insert(messages.end(), ofPeer->second.begin(), ofPeer->second.end());
        }
    }
    return messages;
}

void makeAndEnd(Cases& cases)
{
    auto const make = [](Provocation const& provoked, Agents&)
    {
        provoked.throws([] { createAgent("made"); });
        createAgent("made");
    };
    cases["HostAge"] = make;
    cases["OpenAgent"] = make;
    cases["CloseAgent"] = [](Provocation const& provoked, Agents& agents)
    {
        auto agent = createAgent("ended");
        agent->loadRemoteAgent("gen0", agents.generation->getLocalAgentDesc());
        provoked.logs([&] { agent.reset(); });
        createAgent("ended").reset();
    };
    cases["ShutDown"] = [](Provocation const& provoked, Agents&)
    {
        DirectAgent agent("direct");
        provoked.logs([&] { agent.shutdown(); });
        agent.shutdown();
        expectError("after shutdown", "has been shut down", [&] { (*agent).getLocalAgentDesc(); });
    };
    // The log of a failure may fail itself.
    cases["LogError"] = [](Provocation const& provoked, Agents& agents)
    {
        auto const nowhere = MemoryDescs{MemoryType::kDRAM, {}};
        ask("before DeregisterMemory");
        ask(provoked.place);
        agents.context->deregisterMemory(nowhere);
        expectNoneLeft();
        agents.context->deregisterMemory(nowhere);
    };
}

void memory(Cases& cases)
{
    cases["RegisterMemory"] = [](Provocation const& provoked, Agents& agents)
    {
        std::vector<char> const more(5000);
        provoked.throws([&] { agents.context->registerMemory(dram(more)); });
        agents.context->registerMemory(dram(more));
        agents.context->deregisterMemory(dram(more));
        agents.context->deregisterMemory(dram(more)); // where the panic came after, there are two
    };
    cases["DeregisterMemory"] = [](Provocation const& provoked, Agents& agents)
    {
        std::vector<char> const more(5000);
        agents.context->registerMemory(dram(more));
        provoked.logs([&] { agents.context->deregisterMemory(dram(more)); });
        agents.context->deregisterMemory(dram(more));
        while (agents.generation->checkRemoteDescs("ctx0", dram(more)))
        {
            // The peer hears of it; the alarm ends a program where it does not.
        }
    };
}

void peers(Cases& cases)
{
    cases["LoadFromBlob"] = [](Provocation const& provoked, Agents& agents)
    {
        auto const load = [&] { agents.context->loadRemoteAgent("gen0", agents.generation->getLocalAgentDesc()); };
        agents.context->invalidateRemoteAgent("gen0");
        provoked.throws(load);
        load();
    };
    cases["LoadFromConnectionInfo"] = [](Provocation const& provoked, Agents& agents)
    {
        auto const load = [&] { agents.context->loadRemoteAgent("gen0", agents.generation->getLocalConnectionInfo()); };
        agents.context->invalidateRemoteAgent("gen0");
        provoked.throws(load);
        load();
    };
    cases["Invalidate"] = [](Provocation const& provoked, Agents& agents)
    {
        provoked.throws([&] { agents.context->invalidateRemoteAgent("gen0"); });
        agents.context->invalidateRemoteAgent("gen0");
        expectError("after invalidation", "gen0", [&] { agents.context->submitTransferRequests(agents.write()); });
        agents.context->loadRemoteAgent("gen0", agents.generation->getLocalAgentDesc());
    };
    cases["LocalBlob"] = [](Provocation const& provoked, Agents& agents)
    {
        provoked.throws([&] { agents.generation->getLocalAgentDesc(); });
        agents.context->loadRemoteAgent("gen0", agents.generation->getLocalAgentDesc());
    };
    cases["VramRegions"] = [](Provocation const& provoked, Agents& agents)
    {
        provoked.throws([&] { agents.generation->getLocalAgentDesc(); });
        agents.context->loadRemoteAgent("gen0", agents.generation->getLocalAgentDesc());
    };
    cases["ConnectionInfo"] = [](Provocation const& provoked, Agents& agents)
    {
        provoked.throws([&] { agents.generation->getLocalConnectionInfo(); });
        agents.context->loadRemoteAgent("gen0", agents.generation->getLocalConnectionInfo());
    };
    cases["CheckRemote"] = [](Provocation const& provoked, Agents& agents)
    {
        provoked.throws([&] { agents.context->checkRemoteDescs("gen0", dram(agents.target)); });
        CHECK(agents.context->checkRemoteDescs("gen0", dram(agents.target)));
    };
}

void messages(Cases& cases)
{
    cases["Notify"] = [](Provocation const& provoked, Agents& agents)
    {
        provoked.throws([&] { agents.context->notifySyncMessage("gen0", "first"); });
        agents.context->notifySyncMessage("gen0", "second");
        auto const came = await(*agents.generation, "ctx0", "second");
        CHECK(came.size() == (provoked.isAfter ? 2 : 1));
    };
    cases["TakeNotifications"] = [](Provocation const& provoked, Agents& agents)
    {
        provoked.throws([&] { agents.generation->getNotifiedSyncMessages(); });
        agents.context->notifySyncMessage("gen0", "word");
        CHECK(await(*agents.generation, "ctx0", "word").size() == 1);
    };
}

} // namespace

void addAgentCalls(Cases& cases)
{
    makeAndEnd(cases);
    memory(cases);
    peers(cases);
    messages(cases);
}

} // namespace panics
