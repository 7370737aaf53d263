// baton-engine-host: one rank of a serving engine, context or generation, as far as KV transfer can see.
//
// It plays TensorRT-LLM's side of the transfer-agent seam in TensorRT-LLM's order of calls, and depends on nothing
// but the seam: it finds the library by dlopen. `baton demo` drives many of them; see --help to drive one by hand.

#include "failure.h"
#include "roles.h"

#include <cstdlib>
#include <exception>
#include <optional>

using namespace engine_host;

namespace
{

int report(char const* kind, std::string const& text, std::string const& peer, int code)
{
    try
    {
        Event("error").text("kind", kind).text("peer", peer).text("text", text).emit();
    }
    catch (Stopped const&)
    {
        // Nobody listens any more; the exit code says it.
    }
    return code;
}

// Runs `serve` and turns however it ends into an exit code, saying an error aloud before anything is torn down.
template <typename Serve>
int reporting(Serve serve)
{
    try
    {
        serve();
        return EXIT_SUCCESS;
    }
    catch (Stopped const&)
    {
        return EXIT_SUCCESS;
    }
    catch (Failure const& failure)
    {
        return report(name(failure.kind()), failure.what(), failure.peer(), exitCode(failure.kind()));
    }
    catch (std::exception const& error)
    {
        return report("internal", error.what(), {}, EXIT_FAILURE);
    }
}

template <typename Phase>
int play(Options const& options, Console& console)
{
    std::optional<Phase> rank;
    int const code = reporting(
        [&]
        {
            rank.emplace(options, console);
            rank->run();
        });
    return code == EXIT_SUCCESS && rank && rank->corrupt() != 0 ? EXIT_FAILURE : code;
}

} // namespace

int main(int argc, char** argv)
{
    std::optional<Options> options;
    int const code = reporting([&] { options = parseOptions(argc, argv); });
    if (!options)
    {
        return code;
    }
    Console console;
    int const reserved = reporting([] { reserveStdout(); });
    if (reserved != EXIT_SUCCESS)
    {
        return reserved;
    }
    bool const context = options->role == Role::kContext;
    return context ? play<ContextRank>(*options, console) : play<GenerationRank>(*options, console);
}
