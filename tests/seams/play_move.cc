// Moves, one after another or from several threads at once.

#include "play.h"
#include "rig.h"

#include <future>
#include <thread>

namespace seams
{

void playMove(Seam& seam, Scenario const& scenario)
{
    Rig rig(seam, scenario);
    rig.start();
    for (size_t turn = scenario.number("repeat", 1); turn != 0; --turn)
    {
        rig.move();
    }
}

// Each thread has a slot of its own on both sides; all share the two sides.
void playThreads(Seam& seam, Scenario const& scenario)
{
    Rig rig(seam, scenario);
    auto const threads = scenario.number("threads", 4);
    rig.start(threads);
    std::vector<std::future<void>> workers;
    for (size_t slot = 0; slot < threads; ++slot)
    {
        workers.push_back(std::async(std::launch::async,
            [&rig, &scenario, slot]
            {
                for (size_t turn = scenario.number("repeat", 1); turn != 0; --turn)
                {
                    rig.move(slot);
                }
            }));
    }
    for (auto& worker : workers)
    {
        worker.get();
    }
}

} // namespace seams
