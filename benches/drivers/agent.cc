// Baton through seam S1: the library is opened by its bare name and called as TensorRT-LLM calls it.

#include "driver.h"

#include "transfer_agent.h"

#include <atomic>
#include <dlfcn.h>
#include <memory>
#include <thread>

namespace bench
{
namespace
{

using namespace tensorrt_llm::executor::kv_cache;

constexpr char const* kLibrary = "libtensorrt_llm_nixl_wrapper.so";
constexpr char const* kFactory = "createNixlTransferAgent";
constexpr char const* kQuestion = "?";
constexpr char const* kAnswer = "!";

class AgentDriver : public Driver
{
public:
    std::string open(std::string const& name, Buffer& memory, uint64_t& registerNs) override
    {
        static auto const factory = findFactory();
        BaseAgentConfig const config{name, true, false, true, false, {}, {}, {}, 0, {}};
        auto agent = factory(&config);
        if (mAgents.empty())
        {
            auto const begin = Clock::now();
            agent->registerMemory({MemoryType::kDRAM, {MemoryDesc(memory.address(), memory.size(), 0)}});
            registerNs = nanosecondsSince(begin);
        }
        auto card = agent->getLocalAgentDesc().getBackendAgentDesc();
        mAgents.emplace_back(name, std::move(agent));
        return card;
    }

    void meet(std::string const& ours, std::string const& theirs, std::string const& card) override
    {
        find(ours).loadRemoteAgent(theirs, AgentDesc(card));
        if (mPeer.empty())
        {
            mPeer = theirs;
        }
    }

    void prepare(Cell const& cell, uint64_t local, uint64_t remote) override
    {
        mMove = requestFor(cell, local, remote, {});
        mPing = requestFor(cell, local, remote, kQuestion);
    }

    void post() override
    {
        mStatus = first().submitTransferRequests(*mMove);
    }

    void wait() override
    {
        expectSuccess(*mStatus);
        mStatus.reset();
    }

    void ping() override
    {
        auto const status = first().submitTransferRequests(*mPing);
        awaitAnswer();
        expectSuccess(*status);
    }

    void note() override
    {
        first().notifySyncMessage(mPeer, kQuestion);
        awaitAnswer();
    }

    std::vector<uint64_t> beside(Cell const& cell, uint64_t local, uint64_t remote, uint64_t count) override
    {
        auto const small = requestFor(cell, local, remote, {});
        std::atomic<bool> isOver{false};
        std::exception_ptr problem;
        std::thread bulk(
            [&]
            {
                try
                {
                    while (!isOver)
                    {
                        expectSuccess(*first().submitTransferRequests(*mMove));
                    }
                }
                catch (...)
                {
                    problem = std::current_exception();
                }
            });
        std::vector<uint64_t> times;
        for (uint64_t turn = 0; turn < count && !problem; ++turn)
        {
            auto const begin = Clock::now();
            expectSuccess(*first().submitTransferRequests(*small));
            times.push_back(nanosecondsSince(begin));
        }
        isOver = true;
        bulk.join();
        if (problem)
        {
            std::rethrow_exception(problem);
        }
        return times;
    }

    void serve() override
    {
        for (auto const& [peer, messages] : first().getNotifiedSyncMessages())
        {
            for (auto const& message : messages)
            {
                if (message == kQuestion)
                {
                    first().notifySyncMessage(peer, kAnswer);
                }
            }
        }
    }

    void close() override
    {
        mStatus.reset();
        mAgents.clear();
    }

private:
    static CreateTransferAgent findFactory()
    {
        void* const library = ::dlopen(kLibrary, RTLD_LAZY);
        if (library == nullptr)
        {
            throw Failed(::dlerror());
        }
        auto const factory = reinterpret_cast<CreateTransferAgent>(::dlsym(library, kFactory));
        if (factory == nullptr)
        {
            throw Failed(std::string(kLibrary) + " has no " + kFactory);
        }
        return factory;
    }

    [[nodiscard]] std::unique_ptr<TransferRequest> requestFor(
        Cell const& cell, uint64_t local, uint64_t remote, std::optional<std::string> const& message) const
    {
        std::vector<MemoryDesc> sources, destinations;
        sources.reserve(cell.pieces.size());
        destinations.reserve(cell.pieces.size());
        for (auto const& piece : cell.pieces)
        {
            sources.emplace_back(local + piece.source, piece.bytes, 0);
            destinations.emplace_back(remote + piece.destination, piece.bytes, 0);
        }
        return std::make_unique<TransferRequest>(TransferOp::kWRITE,
            TransferDescs(MemoryType::kDRAM, std::move(sources)),
            TransferDescs(MemoryType::kDRAM, std::move(destinations)), mPeer, message);
    }

    static void expectSuccess(TransferStatus const& status)
    {
        if (status.wait(-1) != TransferState::kSUCCESS)
        {
            throw Failed(const_cast<TransferStatus&>(status).getLastStatusStr());
        }
    }

    void awaitAnswer()
    {
        constexpr auto kPatience = std::chrono::seconds(10);
        auto const deadline = Clock::now() + kPatience;
        for (;;)
        {
            for (auto const& [peer, messages] : first().getNotifiedSyncMessages())
            {
                if (!messages.empty() && messages.back() == kAnswer)
                {
                    return;
                }
            }
            if (Clock::now() > deadline)
            {
                throw Failed("no answer from " + mPeer + " in 10 s");
            }
        }
    }

    BaseTransferAgent& first()
    {
        return *mAgents.at(0).second;
    }

    BaseTransferAgent& find(std::string const& name)
    {
        for (auto& [known, agent] : mAgents)
        {
            if (known == name)
            {
                return *agent;
            }
        }
        throw Failed("no agent '" + name + "'");
    }

    std::vector<std::pair<std::string, std::unique_ptr<BaseTransferAgent>>> mAgents;
    std::string mPeer;
    std::unique_ptr<TransferRequest> mMove;
    std::unique_ptr<TransferRequest> mPing;
    std::unique_ptr<TransferStatus> mStatus;
};

} // namespace
} // namespace bench

int main()
{
    bench::AgentDriver driver;
    return bench::run(driver);
}
