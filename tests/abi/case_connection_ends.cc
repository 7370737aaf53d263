// How connections end: by a refusal, by a peer that goes, by the host that closes the library first or cancels.

#include "connections.h"

#include <unistd.h>

#include <exception>
#include <fstream>

namespace host
{
namespace
{

constexpr int kTag = (1 << 8) | 43;
constexpr size_t kLong = 1 << 20;

// The thread that a call is made on, as the system knows it.
class Caller
{
public:
    // On that thread, right before the call.
    void begin()
    {
        mThread = ::gettid();
    }

    // Returns once the call waits: its thread has begun, and sleeps. Or once the thread has ended.
    void awaitSleep() const
    {
        while (mThread == 0)
        {
            std::this_thread::yield();
        }
        std::string const path = "/proc/self/task/" + std::to_string(mThread.load()) + "/stat";
        std::string stat;
        while (std::getline(std::ifstream(path), stat, '\0'))
        {
            auto const name = stat.rfind(')');
            if (name != std::string::npos && stat.compare(name, 3, ") S") == 0)
            {
                return;
            }
            std::this_thread::yield();
        }
    }

private:
    std::atomic<pid_t> mThread{0};
};

// What a call on another thread throws; empty if nothing. Joined when asked for.
template <typename Call>
class Failing
{
public:
    explicit Failing(Call call)
        : mThread(
              [this, call = std::move(call)]
              {
                  mCaller.begin();
                  try
                  {
                      call();
                  }
                  catch (std::runtime_error const& error)
                  {
                      mText = error.what();
                  }
              })
    {
    }

    ~Failing()
    {
        CHECK(!mThread.joinable());
    }

    void awaitSleep() const
    {
        mCaller.awaitSleep();
    }

