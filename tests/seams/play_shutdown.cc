// A side is destroyed, or the process ends, while transfers are under way and threads wait for them. Every waiter
// comes back, with success or with an error; and then nothing lands any more.

#include "play.h"
#include "rig.h"

#include <cstdlib>
#include <iostream>
#include <stdexcept>

namespace seams
{
namespace
{

// How often a scenario is tried until something was under way when it struck.
constexpr int kTries = 20;

using Flights = std::vector<std::unique_ptr<Outgoing>>;

Flights depart(Rig& rig, size_t count)
{
    rig.memory().fill(rig.newSeed());
    Flights flights;
    for (size_t flight = 0; flight < count; ++flight)
    {
        flights.push_back(rig.send(rig.announce()));
    }
    return flights;
}

// Transfers with a thread that waits for each, until `strike`. Whether any was under way then.
template <typename Strike>
bool interrupt(Rig& rig, Scenario const& scenario, Strike&& strike)
{
    auto const flights = depart(rig, scenario.number("transfers", 8));
    std::vector<std::future<bool>> waiters;
    for (auto const& flight : flights)
    {
        waiters.push_back(
            std::async(std::launch::async, [&] { return isDone(*flight, scenario.text("says")); }));
    }
    bool const struck = !flights.back()->isOver();
    strike();
    note("the waiters have to come back");
    size_t done = 0;
    for (auto& waiter : waiters)
    {
        done += waiter.get();
    }
    std::cout << done << " of " << waiters.size() << " were done all the same" << std::endl;
    rig.settle();
    return struck;
}

void requireQuietSource(Rig& rig)
{
    auto const afterwards = rig.newSeed();
    rig.memory().fill(afterwards);
    rig.replaceSender();
    auto const late = rig.partner().ask("words 0 " + std::to_string(afterwards));
    require(late == "0", late + " words left the source after the sender was gone");
}

bool senderLeaves(Rig& rig, Scenario const& scenario)
{
    bool const struck = interrupt(rig, scenario, [&] { rig.destroySender(); });
    requireQuietSource(rig);
    return struck;
}

bool receiverLeaves(Rig& rig, Scenario const& scenario)
{
    bool const struck = interrupt(rig, scenario,
        [&]
        {
            rig.destroyReceiver();
            rig.partner().ask("clear 0");
        });
    auto const traces = rig.partner().ask("traces 0");
    require(traces.empty(), "after the receiver was gone: " + traces);
    rig.replaceReceiver();
    return struck;
}

bool bothLeave(Rig& rig, Scenario const& scenario)
{
    bool const struck = interrupt(rig, scenario,
        [&]
        {
            auto other = rig.partner().tell("destroy");
            rig.destroySender();
            answerOf(other, "destroy");
        });
    rig.makeSender();
    rig.sender().offer(rig.memory().kind(), {rig.memory().extent()});
    rig.replaceReceiver();
    return struck;
}

// What lives until the process ends.
struct Rest
{
    std::unique_ptr<Seam> seam;
    std::unique_ptr<Scenario> scenario;
    std::unique_ptr<Rig> rig;
    Flights flights;
};

// The process ends with everything alive: never destroyed, or by the destructors of static objects.
[[noreturn]] void leaveProcess(Seam const& seam, Scenario const& scenario, bool isLeaked)
{
    static Rest atEnd;
    auto& rest = isLeaked ? *new Rest : atEnd;
    rest.seam = makeSeam(seam.name());
    rest.scenario = std::make_unique<Scenario>(scenario);
    rest.rig = std::make_unique<Rig>(*rest.seam, *rest.scenario);
    rest.rig->start();
    for (int turn = 0; turn < kTries; ++turn)
    {
        rest.flights = depart(*rest.rig, scenario.number("transfers", 8));
        if (!rest.flights.back()->isOver())
        {
            note("leave the process");
            std::exit(0);
        }
    }
    throw std::runtime_error("nothing was ever under way");
}

} // namespace

void playShutdown(Seam& seam, Scenario const& scenario)
{
    auto const who = scenario.text("who");
    if (who == "process-leaked" || who == "process-static")
    {
        leaveProcess(seam, scenario, who == "process-leaked");
    }
    auto const leave = who == "sender" ? senderLeaves : who == "receiver" ? receiverLeaves : bothLeave;
    Rig rig(seam, scenario);
    rig.start();
    bool struck = false;
    for (int turn = 0; turn < kTries && !struck; ++turn)
    {
        struck = leave(rig, scenario);
        rig.move();
    }
    require(struck, "nothing was ever under way when it struck");
}

} // namespace seams
