#include "storm.h"

#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <stdexcept>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

namespace chaos
{
namespace
{

constexpr long kEveryNs = 1'000'000;
constexpr auto kChildEvery = std::chrono::milliseconds(20);

void handle(int signal)
{
    struct sigaction action
    {
    };
    action.sa_handler = [](int) {};
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
        while (child > 0 && ::waitpid(child, nullptr, 0) < 0 && errno == EINTR)
        {
        }
    }
}

} // namespace

void startStorm()
{
    handle(SIGPROF);
    handle(SIGCHLD);
    struct sigevent event
    {
    };
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGPROF;
    timer_t timer{};
    struct itimerspec const every = {{0, kEveryNs}, {0, kEveryNs}};
    if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 || ::timer_settime(timer, 0, &every, nullptr) != 0)
    {
        throw std::runtime_error("no timer for the storm of signals");
    }
    std::thread(makeChildren).detach();
    mask(SIG_BLOCK);
}

void joinStorm()
{
    mask(SIG_UNBLOCK);
}

} // namespace chaos
