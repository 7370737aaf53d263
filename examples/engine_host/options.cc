#include "options.h"

#include "config_file.h"
#include "console.h"
#include "failure.h"

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <stdexcept>

namespace engine_host
{
namespace
{

constexpr char const* kUsage = R"(usage: baton-engine-host --role context|generation [options]

Plays one rank of a serving engine: opens the transfer library by its bare name (LD_LIBRARY_PATH says where),
registers its memory and hands KV cache over. Commands come on stdin, events leave on stdout as JSON lines.

  --role context|generation   which phase this rank serves
  --rank N                    its tensor-parallel rank (0)
  --shape staged|paged        one gathered piece per request, or descriptors straight from the pool (staged); s3
                              has no paged
  --config FILE               a cache_transceiver_config in YAML: backend picks the library,
                              max_tokens_in_buffer sizes the slot
  --backend NAME              NIXL, MOONCAKE, UCX or DEFAULT, over what the file says
  --seam s1|s3                the transfer agent (NIXL, MOONCAKE) or the connection manager (UCX); DEFAULT is NIXL,
                              or UCX where s3 is asked for
  --max-tokens-in-buffer N    over what the file says
  --layers N --kv-heads N --head-dim N [--kv-factor 1|2] [--element-bytes N] [--tokens-per-block N]
                              the model's KV cache (--kv-factor 1: a latent without V)
  --tp N --gen-tp N           context and generation tensor parallelism (1, 1)
  --pool-blocks N             blocks of this rank's KV pool
  --memory dram|vram          where the pool and the slot lie (dram); vram opens libcuda.so.1, or the library that
                              BATON_CUDA_LIBRARY names
  --device N                  the GPU of vram, as the CUDA driver counts (0)
  --vmm CHUNK_BYTES           vram made of chunks mapped side by side, not by one cuMemAlloc
  --vmm-private 0|1           whether other processes can not be given those chunks (0)
  --seed N                    order in which the pool hands out blocks (1)
  --patience-ms N             longest silence of a living peer before a wait ends (30000)

commands to a context rank      prepare REQUEST TOKENS CORRUPT(0|1)
commands to a generation rank   connect CONTEXT_RANK NAME CONNECTION_INFO · receive REQUEST TOKENS · check REQUEST
commands to both                quit
)";

// What a backend opens, by its name in either of the two spellings that TensorRT-LLM accepts.
Library libraryFor(std::string const& backend)
{
    if (backend == "NIXL" || backend == "nixl" || backend == "DEFAULT" || backend == "default")
    {
        return {Seam::kAgent, "libtensorrt_llm_nixl_wrapper.so", "createNixlTransferAgent"};
    }
    if (backend == "MOONCAKE" || backend == "mooncake")
    {
        return {Seam::kAgent, "libtensorrt_llm_mooncake_wrapper.so", "createMooncakeTransferAgent"};
    }
    if (backend == "UCX" || backend == "ucx")
    {
        return {Seam::kConnections, "libtensorrt_llm_ucx_wrapper.so", "makeUcxConnectionManager"};
    }
    if (backend == "MPI" || backend == "mpi")
    {
        throw Failure(FailureKind::kUsage,
            "backend " + backend + " opens no library: TensorRT-LLM has MPI inside; use NIXL, MOONCAKE or UCX");
    }
    throw Failure(
        FailureKind::kUsage, "Invalid backend type: " + backend + "; known: DEFAULT, NIXL, MOONCAKE, UCX, MPI");
}

// The library of the backend, which has to go through the seam that was asked for, if one was. A backend that is left
// open is the seam's own.
Library libraryFor(std::string const& backend, std::string const& seam)
{
    if (seam == "s2")
    {
        throw Failure(FailureKind::kUsage, "--seam s2 is the Python engine host's; this one plays s1 and s3");
    }
    if (!seam.empty() && seam != "s1" && seam != "s3")
    {
        throw Failure(FailureKind::kUsage, "--seam is s1 or s3, not \"" + seam + "\"");
    }
    bool const open = backend == "DEFAULT" || backend == "default";
    Library const library = libraryFor(open && seam == "s3" ? "UCX" : backend);
    if (!seam.empty() && (seam == "s3") != (library.seam == Seam::kConnections))
    {
        throw Failure(FailureKind::kUsage, "backend " + backend + " does not go through seam " + seam);
    }
    return library;
}

template <typename Choice>
Choice choose(std::string const& flag, std::string const& word, std::map<std::string, Choice> const& choices)
{
    auto const found = choices.find(word);
    if (found == choices.end())
    {
        throw Failure(FailureKind::kUsage,
            flag + " is " + choices.begin()->first + " or " + choices.rbegin()->first + ", not \"" + word + "\"");
    }
    return found->second;
}

uint32_t small(std::string const& word, std::string const& flag)
{
    uint64_t const value = parseNumber(word, flag);
    if (value > 1'000'000)
    {
        throw Failure(FailureKind::kUsage, flag + " " + word + " is out of range");
    }
    return static_cast<uint32_t>(value);
}

void validate(Options const& options)
{
    try
    {
        options.geometry.validate();
    }
    catch (std::invalid_argument const& error)
    {
        throw Failure(FailureKind::kUsage, error.what());
    }
    Geometry const& geometry = options.geometry;
    if (options.rank >= options.ranks())
    {
        throw Failure(FailureKind::kUsage,
            "--rank " + std::to_string(options.rank) + " does not exist in " + std::to_string(options.ranks())
                + " ranks");
    }
    if (options.shape == Shape::kPaged && options.library.seam == Seam::kConnections)
    {
        throw Failure(FailureKind::kUsage,
            "--shape paged does not exist at seam s3: its runtime gathers every piece; use --shape staged");
    }
    if (options.poolBlocks == 0 || options.poolBlocks > UINT32_MAX)
    {
        throw Failure(FailureKind::kUsage, "--pool-blocks must be given, between 1 and 4294967295");
    }
    MemoryChoice const& memory = options.memory;
    if (memory.kind == MemoryKind::kDram && (memory.device != 0 || memory.chunkBytes != 0 || !memory.chunksShareable))
    {
        throw Failure(FailureKind::kUsage, "--device, --vmm and --vmm-private are about --memory vram");
    }
    if (memory.chunkBytes == 0 && !memory.chunksShareable)
    {
        throw Failure(FailureKind::kUsage, "--vmm-private is about the chunks of --vmm CHUNK_BYTES");
    }
    if (options.maxTokensInBuffer % geometry.tokensPerBlock != 0)
    {
        throw Failure(FailureKind::kUsage,
            "max_tokens_in_buffer " + std::to_string(options.maxTokensInBuffer)
                + " is not a multiple of tokens_per_block " + std::to_string(geometry.tokensPerBlock));
    }
}

using Word = std::string const&;
using Flags = std::map<std::string, std::function<void(Word)>>;

std::map<std::string, Role> const kRoles{{"context", Role::kContext}, {"generation", Role::kGeneration}};
std::map<std::string, MemoryKind> const kMemoryKinds{{"dram", MemoryKind::kDram}, {"vram", MemoryKind::kVram}};
std::map<std::string, Shape> const kShapes{{"staged", Shape::kStaged}, {"paged", Shape::kPaged}};

// Every flag and where its value goes. The arguments must outlive the result.
Flags flagsInto(Options& options, ConfigFile& config, std::string& backend, std::string& seam)
{
    Geometry& geometry = options.geometry;
    MemoryChoice& memory = options.memory;
    return {
        {"--role", [&](Word w) { options.role = choose("--role", w, kRoles); }},
        {"--rank", [&](Word w) { options.rank = small(w, "--rank"); }},
        {"--shape", [&](Word w) { options.shape = choose("--shape", w, kShapes); }},
        {"--config", [&](Word w) { config = readConfigFile(w); }},
        {"--backend", [&](Word w) { backend = w; }},
        {"--seam", [&](Word w) { seam = w; }},
        {"--max-tokens-in-buffer", [&](Word w) { options.maxTokensInBuffer = parseNumber(w, "max_tokens_in_buffer"); }},
        {"--layers", [&](Word w) { geometry.layers = small(w, "--layers"); }},
        {"--kv-heads", [&](Word w) { geometry.kvHeads = small(w, "--kv-heads"); }},
        {"--head-dim", [&](Word w) { geometry.headDim = small(w, "--head-dim"); }},
        {"--kv-factor", [&](Word w) { geometry.kvFactor = small(w, "--kv-factor"); }},
        {"--element-bytes", [&](Word w) { geometry.elementBytes = small(w, "--element-bytes"); }},
        {"--tokens-per-block", [&](Word w) { geometry.tokensPerBlock = small(w, "--tokens-per-block"); }},
        {"--tp", [&](Word w) { geometry.contextTp = small(w, "--tp"); }},
        {"--gen-tp", [&](Word w) { geometry.generationTp = small(w, "--gen-tp"); }},
        {"--pool-blocks", [&](Word w) { options.poolBlocks = parseNumber(w, "--pool-blocks"); }},
        {"--memory", [&](Word w) { memory.kind = choose("--memory", w, kMemoryKinds); }},
        {"--device", [&](Word w) { memory.device = small(w, "--device"); }},
        {"--vmm", [&](Word w) { memory.chunkBytes = parseNumber(w, "--vmm"); }},
        {"--vmm-private", [&](Word w) { memory.chunksShareable = parseNumber(w, "--vmm-private") == 0; }},
        {"--seed", [&](Word w) { options.seed = parseNumber(w, "--seed"); }},
        {"--patience-ms", [&](Word w) { options.patienceMs = parseNumber(w, "--patience-ms"); }},
    };
}

void apply(Flags const& flags, int argc, char** argv)
{
    for (int at = 1; at < argc; ++at)
    {
        std::string const flag = argv[at];
        if (flag == "--help" || flag == "-h")
        {
            std::fputs(kUsage, stdout);
            std::exit(0);
        }
        auto const found = flags.find(flag);
        if (found == flags.end())
        {
            throw Failure(FailureKind::kUsage, "unknown flag \"" + flag + "\"; --help lists them");
        }
        if (++at == argc)
        {
            throw Failure(FailureKind::kUsage, flag + " needs a value");
        }
        found->second(argv[at]);
    }
}

} // namespace

uint32_t Options::ranks() const
{
    return role == Role::kContext ? geometry.contextTp : geometry.generationTp;
}

bool Options::sendsInRounds() const
{
    return library.seam == Seam::kConnections;
}

HeadRange Options::heads() const
{
    return role == Role::kContext ? geometry.contextHeads(rank) : geometry.generationHeads(rank);
}

uint64_t Options::slotBlocks() const
{
    return maxTokensInBuffer == 0 ? poolBlocks : maxTokensInBuffer / geometry.tokensPerBlock + 1;
}

uint64_t Options::slotBytes() const
{
    return shape == Shape::kStaged ? slotBlocks() * geometry.blockBytes(heads().count()) : 0;
}

Options parseOptions(int argc, char** argv)
{
    Options options;
    ConfigFile config;
    std::string backend;
    std::string seam;
    apply(flagsInto(options, config, backend, seam), argc, argv);
    if (options.maxTokensInBuffer == 0)
    {
        options.maxTokensInBuffer = config.maxTokensInBuffer;
    }
    options.library = libraryFor(backend.empty() ? config.backend : backend, seam);
    validate(options);
    return options;
}

} // namespace engine_host
