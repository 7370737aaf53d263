// Transfers that break while they are under way. With the receiver's process stopped they cannot be over; with a
// receiver that is alive the scenario is repeated until it struck in time. Memory that has been given back (a source
// whose transfer failed, a destination that was withdrawn) is never touched again.

#include "play.h"
#include "receiver.h"
#include "rig.h"

#include <iostream>
#include <map>
#include <stdexcept>

namespace seams
{
namespace
{

// How often a scenario is tried until it struck while the transfer was under way.
constexpr int kTries = 20;

// Memory that is watched, and the memory of the good moves.
constexpr size_t kWatched = 0;
constexpr size_t kOther = 1;

// A transfer under way.
struct Flight
{
    Rig& rig;
    std::unique_ptr<Outgoing> outgoing;
    std::string says; // what its error must say
    bool isStopped;   // its receiver is: then it cannot succeed
};

std::vector<Span> source(Rig& rig)
{
    return regions(rig.memory(kWatched), rig.inRegionsEach);
}

Flight depart(Rig& rig, Scenario const& scenario)
{
    bool const isStopped = scenario.text("receiver", "stopped") == "stopped";
    rig.memory(kWatched).fill(rig.newSeed());
    auto const shipment = rig.announce(kWatched);
    if (isStopped)
    {
        rig.partner().stop();
    }
    note("send what is to break");
    return {rig, rig.send(shipment), scenario.text("says"), isStopped};
}

// Waits for the end; whether the transfer broke.
bool broke(Flight& flight)
{
    bool const done = isDone(*flight.outgoing, flight.says);
    require(!done || !flight.isStopped, "a transfer succeeded whose receiver was stopped");
    return !done;
}

// The source is ours again: what is written there now must never arrive. By the time of the good moves, anything late
// has landed.
void settle(Flight& flight)
{
    auto& rig = flight.rig;
    auto const afterwards = rig.newSeed();
    rig.memory(kWatched).fill(afterwards);
    if (flight.isStopped)
    {
        rig.partner().resume();
    }
    note("settle and meet again");
    rig.settle();
    rig.meet();
    for (int turn = 0; turn < 3; ++turn)
    {
        rig.move(kOther);
    }
    auto const late = rig.partner().ask("words 0 " + std::to_string(afterwards));
    require(late == "0", late + " words left the source after it was given back");
}

// --- the steps: each says whether it struck in time -------------------------------------------------------------

bool sourceWithdrawn(Flight& flight)
{
    auto& rig = flight.rig;
    note("withdraw the source");
    rig.sender().withdraw(rig.memory(kWatched).kind(), source(rig));
    bool const struck = broke(flight);
    rig.sender().offer(rig.memory(kWatched).kind(), source(rig));
    settle(flight);
    return struck;
}

bool cancelled(Flight& flight)
{
    note("cancel");
    bool const isQuiet = flight.outgoing->cancel();
    require(isQuiet || flight.isStopped, "cancel() could not establish that no byte lands any more");
    bool const struck = broke(flight);
    // One that was stopped in the midst of a pull may pull on when it goes on.
    require(flight.outgoing->cancel() || flight.isStopped, "cancel() of what is over is false");
    settle(flight);
    return struck;
}

bool dropped(Flight& flight)
{
    note("drop");
    bool const struck = !flight.outgoing->isOver();
    flight.outgoing.reset();
    settle(flight);
    return struck;
}

bool forgotten(Flight& flight)
{
    note("forget");
    flight.rig.sender().forget(flight.rig.receiverName());
    bool const struck = broke(flight);
    settle(flight);
    return struck;
}

bool silent(Flight& flight)
{
    bool const struck = broke(flight);
    settle(flight);
    return struck;
}

bool killed(Flight& flight)
{
    flight.rig.partner().kill();
    bool const struck = broke(flight);
    flight.rig.replaceReceiver();
    return struck;
}

bool restarted(Flight& flight)
{
    flight.rig.partner().kill();
    flight.rig.replaceReceiver(true);
    return broke(flight);
}

// The receiver goes on, and at once does `command`. From its answer on, its memory is its own.
void receiverLeaves(Flight& flight, std::string const& command)
{
    auto& rig = flight.rig;
    note(command);
    auto left = rig.partner().tell(command);
    rig.partner().resume();
    answerOf(left, command);
    rig.partner().ask("clear 0");
    if (command == "abandon")
    {
        flight.outgoing->cancel(); // the next receive could be meant
    }
    isDone(*flight.outgoing, flight.says); // it may have been quicker
    auto const traces = rig.partner().ask("traces 0");
    require(traces.empty(), "after " + command + ": " + traces);
}

bool destinationWithdrawn(Flight& flight)
{
    receiverLeaves(flight, flight.rig.inRegionsEach ? "withdraw 0 1" : "withdraw 0 0");
    flight.rig.settle();
    flight.rig.offerAgain();
    flight.rig.meet();
    return true;
}

// The receiver does not wait any longer: then its memory is its own.
bool abandoned(Flight& flight)
{
    receiverLeaves(flight, "abandon");
    flight.rig.settle();
    return true;
}

bool destroyed(Flight& flight)
{
    receiverLeaves(flight, "destroy");
    flight.rig.replaceReceiver();
    return true;
}

std::map<std::string, bool (*)(Flight&)> const kSteps{
    {"killed", killed},
    {"restarted", restarted},
    {"silent", silent},
    {"destroyed", destroyed},
    {"source-withdrawn", sourceWithdrawn},
    {"destination-withdrawn", destinationWithdrawn},
    {"abandoned", abandoned},
    {"cancelled", cancelled},
    {"dropped", dropped},
    {"forgotten", forgotten},
};

} // namespace

void playBreak(Seam& seam, Scenario const& scenario)
{
    auto const step = kSteps.find(scenario.text("step"));
    if (step == kSteps.end())
    {
        throw std::logic_error("there is no step '" + scenario.text("step") + "'");
    }
    Rig rig(seam, scenario);
    rig.start(2);
    rig.move(kWatched);
    bool struck = false;
    for (int turn = 0; turn < kTries && !struck; ++turn)
    {
        auto flight = depart(rig, scenario);
        struck = step->second(flight);
    }
    require(struck, "nothing was ever under way when it struck");
    rig.move(kWatched);
    rig.move(kOther);
}

} // namespace seams
