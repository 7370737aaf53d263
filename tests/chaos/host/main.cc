// baton-chaos-host: one side of a chaos run. It opens the library as TensorRT-LLM does, links nothing of Baton's, and
// follows commands (desk.h) from standard input until that ends.
//
//   a command    NUMBER VERB ...       an answer    NUMBER + TIME TEXT, or NUMBER - TIME TEXT for an error
//
// TIME is CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.

#include "desk.h"
#include "storm.h"

#include <algorithm>
#include <csignal>
#include <cstring>
#include <dlfcn.h>
#include <iostream>
#include <sys/prctl.h>
#include <thread>
#include <unistd.h>

namespace chaos
{
namespace
{

struct Options
{
    std::string seam = "s1";
    std::string memory;
    Shape shape;
    pid_t parent = 0;
    bool isStormy = false;
    std::string open;       // a library that the host has for itself
};

Options parse(int argc, char** argv)
{
    Options options;
    for (int at = 1; at < argc; ++at)
    {
        std::string const flag = argv[at];
        if (flag == "--storm")
        {
            options.isStormy = true;
            continue;
        }
        if (++at == argc)
        {
            throw std::invalid_argument("cannot follow " + flag);
        }
        std::string const value = argv[at];
        if (flag == "--seam" || flag == "--memory" || flag == "--open")
        {
            (flag == "--seam" ? options.seam : flag == "--memory" ? options.memory : options.open) = value;
            continue;
        }
        auto const number = std::stoull(value);
        if (flag == "--parent")
        {
            options.parent = static_cast<pid_t>(number);
            continue;
        }
        auto* const size = flag == "--piece-bytes" ? &options.shape.pieceBytes
            : flag == "--pieces"                   ? &options.shape.pieces
            : flag == "--slots"                    ? &options.shape.slots
                                                   : nullptr;
        (size != nullptr ? *size : throw std::invalid_argument("cannot follow " + flag)) = number;
    }
    return options;
}

int64_t nowNs()
{
    return std::chrono::steady_clock::now().time_since_epoch().count();
}

// One line, in one write: other threads answer too.
void answer(std::string const& number, char sign, std::string text)
{
    std::replace(text.begin(), text.end(), '\n', ' ');
    auto const line = number + ' ' + sign + ' ' + std::to_string(nowNs()) + ' ' + text + '\n';
    static std::mutex output;
    std::lock_guard const lock(output);
    std::cout << line << std::flush;
}

int serve(Desk& desk)
{
    for (std::string number, command; std::cin >> number && std::getline(std::cin >> std::ws, command);)
    {
        desk.expect(command);
        std::thread(
            [&desk, number, command]
            {
                try
                {
                    InStorm const storm;
                    answer(number, '+', desk.follow(command));
                }
                catch (std::exception const& error)
                {
                    answer(number, '-', error.what());
                }
            })
            .detach();
    }
    return 0;
}

std::unique_ptr<seams::Seam> makeSeam(std::string const& name)
{
    return name == "s3" ? seams::makeSeamS3() : seams::makeSeamS1();
}

int run(Options const& options)
{
    ::prctl(PR_SET_PDEATHSIG, SIGKILL); // never outlives its driver
    if (options.parent != 0 && ::getppid() != options.parent)
    {
        return 2;
    }
    if (!options.open.empty() && ::dlopen(options.open.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr)
    {
        throw std::runtime_error(::dlerror());
    }
    // What hosts hold in singletons is destroyed with static objects; the memory outlives even that, for threads go
    // on until the process is gone.
    auto* const arena = new Arena(options.memory, options.shape);
    static auto const seam = makeSeam(options.seam);
    static Desk desk(*seam, *arena);
    if (options.isStormy)
    {
        startStorm();
    }
    return serve(desk);
}

} // namespace
} // namespace chaos

int main(int argc, char** argv)
{
    // As hosts have it, and as the tests want it where nobody chose.
    std::signal(SIGPIPE, SIG_IGN);
    ::setenv("BATON_TRTLLM_ABI", "p4", 0);
    ::setenv("TRTLLM_NIXL_INTERFACE", "lo", 0);
    ::setenv("TRTLLM_UCX_INTERFACE", "lo", 0);
    try
    {
        return chaos::run(chaos::parse(argc, argv));
    }
    catch (std::exception const& error)
    {
        std::fprintf(stderr, "baton-chaos-host: %s\n", error.what());
        return 2;
    }
}
