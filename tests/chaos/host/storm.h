// Signals that interrupt whatever a thread is blocked in: SIGPROF a thousand times a second, SIGCHLD fifty times.

#pragma once

namespace chaos
{

// Until the process ends. The handlers do nothing, and no call is restarted for them. This thread is spared: the host
// reads its commands there.
void startStorm();

// This thread is not spared any more.
void joinStorm();

} // namespace chaos
