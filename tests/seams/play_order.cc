// Host objects that are destroyed in some order, with a transfer done or under way: what is left stays usable as far
// as it can be, and says how the transfer ended.

#include "play.h"
#include "rig.h"

#include <iostream>
#include <stdexcept>

namespace seams
{
namespace
{

constexpr int kTries = 20;

struct Objects
{
    Seam& seam;
    Rig& rig;
    std::unique_ptr<Outgoing> outgoing;
};

void destroy(Objects& objects, std::string const& name)
{
    note("destroy the " + name);
    if (name == "outgoing")
    {
        objects.outgoing.reset();
    }
    else if (name == "sender")
    {
        objects.rig.destroySender();
    }
    else if (name == "receiver")
    {
        objects.rig.destroyReceiver();
    }
    else if (name == "library")
    {
        objects.seam.closeLibrary();
    }
    else
    {
        throw std::logic_error("there is no object '" + name + "'");
    }
}

// Destroys all in the scenario's order. `isDone`: the transfer was done before, and has to stay so.
void destroyAll(Objects& objects, Scenario const& scenario, bool wasDone)
{
    for (auto const& name : scenario.list("order"))
    {
        destroy(objects, name);
        if (objects.outgoing != nullptr && name != "library")
        {
            bool const done = isDone(*objects.outgoing, "");
            require(done || !wasDone, "a transfer that was done has failed afterwards");
        }
    }
}

// A transfer that is done when the first object goes, or one that is under way; whether it was.
bool playOnce(Seam& seam, Scenario const& scenario, bool inFlight)
{
    Rig rig(seam, scenario);
    rig.start();
    rig.move();
    rig.memory().fill(rig.newSeed());
    Objects objects{seam, rig, rig.send(rig.announce())};
    if (!inFlight)
    {
        finish(*objects.outgoing);
    }
    bool const struck = !objects.outgoing->isOver();
    destroyAll(objects, scenario, !struck && !inFlight);
    return struck;
}

} // namespace

void playOrder(Seam& seam, Scenario const& scenario)
{
    bool const inFlight = scenario.text("flight") == "yes";
    bool struck = playOnce(seam, scenario, inFlight);
    for (int turn = 1; inFlight && !struck && turn < kTries; ++turn)
    {
        struck = playOnce(seam, scenario, inFlight);
    }
    require(struck == inFlight, "nothing was ever under way when it struck");

    note("once more from the start");
    Rig rig(seam, scenario);
    rig.start();
    rig.move();
}

} // namespace seams
