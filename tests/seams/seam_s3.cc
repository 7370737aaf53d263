// Seam S3: the UCX connection manager, called as TensorRT-LLM's C++ transceiver does. The receiver asks for a
// connection and introduces itself, the sender takes it in; a piece is a message, and a shipment's id is its tag.

#include "seam.h"

#include "connection_manager.h"

#include <array>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <future>
#include <map>
#include <mutex>
#include <stdexcept>

namespace seams
{
namespace
{

using namespace tensorrt_llm::executor::kv_cache;

constexpr char const* kLibrary = "libtensorrt_llm_ucx_wrapper.so";
constexpr char const* kFactory = "makeUcxConnectionManager";

// The tag of introductions; ids of shipments lie above.
constexpr int kIntroduction = 0;
// A message has the length that both sides know.
using Introduction = std::array<char, 64>;

// A card is "ip port"; an empty one is a state that no manager made.
std::string cardOf(CommState const& state)
{
    auto const& own = state.getSocketState().at(static_cast<size_t>(state.getSelfIdx()));
    return own.mIp + " " + std::to_string(own.mPort);
}

CommState stateOf(std::string const& card)
{
    auto const at = card.find(' ');
    if (at == std::string::npos)
    {
        return {};
    }
    return CommState(std::vector<SocketState>{{static_cast<uint16_t>(std::stoi(card.substr(at))), card.substr(0, at)}}, 0);
}

// A shipment's messages, sent by a thread of its own, as TensorRT-LLM's send workers do. The manager outlives the
// thread: whoever destroys a manager ends its workers before, by their flags.
class Work
{
public:
    Work(Connection const& connection, int tag, std::vector<Span> const& pieces)
        : mError{std::async(std::launch::async, [&connection, tag, pieces, this] { return run(connection, tag, pieces); })}
    {
    }

    ~Work()
    {
        terminate();
    }

    Work(Work const&) = delete;
    Work& operator=(Work const&) = delete;

    // Whether it was over in time.
    bool terminate()
    {
        mTerminate = true;
        return mError.wait_until(patience()) == std::future_status::ready;
    }

    std::shared_future<std::string> const& error() const
    {
        return mError;
    }

private:
    std::string run(Connection const& connection, int tag, std::vector<Span> const& pieces) const
    {
        try
        {
            DataContext const context(tag, mTerminate);
            for (auto const& piece : pieces)
            {
                connection.send(context, reinterpret_cast<void const*>(piece.addr), piece.len);
            }
            return {};
        }
        catch (std::runtime_error const& error)
        {
            return error.what();
        }
    }

    std::atomic<bool> mTerminate{false};
    std::shared_future<std::string> mError; // empty: it succeeded
};

class OutgoingS3 : public Outgoing
{
public:
    explicit OutgoingS3(std::shared_ptr<Work> work)
        : mWork{std::move(work)}
    {
    }

    ~OutgoingS3() override
    {
        mWork->terminate();
    }

    bool isOver() override
    {
        return mWork->error().wait_for(std::chrono::seconds(0)) == std::future_status::ready;
    }

    State wait(int64_t timeout_ms) override
    {
        if (timeout_ms < 0)
        {
            mWork->error().wait();
        }
        else if (mWork->error().wait_for(std::chrono::milliseconds(timeout_ms)) != std::future_status::ready)
        {
            return State::kUnderWay;
        }
        return mWork->error().get().empty() ? State::kDone : State::kFailed;
    }

    // A send that has returned is done with its memory.
    bool cancel() override
    {
        return mWork->terminate();
    }

    std::string error() override
    {
        return isOver() ? mWork->error().get() : std::string();
    }

private:
    std::shared_ptr<Work> mWork;
};

class SideS3 : public Side
{
public:
    SideS3(std::string name, std::unique_ptr<ConnectionManager> manager)
        : mName{std::move(name)}
        , mManager{std::move(manager)}
    {
    }

    ~SideS3() override
    {
        for (auto const& entry : mWorks)
        {
            if (auto const work = entry.lock())
            {
                work->terminate();
            }
        }
    }

    void offer(Kind, std::vector<Span> const&) override {}

    void withdraw(Kind, std::vector<Span> const&) override {}

    std::string card() override
    {
        return seams::cardOf(mManager->getCommState());
    }

    std::string cardOf(std::string const& address) override
    {
        auto const at = address.rfind(':');
        return address.substr(0, at) + " " + address.substr(at + 1);
    }

    void reach(std::string const& peer, std::string const& card) override
    {
        auto const connections = mManager->getConnections(stateOf(card));
        if (connections.size() != 1 || connections.front() == nullptr)
        {
            throw std::runtime_error("getConnections: not one connection for one rank");
        }
        keep(peer, *connections.front());
    }

    void greet(std::string const& peer, std::string const& card) override
    {
        reach(peer, card);
        introduce(peer);
    }

    void introduce(std::string const& peer) override
    {
        Introduction introduction{};
        std::snprintf(introduction.data(), introduction.size(), "%s", mName.c_str());
        connectionTo(peer).send(DataContext(kIntroduction), introduction.data(), introduction.size());
    }

    // The deadline is the watchdog's: the host waits for whoever comes.
    void welcome(std::string const& peer, std::string const&, Deadline) override
    {
        std::atomic<bool> const isNever{false};
        hear(peer, isNever);
    }

