// Seam S1: the C++ agent factory, called as TensorRT-LLM's AgentConnectionManager does.

#include "seam.h"

#include "transfer_agent.h"

#include <cstring>
#include <dlfcn.h>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <unistd.h>

namespace seams
{
namespace
{

using namespace tensorrt_llm::executor::kv_cache;

constexpr char const* kLibrary = "libtensorrt_llm_nixl_wrapper.so";
constexpr char const* kFactory = "createNixlTransferAgent";
constexpr char const* kHello = "hello";
constexpr char const* kAlive = "alive";
constexpr auto kSignOfLife = std::chrono::milliseconds(100);

// An agent's card: its address, a line break, its blob.
constexpr char kBreak = '\n';

MemoryDescs descsOf(Kind kind, std::vector<Span> const& spans)
{
    std::vector<MemoryDesc> descs;
    descs.reserve(spans.size());
    for (auto const& span : spans)
    {
        descs.emplace_back(span.addr, span.len, 0);
    }
    return {kind == Kind::kVram ? MemoryType::kVRAM : MemoryType::kDRAM, std::move(descs)};
}

std::string doneMessage(uint64_t id)
{
    return "done " + std::to_string(id);
}

class OutgoingS1 : public Outgoing
{
public:
    explicit OutgoingS1(std::unique_ptr<TransferStatus> status)
        : mStatus{std::move(status)}
    {
    }

    bool isOver() override
    {
        return mStatus->isCompleted();
    }

    State wait(int64_t timeout_ms) override
    {
        switch (mStatus->wait(timeout_ms))
        {
        case TransferState::kIN_PROGRESS: return State::kUnderWay;
        case TransferState::kSUCCESS: return State::kDone;
        case TransferState::kFAILURE: return State::kFailed;
        }
        throw std::runtime_error("wait() returned none of its three values");
    }

    bool cancel() override
    {
        return mStatus->release();
    }

    std::string error() override
    {
        return mStatus->getLastStatusStr();
    }

private:
    std::unique_ptr<TransferStatus> mStatus;
};

class SideS1 : public Side
{
public:
    explicit SideS1(std::unique_ptr<BaseTransferAgent> agent)
        : mAgent{std::move(agent)}
    {
    }

    void offer(Kind kind, std::vector<Span> const& spans) override
    {
        mAgent->registerMemory(descsOf(kind, spans));
    }

    void withdraw(Kind kind, std::vector<Span> const& spans) override
    {
        mAgent->deregisterMemory(descsOf(kind, spans));
    }

    std::string card() override
    {
        return mAgent->getLocalConnectionInfo() + kBreak + mAgent->getLocalAgentDesc().getBackendAgentDesc();
    }

    std::string cardOf(std::string const& address) override
    {
        return address + kBreak;
    }

    void reach(std::string const& peer, std::string const& card) override
    {
        auto const at = card.find(kBreak);
        auto const blob = at == std::string::npos ? card : card.substr(at + 1);
        if (blob.empty())
        {
            mAgent->loadRemoteAgent(peer, card.substr(0, at));
            return;
        }
        mAgent->loadRemoteAgent(peer, AgentDesc(blob));
    }

    void greet(std::string const& peer, std::string const& card) override
    {
        mAgent->loadRemoteAgent(peer, card.substr(0, card.find(kBreak)));
        introduce(peer);
    }

    void introduce(std::string const& peer) override
    {
        static std::atomic<uint64_t> count{0};
        auto const number = std::to_string(getpid()) + "." + std::to_string(++count);
        mAgent->notifySyncMessage(peer, std::string(kHello) + " " + number);
    }

    void hear(std::string const& peer, std::atomic<bool> const& abandoned) override
    {
        awaitMessage(peer, kHello, [&] { return abandoned.load(); });
    }

    void welcome(std::string const& peer, std::string const& card, Deadline deadline) override
    {
        awaitMessage(peer, kHello, [&] { return std::chrono::steady_clock::now() > deadline; });
        mAgent->invalidateRemoteAgent(peer);
        reach(peer, card);
    }

    void forget(std::string const& peer) override
    {
        mAgent->invalidateRemoteAgent(peer);
    }

    std::unique_ptr<Outgoing> send(Shipment const& shipment) override
    {
        auto const message
            = shipment.withMessage ? std::optional<std::string>(doneMessage(shipment.id)) : std::nullopt;
        TransferRequest const request(shipment.isRead ? TransferOp::kREAD : TransferOp::kWRITE,
            descsOf(shipment.oursAre, shipment.ours), descsOf(shipment.theirsAre, shipment.theirs), shipment.peer,
            message);
        return std::make_unique<OutgoingS1>(mAgent->submitTransferRequests(request));
    }

