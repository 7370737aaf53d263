#include "partner.h"

#include "receiver.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <utility>

namespace seams
{
namespace
{

class Threads : public Partner
{
public:
    explicit Threads(Seam& seam)
        : mReceiver{seam}
    {
    }

    ~Threads() override
    {
        mReceiver.follow("abandon");
        while (mFollowing != 0)
        {
            std::this_thread::yield();
        }
    }

    std::future<std::string> tell(std::string const& command) override
    {
        mReceiver.hear(command);
        ++mFollowing;
        return std::async(std::launch::async,
            [this, command]
            {
                struct Done
                {
                    std::atomic<int>& following;

                    ~Done()
                    {
                        --following;
                    }
                } const done{mFollowing};
                return mReceiver.follow(command);
            });
    }

private:
    Receiver mReceiver;
    std::atomic<int> mFollowing{0};
};

void check(bool good, char const* call)
{
    if (!good)
    {
        throw std::runtime_error(std::string(call) + ": " + std::strerror(errno));
    }
}

// Commands and answers are lines that start with a number; "NUMBER + TEXT" is an answer, "NUMBER - TEXT" an error.
class Process : public Partner
{
public:
    explicit Process(Seam const& seam)
    {
        std::array<int, 2> commands{}, answers{};
        check(::pipe2(commands.data(), O_CLOEXEC) == 0, "pipe2");
        check(::pipe2(answers.data(), O_CLOEXEC) == 0, "pipe2");
        auto const parent = ::getpid();
        mChild = ::fork();
        check(mChild >= 0, "fork");
        if (mChild == 0)
        {
            ::prctl(PR_SET_PDEATHSIG, SIGKILL); // never outlives the scenario
            if (::getppid() != parent || ::dup2(commands[0], 0) < 0 || ::dup2(answers[1], 1) < 0)
            {
                ::_exit(127);
            }
            ::execl("/proc/self/exe", "baton-seam-host", "--seam", seam.name(), "--serve", nullptr);
            ::_exit(127);
        }
        ::close(commands[0]);
        ::close(answers[1]);
        mCommands = commands[1];
        mAnswers = ::fdopen(answers[0], "r");
        mReader = std::thread([this] { read(); });
    }

    ~Process() override
    {
        ::close(mCommands);
        if (mChild > 0)
        {
            ::kill(mChild, SIGKILL); // also one that is stopped
        }
        reap();
        mReader.join();
        std::fclose(mAnswers);
    }

    std::future<std::string> tell(std::string const& command) override
    {
        std::lock_guard const lock(mMutex);
        auto const number = mNext++;
        auto answer = mPending[number].get_future();
        if (mIsGone)
        {
            mPending[number].set_exception(gone());
            mPending.erase(number);
            return answer;
        }
        auto const line = std::to_string(number) + " " + command + "\n";
        for (size_t done = 0; done < line.size();)
        {
            auto const written = ::write(mCommands, line.data() + done, line.size() - done);
            check(written > 0, "write to the other process");
            done += static_cast<size_t>(written);
        }
        return answer;
    }

    void stop() override
    {
        signal(SIGSTOP);
        int status = 0;
        check(::waitpid(mChild, &status, WUNTRACED) == mChild && WIFSTOPPED(status), "waitpid");
    }

    void resume() override
    {
        signal(SIGCONT);
    }

    void kill() override
    {
        signal(SIGKILL);
        reap();
    }

private:
    static std::exception_ptr gone()
    {
        return std::make_exception_ptr(std::runtime_error("the other process has ended"));
    }

    void signal(int which)
    {
        if (mChild <= 0)
        {
            throw std::logic_error("the other process has been killed already");
        }
        check(::kill(mChild, which) == 0, "kill");
    }

    void reap()
    {
        if (mChild > 0)
        {
            ::waitpid(std::exchange(mChild, -1), nullptr, 0);
        }
    }

    // Hands answers to whoever waits for them, until the process is gone.
    void read()
    {
        char* line = nullptr;
        size_t room = 0;
        while (::getline(&line, &room, mAnswers) > 0)
        {
            std::istringstream words(line);
            uint64_t number = 0;
            char sign = 0;
            std::string text;
            words >> number >> sign;
            std::getline(words >> std::ws, text);
            std::lock_guard const lock(mMutex);
            auto const found = mPending.find(number);
            if (found == mPending.end())
            {
                continue;
            }
            if (sign == '+')
            {
                found->second.set_value(text);
            }
            else
            {
                found->second.set_exception(std::make_exception_ptr(std::runtime_error(text)));
            }
            mPending.erase(found);
        }
        std::free(line);
        std::lock_guard const lock(mMutex);
        mIsGone = true;
        for (auto& [number, promise] : mPending)
        {
            promise.set_exception(gone());
        }
        mPending.clear();
    }

    pid_t mChild;
    int mCommands;
    FILE* mAnswers;
    std::thread mReader;
    std::mutex mMutex; // what follows
    uint64_t mNext = 0;
    bool mIsGone = false;
    std::map<uint64_t, std::promise<std::string>> mPending;
};

} // namespace

void Partner::stop()
{
    throw std::logic_error("only a process can be stopped: the scenario needs processes=2");
}

void Partner::resume()
{
    throw std::logic_error("only a process can go on: the scenario needs processes=2");
}

void Partner::kill()
{
    throw std::logic_error("only a process can be killed: the scenario needs processes=2");
}

std::string Partner::ask(std::string const& command)
{
    auto answer = tell(command);
    return answerOf(answer, command);
}

std::string answerOf(std::future<std::string>& answer, std::string const& what)
{
    if (answer.wait_until(patience()) != std::future_status::ready)
    {
        throw std::runtime_error("the receiver does not answer: " + what.substr(0, 80));
    }
    return answer.get();
}

std::unique_ptr<Partner> partnerThreads(Seam& seam)
{
    return std::make_unique<Threads>(seam);
}

std::unique_ptr<Partner> partnerProcess(Seam const& seam)
{
    return std::make_unique<Process>(seam);
}

int serve(Seam& seam)
{
    Receiver receiver(seam);
    std::mutex output;
    std::vector<std::thread> followers;
    auto const follow = [&](std::string const& number, std::string const& command)
    {
        std::string answer;
        try
        {
            answer = " + " + receiver.follow(command);
        }
        catch (std::exception const& error)
        {
            answer = std::string(" - ") + error.what();
            std::replace(answer.begin(), answer.end(), '\n', ' ');
        }
        std::lock_guard const lock(output);
        std::cout << number << answer << std::endl;
    };
    for (std::string number, command; std::cin >> number && std::getline(std::cin >> std::ws, command);)
    {
        receiver.hear(command);
        followers.emplace_back(follow, number, command);
        if (!isExpectation(command))
        {
            followers.back().join(); // in their order, but for those that wait
            followers.pop_back();
        }
    }
    receiver.follow("abandon");
    for (auto& follower : followers)
    {
        follower.join();
    }
    return 0;
}

} // namespace seams
