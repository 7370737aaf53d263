// Panics on demand, and what a host sees of them.

#pragma once

#include "connections.h"

#include <functional>
#include <map>

namespace panics
{

// Looks up what this library has beside the seams. Ends the program if it was built without.
void findProvokers();

// The functions of the bridge, as the library lists them, each with the name that its errors say.
std::map<std::string, std::string> callsOfTheBridge();

// Asks for one panic at a place, as "before Submit".
void ask(std::string const& place);

// Every panic that was asked for has happened.
void expectNoneLeft();

// Runs `call`, which has to panic at `place` and to throw a std::runtime_error that names the call and the place.
void expectThrown(std::string const& place, std::string const& name, std::function<void()> const& call);

// Runs `call`, which has to panic at `place`, to throw nothing, and to log the place and, in a line of its own, the
// name of the call that failed.
void expectLogged(std::string const& place, std::string const& name, std::function<void()> const& call);

// What has been logged since the start. From captureLog() on, the log is a file, which is printed when the program
// ends.
void captureLog();
std::string logged();

// Two agents that have loaded each other, with memory.
class Agents
{
public:
    Agents();

    // Moves bytes that have not been moved before, and compares them.
    void move();

    host::TransferRequest write() const;

    // A transfer that is over, successfully.
    std::unique_ptr<host::TransferStatus> done();

    static constexpr size_t kBytes = 300000;

    host::AgentPtr context;
    host::AgentPtr generation;
    std::vector<char> source;
    std::vector<char> target;

private:
    unsigned mSeed = 0;
};

// A case: provokes a panic "before" or "after" the body of its call, and then makes the call again.
struct Provocation
{
    // "before Submit", "submitTransferRequests".
    std::string place;
    std::string name;
    bool isAfter;

    void throws(std::function<void()> const& call) const
    {
        expectThrown(place, name, call);
    }

    void logs(std::function<void()> const& call) const
    {
        expectLogged(place, name, call);
    }
};

using Case = std::function<void(Provocation const&, Agents&)>;
using Cases = std::map<std::string, Case>;

// By the function of the bridge.
void addAgentCalls(Cases& cases);
void addTransferCalls(Cases& cases);
void addConnectionCalls(Cases& cases);

// The parts of the test.
void everyCall();
void engine();

} // namespace panics
