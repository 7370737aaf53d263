// Panics in the calls on a connection manager and its connections.

#include "provoke.h"

namespace panics
{
namespace
{

using namespace host;

constexpr int kTag = 40;
constexpr int kIdTag = 19;

// Two managers with a connection, one of whose ends is each one's.
struct Managers
{
    Managers()
        : context{createManager()}
        , generation{createManager()}
        , ends{connect(*generation, *context)}
    {
    }

    // A message either way, one short and one long.
    void speak() const
    {
        auto const word = pattern(100, 1);
        auto const piece = pattern(1 << 20, 2);
        send(*ends.requester, kTag, word);
        CHECK(receive(*ends.acceptor, kTag, word.size()) == word);
        Sending const sending(*ends.acceptor, kTag, piece);
        CHECK(receive(*ends.requester, kTag, piece.size()) == piece);
    }

    ManagerPtr context;
    ManagerPtr generation;
    Pair ends;
};

void managers(Cases& cases)
{
    auto const make = [](Provocation const& provoked, Agents&)
    {
        provoked.throws([] { createManager(); });
        Managers().speak();
    };
    cases["OpenConnections"] = make;
    cases["Ranks"] = make;
    cases["Rank"] = make;
    cases["CloseConnections"] = [](Provocation const& provoked, Agents&)
    {
        Managers managers;
        provoked.logs([&] { managers.generation.reset(); });
        managers.context.reset();
        Managers().speak();
    };
    cases["IsOpen"] = [](Provocation const& provoked, Agents&)
    {
        Managers const managers;
        bool open = true;
        provoked.logs([&] { open = managers.context->isRunning(); });
        CHECK(!open && managers.context->isRunning());
        managers.speak();
    };
}

void words(Cases& cases)
{
    cases["Connect"] = [](Provocation const& provoked, Agents&)
    {
        Managers const managers;
        provoked.throws([&] { managers.context->getConnections(managers.generation->getCommState()); });
        connect(*managers.context, *managers.generation);
        managers.speak();
    };
    cases["Send"] = [](Provocation const& provoked, Agents&)
    {
        Managers const managers;
        auto const word = pattern(50, 4);
        provoked.throws([&] { send(*managers.ends.requester, kTag + 1, word); });
        if (!provoked.isAfter)
        {
            send(*managers.ends.requester, kTag + 1, word);
        }
        CHECK(receive(*managers.ends.acceptor, kTag + 1, word.size()) == word);
        managers.speak();
    };
    cases["Receive"] = [](Provocation const& provoked, Agents&)
    {
        Managers const managers;
        auto const word = pattern(50, 5);
        std::vector<char> room(word.size());
        auto const take = [&] { managers.ends.acceptor->recv(Context(kTag + 1), room.data(), room.size()); };
        send(*managers.ends.requester, kTag + 1, word);
        provoked.throws(take);
        if (provoked.isAfter)
        {
            CHECK(room == word);
            send(*managers.ends.requester, kTag + 1, word);
        }
        room.assign(room.size(), 0);
        take();
        CHECK(room == word);
        managers.speak();
    };
    cases["Accept"] = [](Provocation const& provoked, Agents&)
    {
        Managers const managers;
        uint64_t id = 0;
        uint64_t const sent = 7;
        auto const accept = [&] { return managers.context->recvConnect(Context(kIdTag), &id, sizeof(id)); };
        managers.ends.requester->send(Context(kIdTag), &sent, sizeof(sent));
        provoked.throws([&] { accept(); });
        if (provoked.isAfter)
        {
            managers.ends.requester->send(Context(kIdTag), &sent, sizeof(sent));
        }
        id = 0;
        CHECK(accept() == managers.ends.acceptor && id == sent);
        managers.speak();
    };
}

} // namespace

void addConnectionCalls(Cases& cases)
{
    managers(cases);
    words(cases);
}

} // namespace panics