    void confirm(std::string const& peer, uint64_t id) override
    {
        mAgent->notifySyncMessage(peer, doneMessage(id));
    }

    // A host that waits gives its peer signs of life: the call tells it when the peer is gone.
    void receive(std::string const& peer, uint64_t id, std::vector<Span> const&,
        std::atomic<bool> const& abandoned) override
    {
        auto next = std::chrono::steady_clock::now();
        awaitMessage(peer, doneMessage(id),
            [&]
            {
                if (auto const now = std::chrono::steady_clock::now(); now >= next)
                {
                    mAgent->notifySyncMessage(peer, kAlive);
                    next = now + kSignOfLife;
                }
                return abandoned.load();
            });
    }

    void shutdown() override
    {
        throw std::logic_error("S1 has no call that shuts an agent down");
    }

private:
    // Takes messages until `wanted` from `peer` is among them, for all threads that wait at once, or until
    // `isGivenUp`.
    template <typename IsGivenUp>
    void awaitMessage(std::string const& peer, std::string const& wanted, IsGivenUp&& isGivenUp)
    {
        for (;;)
        {
            {
                std::lock_guard const lock(mMutex);
                for (auto const& [sender, messages] : mAgent->getNotifiedSyncMessages())
                {
                    for (auto const& message : messages)
                    {
                        keep(sender, message);
                    }
                }
                if (mMessages.erase({peer, wanted}) != 0)
                {
                    return;
                }
            }
            if (isGivenUp())
            {
                throw std::runtime_error("given up: no message '" + wanted + "' from '" + peer + "'");
            }
            std::this_thread::yield();
        }
    }

    // Signs of life may repeat. A peer that has started anew introduces itself again, under another number; nothing
    // else may.
    void keep(std::string const& sender, std::string const& message)
    {
        bool const isHello = message.rfind(kHello, 0) == 0;
        auto& seen = isHello ? mHellos : mMessages;
        if (!seen.insert({sender, message}).second && message != kAlive)
        {
            throw std::runtime_error("message '" + message + "' of '" + sender + "' came twice");
        }
        if (isHello)
        {
            mMessages.insert({sender, kHello});
        }
    }

    std::unique_ptr<BaseTransferAgent> mAgent;
    std::mutex mMutex;
    std::set<std::pair<std::string, std::string>> mMessages;
    std::set<std::pair<std::string, std::string>> mHellos;
};

class SeamS1 : public Seam
{
public:
    char const* name() const override
    {
        return "s1";
    }

    bool isTwoSided() const override
    {
        return false;
    }

    std::string lacks(Scenario const& scenario) const override
    {
        if (scenario.text("step") == "receive-shorter" || scenario.text("step") == "abandoned")
        {
            return "the receiver takes no part in a transfer";
        }
        if (scenario.text("step") == "use-after-shutdown")
        {
            return "no call shuts an agent down but its destructor";
        }
        // What it gets instead: refusal.send-zero, refusal.send-nothing.
        return scenario.text("bytes") == "0" ? "a transfer of no bytes is an error" : "";
    }

    std::unique_ptr<Side> makeSide(std::string const& name) override
    {
        open();
        auto const factory = reinterpret_cast<CreateTransferAgent>(::dlsym(mHandle, kFactory));
        if (factory == nullptr)
        {
            throw std::runtime_error(std::string(kLibrary) + " has no " + kFactory);
        }
        // The host's config lives for the call alone, and its memory holds something else right after.
        alignas(BaseAgentConfig) unsigned char room[sizeof(BaseAgentConfig)];
        auto* const config = new (room) BaseAgentConfig{name, true, false, true, false, {}, {}, {}, 0, {}};
        struct Gone
        {
            BaseAgentConfig* config;

            ~Gone()
            {
                config->~BaseAgentConfig();
                std::memset(static_cast<void*>(config), 0xDB, sizeof(*config));
            }
        };
        std::unique_ptr<BaseTransferAgent> agent;
        {
            Gone const gone{config};
            agent = factory(config);
        }
        return std::make_unique<SideS1>(std::move(agent));
    }

    void closeLibrary() override
    {
        if (mHandle != nullptr && ::dlclose(std::exchange(mHandle, nullptr)) != 0)
        {
            throw std::runtime_error(std::string("dlclose: ") + ::dlerror());
        }
    }

private:
    void open()
    {
        mHandle = mHandle != nullptr ? mHandle : ::dlopen(kLibrary, RTLD_LAZY);
        if (mHandle == nullptr)
        {
            throw std::runtime_error(::dlerror());
        }
    }

    void* mHandle = nullptr;
};

} // namespace

std::unique_ptr<Seam> makeSeamS1()
{
    return std::make_unique<SeamS1>();
}

} // namespace seams
