#include "roles.h"

#include "failure.h"

#include <unistd.h>

namespace engine_host
{
namespace
{

std::string agentName(Options const& options)
{
    char const* const role = options.role == Role::kContext ? "ctx" : "gen";
    return role + std::to_string(options.rank) + "_" + std::to_string(getpid());
}

} // namespace

Rank::Rank(Options const& options, Console& console)
    : options(options)
    , console(console)
    , pool(options.poolBlocks, options.geometry.blockBytes(options.heads().count()), options.seed + options.rank)
    , slot(options.slotBytes())
    , endpoint(options.library, agentName(options))
{
    endpoint.registerMemory(shared());
}

Rank::~Rank()
{
    endpoint.deregisterMemory(shared());
}

// What the runtime of this shape registers: the C++ one its slots, the Python one its pools.
std::vector<kv::MemoryDesc> Rank::shared() const
{
    Mapping const& mapping = options.shape == Shape::kStaged ? slot : pool.mapping();
    return {kv::MemoryDesc(mapping.data(), mapping.size(), 0)};
}

void Rank::requireSlot(uint64_t request, uint64_t blocks) const
{
    uint64_t const needed = options.geometry.blockBytes(options.heads().count()) * blocks;
    if (needed > slot.size())
    {
        throw Failure(FailureKind::kUsage, "request " + std::to_string(request) + " needs " + std::to_string(needed)
                + " bytes of a slot of " + std::to_string(slot.size()) + "; raise max_tokens_in_buffer");
    }
}

std::vector<Piece> Rank::pieces() const
{
    std::vector<Piece> ours;
    for (Piece const& piece : options.geometry.pieces())
    {
        if ((options.role == Role::kContext ? piece.contextRank : piece.generationRank) == options.rank)
        {
            ours.push_back(piece);
        }
    }
    return ours;
}

void Rank::run(int commandWaitMs, std::function<void(std::vector<std::string> const&)> const& obey,
    std::function<void(Received&&)> const& takeIn, std::function<void()> const& proceed)
{
    announce();
    while (true)
    {
        if (auto const words = console.command(commandWaitMs))
        {
            obey(*words);
        }
        if (mQuitting)
        {
            continue;
        }
        bool heard = false;
        for (Received& received : endpoint.receive(heard))
        {
            takeIn(std::move(received));
        }
        proceed();
        endpoint.tick();
    }
}

void Rank::quit()
{
    mQuitting = true;
}

void Rank::announce()
{
    Event("ready")
        .text("role", options.role == Role::kContext ? "context" : "generation")
        .number("rank", options.rank)
        .text("name", endpoint.name())
        .text("connection_info", endpoint.connectionInfo())
        .number("pool_bytes", pool.mapping().size())
        .number("slot_bytes", slot.size())
        .emit();
}

void Rank::tick()
{
    console.checkStopped();
    endpoint.tick();
}

} // namespace engine_host