    void hear(std::string const& peer, std::atomic<bool> const& abandoned) override
    {
        for (;;)
        {
            Introduction introduction{};
            auto const* const connection = mManager->recvConnect(
                DataContext(kIntroduction, abandoned), introduction.data(), introduction.size());
            if (connection == nullptr)
            {
                throw std::runtime_error(abandoned
                        ? "given up: nobody introduced itself as '" + peer + "'"
                        : "recvConnect returned no connection, and nobody had cancelled it");
            }
            std::string const name(introduction.data());
            keep(name, *connection);
            if (name == peer)
            {
                return;
            }
        }
    }

    void forget(std::string const&) override
    {
        throw std::logic_error("S3 forgets no connection");
    }

    std::unique_ptr<Outgoing> send(Shipment const& shipment) override
    {
        auto const& connection = connectionTo(shipment.peer);
        auto const work = std::make_shared<Work>(connection, static_cast<int>(shipment.id), shipment.ours);
        std::lock_guard const lock(mMutex);
        mWorks.push_back(work);
        return std::make_unique<OutgoingS3>(work);
    }

    void confirm(std::string const&, uint64_t) override {}

    void receive(std::string const& peer, uint64_t id, std::vector<Span> const& pieces,
        std::atomic<bool> const& abandoned) override
    {
        DataContext const context(static_cast<int>(id), abandoned);
        auto const& connection = connectionTo(peer);
        for (auto const& piece : pieces)
        {
            connection.recv(context, reinterpret_cast<void*>(piece.addr), piece.len);
        }
    }

    void shutdown() override
    {
        throw std::logic_error("S3 has no call that shuts a manager down");
    }

private:
    void keep(std::string const& peer, Connection const& connection)
    {
        std::lock_guard const lock(mMutex);
        mConnections[peer] = &connection;
    }

    Connection const& connectionTo(std::string const& peer)
    {
        std::lock_guard const lock(mMutex);
        return *mConnections.at(peer);
    }

    std::string mName;
    std::unique_ptr<ConnectionManager> mManager;
    std::mutex mMutex; // what follows
    std::map<std::string, Connection const*> mConnections; // the manager's
    std::vector<std::weak_ptr<Work>> mWorks;
};

class SeamS3 : public Seam
{
public:
    char const* name() const override
    {
        return "s3";
    }

    bool isTwoSided() const override
    {
        return true;
    }

    std::string lacks(Scenario const& scenario) const override
    {
        static std::map<std::string, std::string> const kSteps{
            {"make-name", "the manager names itself"},
            {"offer-zero", "memory is not registered"},
            {"offer-wrap", "memory is not registered"},
            {"offer-vram", "memory is not registered"},
            {"withdraw-unknown", "memory is not registered"},
            {"reach-garbage", "what leads to a peer is a CommState, not bytes"},
            {"reach-truncated", "what leads to a peer is a CommState, not bytes"},
            {"reach-other-name", "a CommState has no names"},
            {"send-source", "memory is not registered"},
            {"send-destination", "a send does not name the peer's memory"},
            {"send-past-the-end", "a send does not name the peer's memory"},
            {"send-lengths", "a send does not name the peer's memory"},
            {"send-counts", "a send does not name the peer's memory"},
            {"send-zero", "a message may be empty: move.0"},
            {"send-nothing", "a send is one message"},
            {"send-wrap", "a send does not name the peer's memory"},
            {"send-nobody", "a connection is what the library gave"},
            {"send-forgotten", "connections are not forgotten"},
            {"send-withdrawn", "memory is not registered"},
            {"confirm-nobody", "nothing follows a message"},
            {"confirm-forgotten", "nothing follows a message"},
            {"confirm-dead", "nothing follows a message"},
            {"use-after-shutdown", "no call shuts a manager down but its destructor"},
            {"source-withdrawn", "memory is not registered"},
            {"destination-withdrawn", "memory is not registered"},
            {"forgotten", "connections are not forgotten"},
        };
        auto const step = kSteps.find(scenario.text("step"));
        if (step != kSteps.end())
        {
            return step->second;
        }
        if (scenario.text("op") == "read")
        {
            return "nobody reads from a peer";
        }
        if (scenario.text("message") == "with")
        {
            return "a message has no second one with it";
        }
        return {};
    }

    std::unique_ptr<Side> makeSide(std::string const& name) override
    {
        mHandle = mHandle != nullptr ? mHandle : ::dlopen(kLibrary, RTLD_LAZY);
        if (mHandle == nullptr)
        {
            throw std::runtime_error(::dlerror());
        }
        auto const factory = reinterpret_cast<MakeConnectionManager>(::dlsym(mHandle, kFactory));
        if (factory == nullptr)
        {
            throw std::runtime_error(std::string(kLibrary) + " has no " + kFactory);
        }
        return std::make_unique<SideS3>(name, factory());
    }

    void closeLibrary() override
    {
        if (mHandle != nullptr && ::dlclose(std::exchange(mHandle, nullptr)) != 0)
        {
            throw std::runtime_error(std::string("dlclose: ") + ::dlerror());
        }
    }

private:
    void* mHandle = nullptr;
};

} // namespace

std::unique_ptr<Seam> makeSeamS3()
{
    return std::make_unique<SeamS3>();
}

} // namespace seams
