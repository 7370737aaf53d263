// What hosts do besides transfers: they unload the library, fork, end in the middle of things, and what the driver has to
// notice.

#include "desk.h"
#include "storm.h"
#include "words.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace chaos
{
namespace
{

// A child of a fork that does not end by then is ended.
constexpr unsigned kChildSeconds = 10;

// What a call in a forked child came to, in a few words.
template <typename Call>
std::string outcomeOf(char const* name, Call&& call)
{
    try
    {
        call();
        return std::string(name) + ": returned; ";
    }
    catch (std::exception const& error)
    {
        return std::string(name) + ": " + error.what() + "; ";
    }
}

} // namespace

std::string Desk::closeLibrary(Words&)
{
    mSeam.closeLibrary();
    return {};
}

// The child has one thread, and calls the library as a careless host would. Then it ends as a C++ program does.
std::string Desk::forkChild(Words& words)
{
    auto const peer = next<std::string>(words);
    int answers[2]{};
    if (::pipe(answers) != 0)
    {
        throw std::runtime_error("pipe");
    }
    Use const side(*this);
    std::unique_lock lock(mMutex);
    auto const child = ::fork();
    if (child == 0)
    {
        ::alarm(kChildSeconds);
        mUsers = mWaiting = 0; // the threads that use it are the parent's
        lock.unlock();
        auto const said = outcomeOf("card", [&] { side->card(); })
            + outcomeOf("confirm", [&] { side->confirm(peer, 77); })
            + outcomeOf("forget", [&] { side->forget(peer); })
            + outcomeOf("withdraw", [&] { side->withdraw(seams::Kind::kDram, {mArena.extent(1)}); });
        auto const written = ::write(answers[1], said.data(), said.size());
        std::exit(written == static_cast<ssize_t>(said.size()) ? 0 : 1);
    }
    lock.unlock();
    ::close(answers[1]);
    std::string said;
    char part[512];
    for (ssize_t got = 0; (got = ::read(answers[0], part, sizeof(part))) > 0;)
    {
        said.append(part, static_cast<size_t>(got));
    }
    ::close(answers[0]);
    int status = 0;
    if (child < 0 || ::waitpid(child, &status, 0) != child || status != 0)
    {
        throw std::runtime_error("the child ended with status " + std::to_string(status) + " after: " + said);
    }
    return said;
}

std::string Desk::exitNow(Words&)
{
    std::exit(0);
}

std::string Desk::storm(Words&)
{
    return signalsTaken();
}

std::string Desk::hoard(Words& words)
{
    auto const bytes = next<size_t>(words);
    auto* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
    {
        throw std::runtime_error(std::string("mmap: ") + std::strerror(errno));
    }
    ::munmap(memory, bytes);
    return {};
}

std::string Desk::plant(Words& words)
{
    auto const what = next<std::string>(words);
    if (what == "scribble")
    {
        auto const pieces = mArena.pieces(next<size_t>(words));
        *reinterpret_cast<unsigned char*>(pieces.back().addr + 1) ^= 0x55;
    }
    else if (what == "hang")
    {
        Use const side(*this);
        for (;;)
        {
            std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
    else if (what == "crash")
    {
        std::abort();
    }
    else if (what == "unquiet")
    {
        mIsUnquiet = true;
    }
    else if (what == "keep")
    {
        std::fprintf(stderr, "ERROR planted: its memory must not be reused\n");
    }
    return {};
}

} // namespace chaos
