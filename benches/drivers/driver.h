// What all drivers of C++ have in common: the lines (README.md) and the clock.
#pragma once

#include "memory.h"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace bench
{

using Clock = std::chrono::steady_clock;
using Words = std::vector<std::string>;

// How an implementation does what the lines ask for.
class Driver
{
public:
    virtual ~Driver() = default;

    // Makes an agent that has `memory`, if it is the first one. Returns its card.
    virtual std::string open(std::string const& name, Buffer& memory, uint64_t& registerNs) = 0;
    virtual void meet(std::string const& ours, std::string const& theirs, std::string const& card) = 0;
    // Takes the cell for the moves to come; `remote` is the other side's buffer.
    virtual void prepare(Cell const& cell, uint64_t local, uint64_t remote) = 0;
    virtual void way(std::string const& name);
    // One move: `post` starts it, `wait` ends with it.
    virtual void post() = 0;
    virtual void wait() = 0;
    // A move with a notification, or the notification alone, and the wait for the answer.
    virtual void ping();
    virtual void note();
    // Does `count` moves of this cell while the prepared one moves again and again.
    virtual std::vector<uint64_t> beside(Cell const& cell, uint64_t local, uint64_t remote, uint64_t count);
    // Polls, and answers notifications, once.
    virtual void serve() = 0;
    virtual void close() = 0;
};

uint64_t nanosecondsSince(Clock::time_point begin);

// Serves the lines until stdin ends. What libraries print to stdout goes to stderr. Returns the exit status.
int run(Driver& driver);

} // namespace bench
