#include "serve.h"

#include "failure.h"

namespace engine_host
{
namespace
{

void announce(Rank const& rank, End& end)
{
    Event("ready")
        .text("role", rank.options.role == Role::kContext ? "context" : "generation")
        .number("rank", rank.options.rank)
        .text("name", rank.name)
        .text("connection_info", end.connectionInfo())
        .number("pool_bytes", rank.pool.memory().size())
        .number("slot_bytes", rank.slot->size())
        .text("memory", name(rank.options.memory.kind))
        .emit();
}

} // namespace

void serve(Rank& rank, End& end, int commandWaitMs, std::function<bool(std::vector<std::string> const&)> const& obey,
    std::function<void()> const& proceed)
{
    announce(rank, end);
    bool staying = true;
    while (true)
    {
        if (auto const words = rank.console.command(commandWaitMs))
        {
            staying = obey(*words) && staying;
        }
        if (staying)
        {
            end.turn();
            proceed();
        }
    }
}

void refuseCommand(char const* phase, std::vector<std::string> const& words)
{
    throw Failure(FailureKind::kUsage, std::string("a ") + phase + " rank does not know the command \"" + words[0]
            + "\" with " + std::to_string(words.size() - 1) + " words");
}

} // namespace engine_host
