#include "storm.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <stdexcept>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace chaos
{
namespace
{

constexpr long kEveryNs = 1'000'000;
constexpr auto kChildEvery = std::chrono::milliseconds(20);

std::atomic<bool> stormy{false};
// Written by handlers: lock-free, or the build says so.
std::atomic<uint64_t> profs{0};
std::atomic<uint64_t> children{0};
static_assert(std::atomic<uint64_t>::is_always_lock_free);
thread_local bool isIn = false;

void handle(int signal)
{
    struct sigaction action
    {
    };
    action.sa_handler = [](int which) { (which == SIGPROF ? profs : children) += isIn; };
    ::sigaction(signal, &action, nullptr); // without SA_RESTART
}

void mask(int how)
{
    sigset_t signals;
    ::sigemptyset(&signals);
    ::sigaddset(&signals, SIGPROF);
    ::sigaddset(&signals, SIGCHLD);
    ::pthread_sigmask(how, &signals, nullptr);
}

[[noreturn]] void makeChildren()
{
    for (;;)
    {
        auto const child = ::fork();
        if (child == 0)
        {
            ::_exit(0);
        }
        std::this_thread::sleep_for(kChildEvery);
        if (child > 0)
        {
            ::waitpid(child, nullptr, 0);
        }
    }
}

} // namespace

void startStorm()
{
    handle(SIGPROF);
    handle(SIGCHLD);
    // Before the thread that forks is started: it would take the signals of its own children.
    mask(SIG_BLOCK);
    stormy = true;
    std::thread(makeChildren).detach();
}

InStorm::InStorm()
{
    if (!stormy)
    {
        return;
    }
    struct sigevent event
    {
    };
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGPROF;
    event._sigev_un._tid = static_cast<pid_t>(::syscall(SYS_gettid));
    struct itimerspec const every = {{0, kEveryNs}, {0, kEveryNs}};
    if (::timer_create(CLOCK_MONOTONIC, &event, &mTimer) != 0)
    {
        throw std::runtime_error("no timer for the storm of signals");
    }
    ::timer_settime(mTimer, 0, &every, nullptr);
    mIsIn = isIn = true;
    mask(SIG_UNBLOCK);
}

InStorm::~InStorm()
{
    if (mIsIn)
    {
        mask(SIG_BLOCK);
        ::timer_delete(mTimer);
    }
}

std::string signalsTaken()
{
    return std::to_string(profs) + ' ' + std::to_string(children);
}

} // namespace chaos
