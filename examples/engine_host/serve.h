// The loop of a rank: commands of the driver, and turns of the seam in between.
#pragma once

#include "seam.h"

#include <functional>
#include <string>
#include <vector>

namespace engine_host
{

// Tells the driver how to reach this rank, then serves it: hands each command to `obey`, and calls `proceed` in every
// turn. Once `obey` has returned false only the end of stdin counts: peers may leave first. Ends by throwing.
void serve(Rank& rank, End& end, int commandWaitMs, std::function<bool(std::vector<std::string> const&)> const& obey,
    std::function<void()> const& proceed);

// The failure of a command that this phase does not know.
[[noreturn]] void refuseCommand(char const* phase, std::vector<std::string> const& words);

} // namespace engine_host
