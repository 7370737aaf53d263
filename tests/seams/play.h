// The kinds of scenarios, one file each. A player returns when all is as it should be, and throws what is not.

#pragma once

#include "seam.h"

namespace seams
{

void playMove(Seam& seam, Scenario const& scenario);
void playThreads(Seam& seam, Scenario const& scenario);
void playRefusal(Seam& seam, Scenario const& scenario);
void playBreak(Seam& seam, Scenario const& scenario);
void playShutdown(Seam& seam, Scenario const& scenario);
void playOrder(Seam& seam, Scenario const& scenario);

} // namespace seams
