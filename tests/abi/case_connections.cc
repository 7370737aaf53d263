// Every slot of ConnectionManager and Connection, in the order in which a host uses them: two managers in one process,
// canaries around everything returned by value, contexts at the end of readable memory.

#include "connections.h"

namespace host
{
namespace
{

constexpr int kInfoTag = 32;
constexpr int kDataTag = (7 << 8) | 43;
constexpr size_t kLong = 3 << 20;

} // namespace

void connections()
{
    auto const context = createManager();
    auto const generation = createManager();

    // One rank, alone: it lists itself.
    CommState const& state = context->getCommState();
    CHECK(&state == &context->getCommState());
    CHECK(state.isSocketState() && state.getSelfIdx() == 0);
    CHECK(state.getSocketState().size() == 1);
    CHECK(state.getSocketState()[0].mIp == "127.0.0.1" && state.getSocketState()[0].mPort != 0);
    CHECK(state.getSocketState()[0].mPort != generation->getCommState().getSocketState()[0].mPort);

    auto const [requester, acceptor] = connect(*generation, *context);
    CHECK(connectTo(*generation, *context) == requester); // the same one, while it stands
    CHECK(requester->isThreadSafe() && acceptor->isThreadSafe());
#if HOST_AGE >= AGE_P4
    CHECK(context->isRunning() && generation->isRunning());
    requester->activateBuffer(0);
    Guarded<std::optional<size_t>> buffer([&] { return requester->getPreAssignedBufferId(0); });
    CHECK(!buffer->has_value());
#endif

    // Short ones wait for their receiver, in order, each tag for itself.
    auto const info = pattern(100, 1);
    auto const more = pattern(101, 2);
    send(*requester, kInfoTag, info);
    send(*requester, kInfoTag, more);
    send(*requester, kInfoTag + 1, {});
    CHECK(receive(*acceptor, kInfoTag + 1, 0).empty());
    CHECK(receive(*acceptor, kInfoTag, info.size()) == info);
    CHECK(receive(*acceptor, kInfoTag, more.size()) == more);

    // Long ones go from buffer to buffer, both ways at once.
    auto const piece = pattern(kLong, 3);
    auto const answer = pattern(kLong + 1, 4);
    {
        Sending const sending(*acceptor, kDataTag, piece);
        Sending const answering(*requester, kDataTag, answer);
        CHECK(receive(*requester, kDataTag, piece.size()) == piece);
        CHECK(receive(*acceptor, kDataTag, answer.size()) == answer);
    }

    // Each may ask the other: two connections, whose messages do not mix.
    auto const [back, backAcceptor] = connect(*context, *generation);
    CHECK(back != acceptor && backAcceptor != requester);
    send(*back, kInfoTag, more);
    send(*acceptor, kInfoTag, info);
    CHECK(receive(*requester, kInfoTag, info.size()) == info);
    CHECK(receive(*backAcceptor, kInfoTag, more.size()) == more);
}

// Sends of several threads over two connections, each tag with bytes of its own.
void connectionThreads()
{
    constexpr int kThreads = 4;
    constexpr int kRounds = 10;
    auto const context = createManager();
    auto const first = createManager();
    auto const second = createManager();
    Pair const pairs[] = {connect(*first, *context), connect(*second, *context)};
    auto const sizeOf = [](int thread) { return thread % 2 == 0 ? size_t{600} : size_t{256 * 1024}; };
    std::vector<std::thread> threads;
    for (int thread = 0; thread < kThreads; ++thread)
    {
        for (auto const& pair : pairs)
        {
            threads.emplace_back(
                [&, thread]
                {
                    for (int round = 0; round < kRounds; ++round)
                    {
                        send(*pair.acceptor, thread, pattern(sizeOf(thread), thread * kRounds + round));
                    }
                });
            threads.emplace_back(
                [&, thread]
                {
                    for (int round = 0; round < kRounds; ++round)
                    {
                        auto const wanted = pattern(sizeOf(thread), thread * kRounds + round);
                        CHECK(receive(*pair.requester, thread, wanted.size()) == wanted);
                    }
                });
        }
    }
    for (auto& thread : threads)
    {
        thread.join();
    }
}

// An agent and a manager in one process: one library under two names, one engine, and neither is in the other's way.
void bothSeams()
{
    CHECK(openLibrary(kUcx) == openLibrary(kNixl));
    auto const agent = createAgent("ctx0");
    auto const manager = createManager();
    auto const otherManager = createManager();
    auto const otherAgent = createAgent("gen0");
    auto const [requester, acceptor] = connect(*otherManager, *manager);

    auto const source = pattern(kLong, 5);
    std::vector<char> target(kLong);
    agent->registerMemory(dram(source));
    otherAgent->registerMemory(dram(target));
    agent->loadRemoteAgent("gen0", otherAgent->getLocalAgentDesc());
    auto const status = agent->submitTransferRequests({TransferOp::kWRITE, dram(source), dram(target), "gen0"});
    {
        // The very memory that the agent is reading.
        std::vector<char> received(kLong);
        std::thread sending([&, from = acceptor] { from->send(Context(kDataTag), source.data(), source.size()); });
        requester->recv(Context(kDataTag), received.data(), received.size());
        sending.join();
        CHECK(received == source);
    }
    status->wait();
    CHECK(status->isCompleted() && target == source);
    agent->notifySyncMessage("gen0", "done");
    Notifications notified;
    while (notified.empty())
    {
        notified = otherAgent->getNotifiedSyncMessages();
    }
    CHECK(notified.size() == 1 && notified.count("ctx0") == 1);
}

} // namespace host
