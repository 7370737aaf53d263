// The threads of one hand-over, one per peer, and the first failure of any of them.
#pragma once

#include <chrono>
#include <future>
#include <utility>
#include <vector>

namespace engine_host
{

class Crew
{
public:
    // Every task has to end before the crew can go.
    template <typename Task>
    void start(Task task)
    {
        mTasks.push_back(std::async(std::launch::async, std::move(task)));
    }

    // Waits a while. Whether all tasks have ended; throws what one of them threw.
    bool done(std::chrono::milliseconds wait)
    {
        auto const until = std::chrono::steady_clock::now() + wait;
        while (!mTasks.empty() && mTasks.back().wait_until(until) == std::future_status::ready)
        {
            auto task = std::move(mTasks.back());
            mTasks.pop_back();
            task.get();
        }
        return mTasks.empty();
    }

private:
    std::vector<std::future<void>> mTasks;
};

} // namespace engine_host
