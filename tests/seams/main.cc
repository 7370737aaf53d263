// baton-seam-host: plays the scenarios of a list at one seam, each in a process of its own.
//
//   baton-seam-host --seam s1 --list scenarios.txt [--kinds move,break] [--only TEXT] [--verbose]
//   baton-seam-host --seam s1 --list scenarios.txt --play NAME     one, in this process
//   baton-seam-host --seam s1 --serve                              the receiver's process (partner.h)
//
// The library is found as a host finds it: by its bare name, through LD_LIBRARY_PATH. Exit code 0: every scenario
// that the seam and the machine have went well; 1: some did not; 2: usage; 77: the lanes of BATON_LANES cannot be had on
// this machine.

#include "partner.h"
#include "play.h"
#include "rig.h"

#include "host_cuda/driver.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

namespace seams
{
namespace
{

constexpr size_t kLimitSeconds = SCENARIO_LIMIT_S;
constexpr int kSkipped = 77;

struct Options
{
    std::string seam;
    std::string list;
    std::string kinds;
    std::string only;
    std::string play;
    bool serve = false;
    bool verbose = false;
};

// --- the watchdog -----------------------------------------------------------------------------------------------

char gScenario[128] = "?";
char gNote[160] = "?";

extern "C" void onAlarm(int)
{
    // Nothing that allocates: whoever hangs may hold the allocator's lock.
    auto const say = [](char const* text) { return ::write(2, text, std::strlen(text)); };
    bool const said = say("watchdog: scenario ") + say(gScenario) + say(" does not end; it was about to: ") + say(gNote)
            + say("\n")
        > 0;
    ::_exit(said ? 124 : 125);
}

// --- one scenario, in this process ------------------------------------------------------------------------------

void play(Seam& seam, Scenario const& scenario)
{
    constexpr std::pair<char const*, void (*)(Seam&, Scenario const&)> kPlayers[] = {
        {"move", playMove},
        {"threads", playThreads},
        {"refusal", playRefusal},
        {"break", playBreak},
        {"shutdown", playShutdown},
        {"order", playOrder},
    };
    for (auto const& [kind, player] : kPlayers)
    {
        if (scenario.kind == kind)
        {
            return player(seam, scenario);
        }
    }
    throw std::runtime_error("nobody plays a " + scenario.kind);
}

int playHere(Seam& seam, Scenario const& scenario)
{
    std::snprintf(gScenario, sizeof(gScenario), "%s", scenario.name.c_str());
    std::signal(SIGALRM, onAlarm);
    ::alarm(static_cast<unsigned>(scenario.number("limit_s", kLimitSeconds)));
    if (auto const silence = scenario.text("peer_timeout_ms"); !silence.empty())
    {
        ::setenv("BATON_PEER_TIMEOUT_MS", silence.c_str(), 1);
    }
    try
    {
        play(seam, scenario);
        return 0;
    }
    catch (std::exception const& error)
    {
        std::cout << std::flush;
        std::cerr << "failed at \"" << gNote << "\": " << error.what() << std::endl;
        return 1;
    }
}

// --- all of them, each in a process -----------------------------------------------------------------------------

// A file without a name for what a process says.
FILE* openOutput()
{
    FILE* const output = std::tmpfile();
    return output != nullptr ? output : throw std::runtime_error("no temporary file for a process's output");
}

// A child's status once it has ended; its own alarm bounds it.
int awaitEnd(pid_t child, std::string const& what)
{
    int status = 0;
    if (child < 0 || ::waitpid(child, &status, 0) != child)
    {
        throw std::runtime_error("a process for " + what + ": " + std::strerror(errno));
    }
    return status;
}

// What a process has said.
std::string contents(FILE* file)
{
    std::string text;
    std::rewind(file);
    char part[4096];
    for (size_t got = 0; (got = std::fread(part, 1, sizeof(part), file)) > 0;)
    {
        text.append(part, got);
    }
    return text;
}

// How a process ended, in words; empty when well.
std::string ending(int status)
{
    if (WIFSIGNALED(status))
    {
        return std::string("crashed: ") + ::strsignal(WTERMSIG(status));
    }
    return WEXITSTATUS(status) == 0 ? "" : "exit code " + std::to_string(WEXITSTATUS(status));
}

// Plays a scenario in a process of its own; whether it went well.
bool playApart(Options const& options, Scenario const& scenario)
{
    auto const start = std::chrono::steady_clock::now();
    FILE* const output = openOutput();
    auto const child = ::fork();
    if (child == 0)
    {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        ::dup2(::fileno(output), 1);
        ::dup2(::fileno(output), 2);
        ::execl("/proc/self/exe", "baton-seam-host", "--seam", options.seam.c_str(), "--list", options.list.c_str(),
            "--play", scenario.name.c_str(), nullptr);
        ::_exit(127);
    }
    auto const status = awaitEnd(child, scenario.name);
    std::chrono::duration<double> const took = std::chrono::steady_clock::now() - start;
    auto const bad = ending(status);
    std::printf("%-4s %-34s %6.2f s  %s\n", bad.empty() ? "ok" : "FAIL", scenario.name.c_str(), took.count(), bad.c_str());
    if (!bad.empty() || options.verbose)
    {
        std::printf("%s\n", contents(output).c_str());
    }
    std::fflush(stdout);
    std::fclose(output);
    return bad.empty();
}

// What a call says and throws, made in a process of its own.
template <typename Call>
std::string heardFrom(std::string const& what, Call&& call)
{
    FILE* const output = openOutput();
    auto const child = ::fork();
    if (child == 0)
    {
        ::dup2(::fileno(output), 1);
        ::dup2(::fileno(output), 2);
        ::alarm(kLimitSeconds);
        try
        {
            call();
        }
        catch (std::exception const& error)
        {
            std::cout << error.what() << std::endl;
        }
        ::_exit(0);
    }
    awaitEnd(child, what);
    auto const text = contents(output);
    std::fclose(output);
    return text;
}

// Why the lane that was asked for cannot be had on this machine; empty where it can.
std::string unavailable(Seam& seam)
{
    auto const text = heardFrom("the first agent", [&seam] { seam.makeSide("probe"); });
    auto const at = text.find("no lane can be had");
    return at == std::string::npos ? "" : text.substr(at, text.find('\n', at) - at);
}

// Why this machine has no memory of a GPU; empty where it has.
std::string withoutGpu()
{
    auto const text = heardFrom("the CUDA driver", [] { host_cuda::Driver::get().use(0); });
    return text.substr(0, text.find('\n'));
}

bool needsGpu(Scenario const& scenario)
{
    auto const isDram = [&](char const* end) { return storeNamed(scenario.text(end, "dram")) == Store::kDram; };
    return !isDram("source") || !isDram("destination");
}

int playAll(Options const& options, Seam& seam, std::vector<Scenario> const& scenarios)
{
    if (auto const reason = unavailable(seam); !reason.empty())
    {
        std::printf("seam %s: all left out, %s\n", seam.name(), reason.c_str());
        return kSkipped;
    }
    auto const noGpu = withoutGpu();
    size_t good = 0, skipped = 0, failed = 0;
    for (auto const& scenario : scenarios)
    {
        auto const& kinds = options.kinds;
        bool const isWanted = kinds.empty() || ("," + kinds + ",").find("," + scenario.kind + ",") != std::string::npos;
        if (!isWanted || scenario.name.find(options.only) == std::string::npos)
        {
            continue;
        }
        if (auto const reason = seam.lacks(scenario); !reason.empty())
        {
            std::printf("skip %-34s not at seam %s: %s\n", scenario.name.c_str(), seam.name(), reason.c_str());
            ++skipped;
            continue;
        }
        if (!noGpu.empty() && needsGpu(scenario))
        {
            std::printf("skip %-34s not on this machine: %s\n", scenario.name.c_str(), noGpu.c_str());
            ++skipped;
            continue;
        }
        ++(playApart(options, scenario) ? good : failed);
    }
    std::printf("seam %s: %zu scenarios went well, %zu do not exist there or on this machine, %zu failed\n", seam.name(), good, skipped, failed);
    return failed == 0 && good != 0 ? 0 : 1;
}

Options parse(int argc, char** argv)
{
    Options options;
    for (int at = 1; at < argc; ++at)
    {
        std::string const flag = argv[at];
        if (flag == "--serve" || flag == "--verbose")
        {
            (flag == "--serve" ? options.serve : options.verbose) = true;
            continue;
        }
        auto* const value = flag == "--seam" ? &options.seam
            : flag == "--list"               ? &options.list
            : flag == "--kinds"              ? &options.kinds
            : flag == "--only"               ? &options.only
            : flag == "--play"               ? &options.play
                                             : nullptr;
        if (value == nullptr || ++at == argc)
        {
            throw std::invalid_argument("cannot follow " + flag);
        }
        *value = argv[at];
    }
    return options;
}

int run(Options const& options)
{
    auto const seam = makeSeam(options.seam);
    if (options.serve)
    {
        return serve(*seam);
    }
    auto const scenarios = readScenarios(options.list);
    if (options.play.empty())
    {
        return playAll(options, *seam, scenarios);
    }
    auto const found = std::find_if(
        scenarios.begin(), scenarios.end(), [&](Scenario const& scenario) { return scenario.name == options.play; });
    if (found == scenarios.end())
    {
        throw std::invalid_argument("no scenario " + options.play);
    }
    return playHere(*seam, *found);
}

} // namespace

void note(std::string const& text)
{
    // One writer at a time; the watchdog, a signal's handler, reads it as it finds it.
    static std::mutex writer;
    std::lock_guard<std::mutex> const guard(writer);
    std::snprintf(gNote, sizeof(gNote), "%s", text.c_str());
}

std::unique_ptr<Seam> makeSeam(std::string const& name)
{
    if (name == "s1")
    {
        return makeSeamS1();
    }
    if (name == "s3")
    {
        return makeSeamS3();
    }
    throw std::invalid_argument("there is no seam '" + name + "' here; there are: s1, s3");
}

} // namespace seams

int main(int argc, char** argv)
{
    // As hosts have it, and as the tests want it where nobody chose.
    std::signal(SIGPIPE, SIG_IGN);
    ::setenv("BATON_TRTLLM_ABI", "p4", 0);
    ::setenv("TRTLLM_NIXL_INTERFACE", "lo", 0);
    ::setenv("TRTLLM_UCX_INTERFACE", "lo", 0);
    try
    {
        return seams::run(seams::parse(argc, argv));
    }
    catch (std::exception const& error)
    {
        std::fprintf(stderr, "baton-seam-host: %s\n", error.what());
        return 2;
    }
}
