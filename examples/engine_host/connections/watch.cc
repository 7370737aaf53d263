#include "connections/watch.h"

#include "clock.h"
#include "connections/protocol.h"

#include <algorithm>

namespace engine_host
{
namespace
{

using Clock = std::chrono::steady_clock;

constexpr auto kTickInterval = std::chrono::milliseconds(200);

} // namespace

Watch::Watch(std::atomic<bool> const& terminate)
    : mTerminate(terminate)
    , mLastTick(Clock::now())
{
}

Watch::~Watch()
{
    for (std::thread& listener : mListeners)
    {
        listener.join();
    }
}

void Watch::add(Channel const& channel)
{
    std::lock_guard<std::mutex> const lock(mMutex);
    bool const watched = std::any_of(mChannels.begin(), mChannels.end(),
        [&](Channel const& known) { return known.connection() == channel.connection(); });
    if (!watched)
    {
        mChannels.push_back(channel);
        mListeners.emplace_back([this, channel] { listen(channel); });
    }
}

void Watch::listen(Channel const& channel)
{
    try
    {
        while (!mTerminate)
        {
            channel.hear<uint8_t>(kAliveTag);
            mHeardNs = monotonicNs();
        }
    }
    catch (...)
    {
        std::lock_guard<std::mutex> const lock(mMutex);
        mLost = mTerminate || mLost ? mLost : std::current_exception();
    }
}

void Watch::tick()
{
    std::vector<Channel> channels;
    {
        std::lock_guard<std::mutex> const lock(mMutex);
        if (mLost)
        {
            std::rethrow_exception(mLost);
        }
        auto const now = Clock::now();
        if (now - mLastTick < kTickInterval)
        {
            return;
        }
        mLastTick = now;
        channels = mChannels;
    }
    for (Channel const& channel : channels)
    {
        channel.say(kAliveTag, uint8_t{1});
    }
}

uint64_t Watch::heardNs() const
{
    return mHeardNs;
}

} // namespace engine_host
