// `baton-panics-host PART`: `calls` provokes a panic in every function of the bridge, before and after its body;
// `engine` provokes one in the engine. The host lives, and the next call of the same kind works.

#include "provoke.h"

#include <unistd.h>

extern "C" int stand_in_loaded();

namespace panics
{

void everyCall()
{
    Cases cases;
    addAgentCalls(cases);
    addTransferCalls(cases);
    addConnectionCalls(cases);
    auto const calls = callsOfTheBridge();
    for (auto const& [function, ignored] : cases)
    {
        CHECK(calls.count(function) == 1); // a case for a function that there is
    }
    Agents agents;
    size_t provoked = 0;
    for (auto const& [function, name] : calls)
    {
        auto const found = cases.find(function);
        if (found == cases.end())
        {
            std::printf("failed: no case for %s (%s)\n", function.c_str(), name.c_str());
            std::exit(1);
        }
        for (bool const isAfter : {false, true})
        {
            auto const place = (isAfter ? "after " : "before ") + function;
            std::printf("%s (%s)\n", place.c_str(), name.c_str());
            std::fflush(stdout);
            found->second({place, name, isAfter}, agents);
            agents.move();
            ++provoked;
        }
    }
    std::printf("%zu panics in %zu functions\n", provoked, calls.size());
}

} // namespace panics

int main(int argc, char** argv)
{
    constexpr unsigned kWatchdogSeconds = 150;
    ::alarm(kWatchdogSeconds); // its default action ends a host that hangs
    std::string const part = argc > 1 ? argv[1] : "";
    CHECK(stand_in_loaded() == HOST_AGE); // and so needed
    panics::captureLog();
    panics::findProvokers();
    try
    {
        if (part != "calls" && part != "engine")
        {
            std::printf("usage: %s calls|engine\n", argv[0]);
            return 2;
        }
        part == "calls" ? panics::everyCall() : panics::engine();
    }
    catch (std::exception const& error)
    {
        std::printf("failed: unexpected error: %s\n", error.what());
        return 1;
    }
    std::printf("%s: ok\n", part.c_str());
    return 0;
}
