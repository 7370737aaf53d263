// Transfers that break while they are under way. Most have the receiver's process stopped meanwhile, so that they
// cannot be over. Whatever has been given back (a source, a destination) is then never touched again.

#include "play.h"
#include "receiver.h"
#include "rig.h"

#include <map>
#include <stdexcept>

namespace seams
{
namespace
{

// What is moved meanwhile, and what its error must say.
struct Flight
{
    Rig& rig;
    std::unique_ptr<Outgoing> outgoing;
    std::string says;
};

// Memory that is watched, and the memory of the good moves.
constexpr size_t kWatched = 0;
constexpr size_t kOther = 1;

std::vector<Span> source(Rig& rig)
{
    return regions(rig.memory(kWatched), rig.inRegionsEach);
}

// A submitted transfer whose receiver is stopped.
Flight depart(Rig& rig, Scenario const& scenario)
{
    rig.memory(kWatched).fill(rig.newSeed());
    rig.partner().stop();
    note("send to a receiver that is stopped");
    auto outgoing = rig.send(rig.shipment(kWatched));
    require(!outgoing->isOver(), "a transfer is over whose receiver is stopped");
    return {rig, std::move(outgoing), scenario.text("says")};
}

void expectBroken(Flight& flight)
{
    require(!isDone(*flight.outgoing, flight.says), "a transfer succeeded whose receiver was stopped");
}

// The source has been given back: other bytes in it must never arrive. The good moves pass the receiver by the time
// that anything late would have landed.
void settle(Rig& rig)
{
    auto const afterwards = rig.newSeed();
    rig.memory(kWatched).fill(afterwards);
    rig.partner().resume();
    note("meet again");
    rig.meet();
    for (int turn = 0; turn < 3; ++turn)
    {
        rig.move(kOther);
    }
    auto const late = rig.partner().ask("words 0 " + std::to_string(afterwards));
    require(late == "0", late + " words left the source after it was given back");
}

void sourceWithdrawn(Flight& flight)
{
    auto& rig = flight.rig;
    note("withdraw the source");
    rig.sender().withdraw(Kind::kDram, source(rig));
    expectBroken(flight);
    settle(rig);
    rig.sender().offer(Kind::kDram, source(rig));
}

void cancelled(Flight& flight)
{
    note("cancel");
    bool const isQuiet = flight.outgoing->cancel();
    expectBroken(flight);
    require(isQuiet, "cancel() could not establish that no byte lands any more");
    settle(flight.rig);
}

void dropped(Flight& flight)
{
    note("drop");
    flight.outgoing.reset();
    settle(flight.rig);
}

void forgotten(Flight& flight)
{
    note("forget");
    flight.rig.sender().forget(flight.rig.receiverName());
    expectBroken(flight);
    settle(flight.rig);
}

void silent(Flight& flight)
{
    expectBroken(flight);
    flight.rig.partner().resume();
    flight.rig.meet();
}

void killed(Flight& flight)
{
    flight.rig.partner().kill();
    expectBroken(flight);
    flight.rig.replaceReceiver();
}

void restarted(Flight& flight)
{
    flight.rig.partner().kill();
    flight.rig.replaceReceiver(true);
    expectBroken(flight);
}

// Goes on with the receiver, which at once does `command`. From its answer on, its memory is its own.
void receiverLeaves(Flight& flight, std::string const& command)
{
    auto& rig = flight.rig;
    note(command);
    auto left = rig.partner().tell(command);
    rig.partner().resume();
    answerOf(left, command);
    rig.partner().ask("clear 0");
    isDone(*flight.outgoing, flight.says); // it may have been quicker
    auto const traces = rig.partner().ask("traces 0");
    require(traces.empty(), "after " + command + ": " + traces);
}

void destinationWithdrawn(Flight& flight)
{
    receiverLeaves(flight, flight.rig.inRegionsEach ? "withdraw 0 1" : "withdraw 0 0");
    flight.rig.offerAgain();
    flight.rig.meet();
}

void destroyed(Flight& flight)
{
    receiverLeaves(flight, "destroy");
    flight.rig.replaceReceiver();
}

std::map<std::string, void (*)(Flight&)> const kSteps{
    {"killed", killed},
    {"restarted", restarted},
    {"silent", silent},
    {"destroyed", destroyed},
    {"source-withdrawn", sourceWithdrawn},
    {"destination-withdrawn", destinationWithdrawn},
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
    {
        auto flight = depart(rig, scenario);
        step->second(flight);
    }
    rig.move(kWatched);
    rig.move(kOther);
}

} // namespace seams
