// Signals that interrupt whatever a thread is blocked in: SIGPROF a thousand times a second at each thread that joins,
// SIGCHLD fifty times at one of them.

#pragma once

#include <cstdint>
#include <ctime>
#include <string>

namespace chaos
{

// Until the process ends. The handlers only count, and no call is restarted for them. This thread is spared: the host
// reads its commands there.
void startStorm();

// While one lives, its thread is not spared any more, if there is a storm.
class InStorm
{
public:
    InStorm();
    ~InStorm();
    InStorm(InStorm const&) = delete;
    InStorm& operator=(InStorm const&) = delete;

private:
    timer_t mTimer{};
    bool mIsIn = false;
};

// How many signals threads in the storm have taken: `SIGPROFS SIGCHLDS`.
std::string signalsTaken();

} // namespace chaos