    std::string text()
    {
        mThread.join();
        std::printf("%s\n", mText.c_str());
        return mText;
    }

private:
    Caller mCaller;
    std::string mText;
    std::thread mThread;
};

bool contains(std::string const& text, char const* part)
{
    return text.find(part) != std::string::npos;
}

} // namespace

void connectionInput()
{
    auto const manager = createManager();
    auto const refuse = [&](char const* what, char const* part, CommState const& state)
    { expectError(what, part, [&] { (void) manager->getConnections(state); }); };
    refuse("no state", "holds no sockets", CommState());
    refuse("the state of MPI", "holds no sockets", CommState(std::vector<int>{0, 1}, 0));
    refuse("the state of agents", "set backend: UCX on both sides",
        CommState(std::vector<AgentState>{{"ctx0", "127.0.0.1:1"}}, 0));
    refuse("nobody there", "127.0.0.1:1", CommState(std::vector<SocketState>{{1, "127.0.0.1"}}, 0));
    refuse("no address", "not-an-ip", CommState(std::vector<SocketState>{{1, "not-an-ip"}}, 0));
    refuse("oneself", "this rank itself", CommState(manager->getCommState().getSocketState(), 0));
    CHECK(manager->getConnections(CommState(std::vector<SocketState>{}, 0)).empty());

    // Lengths that differ: an error on each side that can know it, and no byte written.
    auto const peer = createManager();
    auto const [requester, acceptor] = connect(*peer, *manager);
    std::vector<char> buffer(kLong, 0x11);
    send(*requester, kTag, pattern(5, 1));
    auto const differ = "the sender sends 5 bytes, the receiver expects 7";
    expectError("a short message of another length", differ,
        [&, from = acceptor] { from->recv(Context(kTag), buffer.data(), 7); });
    Failing sender([to = requester] { send(*to, kTag, pattern(kLong / 2, 1)); });
    expectError("a long message of another length", "the sender sends 524288 bytes, the receiver expects 1048576",
        [&, from = acceptor] { from->recv(Context(kTag), buffer.data(), buffer.size()); });
    CHECK(contains(sender.text(), "the two sides do not agree on the layout of the KV cache"));
    CHECK(buffer == std::vector<char>(kLong, 0x11));

    // And the connection goes on.
    auto const next = pattern(kLong, 2);
    Sending const sending(*requester, kTag, next);
    CHECK(receive(*acceptor, kTag, next.size()) == next);
}

// TensorRT-LLM closes the library before its manager dies, and lets go of the two sides in any order.
void connectionEnds()
{
    for (bool const requesterFirst : {true, false})
    {
        void* const library = openLibrary(kUcx);
        auto context = createManager(library);
        auto generation = createManager(library);
        auto const [requester, acceptor] = connect(*generation, *context);
        auto const* const left = requesterFirst ? acceptor : requester;
        CHECK(::dlclose(library) == 0);
        auto const bytes = pattern(kLong, 1);
        {
            Sending const sending(*requester, kTag, bytes);
            CHECK(receive(*acceptor, kTag, bytes.size()) == bytes);
        }

        std::vector<char> buffer(kLong);
        Failing waiting([&, left] { left->recv(Context(kTag), buffer.data(), buffer.size()); });
        (requesterFirst ? generation : context).reset();
        CHECK(contains(waiting.text(), "the connection is lost"));
        expectError("send to a peer that is gone", "the connection is lost", [&] { send(*left, kTag, bytes); });
#if HOST_AGE >= AGE_P4
        CHECK((requesterFirst ? context : generation)->isRunning());
#endif
        // Who is left goes on: with somebody new, and to its own end.
        auto const& survivor = requesterFirst ? context : generation;
        auto const third = createManager();
        auto const [newcomer, met] = connect(*third, *survivor);
        send(*newcomer, kTag, pattern(64, 2));
        CHECK(receive(*met, kTag, 64) == pattern(64, 2));
    }
    CHECK(::dlopen(kUcx, RTLD_LAZY | RTLD_NOLOAD) != nullptr); // it stays, whoever has closed it
}

#if HOST_AGE >= AGE_P4

// The terminate flag ends each kind of wait; what it ended does not touch its memory later.
void connectionCancel()
{
    auto const context = createManager();
    auto const generation = createManager();
    auto const [requester, acceptor] = connect(*generation, *context);

    // Set before, and set while waiting: nobody comes, and that is no error.
    std::atomic<bool> set{true};
    uint64_t id = 7;
    CHECK(context->recvConnect(Context(19, set), &id, sizeof(id)) == nullptr);
    std::atomic<bool> late{false};
    Connection const* accepted = requester;
    Caller caller;
    std::thread accepting(
        [&]
        {
            caller.begin();
            accepted = context->recvConnect(Context(19, late), &id, sizeof(id));
        });
    caller.awaitSleep();
    late = true;
    accepting.join();
    CHECK(accepted == nullptr && id == 7);

    // A receive whose buffer the peer knows: a message that comes after it goes to the next one.
    std::vector<char> abandoned(kLong, 0x22);
    std::atomic<bool> cancelled{false};
    Failing receiving([&, from = acceptor]
        { from->recv(Context(kTag, cancelled), abandoned.data(), abandoned.size()); });
    receiving.awaitSleep();
    cancelled = true;
    CHECK(contains(receiving.text(), "cancelled by its host"));
    auto const bytes = pattern(kLong, 3);
    {
        Sending const sending(*requester, kTag, bytes);
        CHECK(receive(*acceptor, kTag, bytes.size()) == bytes);
    }
    CHECK(abandoned == std::vector<char>(kLong, 0x22));

    // A send that nobody has received. A receive that meets it before it is taken back would learn that; one that comes
    // later gets the next message. What is said after it says that it has been taken back.
    std::atomic<bool> taken{false};
    Failing sending([&, to = requester] { to->send(Context(kTag, taken), abandoned.data(), abandoned.size()); });
    sending.awaitSleep();
    taken = true;
    CHECK(contains(sending.text(), "cancelled by its host"));
    send(*requester, kTag + 256, {});
    receive(*acceptor, kTag + 256, 0);
    auto const next = pattern(kLong, 4);
    Sending const again(*requester, kTag, next);
    CHECK(receive(*acceptor, kTag, next.size()) == next);
}

#endif

} // namespace host
