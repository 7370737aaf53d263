// What a rank is told at its start: flags, and the few keys it reads from a cache_transceiver_config.
#pragma once

#include "geometry.h"
#include "memory.h"

#include <cstdint>
#include <string>

namespace engine_host
{

enum class Role
{
    kContext,
    kGeneration
};

enum class Shape
{
    kStaged, // gathered into one piece per destination: the C++ runtime
    kPaged   // descriptors straight from the pool: the Python runtime
};

enum class Seam
{
    kAgent,      // S1
    kConnections // S3
};

// What the config's backend opens.
struct Library
{
    Seam seam;
    char const* file;
    char const* factory;
};

struct Options
{
    Role role = Role::kContext;
    uint32_t rank = 0;
    Shape shape = Shape::kStaged;
    Geometry geometry;
    uint64_t poolBlocks = 0;
    uint64_t maxTokensInBuffer = 0; // 0: the slot holds as many tokens as the pool
    uint64_t seed = 1;
    MemoryChoice memory; // of the pool and the slot
    uint64_t patienceMs = 30000; // longest silence of a peer that is alive
    Library library{Seam::kAgent, "libtensorrt_llm_nixl_wrapper.so", "createNixlTransferAgent"};

    // Ranks of this phase.
    uint32_t ranks() const;
    // Whether a request may be larger than the slot: then it goes through it in rounds.
    bool sendsInRounds() const;
    // Heads that this rank holds.
    HeadRange heads() const;
    // Blocks of the staging slot: what max_tokens_in_buffer tokens take, and one more.
    uint64_t slotBlocks() const;
    // Its bytes; 0 when paged.
    uint64_t slotBytes() const;
};

// Throws Failure(kUsage) that names the flag or key, and prints the usage for --help (then exits with 0).
Options parseOptions(int argc, char** argv);

} // namespace engine_host
