// Knows when a peer is gone while nothing is sent to it or expected from it. One thread per connection hears the signs
// of life; the caller's thread gives them.
#pragma once

#include "connections/channel.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace engine_host
{

class Watch
{
public:
    explicit Watch(std::atomic<bool> const& terminate);
    // `terminate` must be set: the threads end by it.
    ~Watch();
    Watch(Watch const&) = delete;
    Watch& operator=(Watch const&) = delete;

    // Watches a peer, unless its connection is watched already. From any thread.
    void add(Channel const& channel);
    // Gives every peer a sign of life, a few times a second. Throws Failure(kPeerLost) when one is gone.
    void tick();
    // When any of them was last heard, on the clock of monotonicNs().
    uint64_t heardNs() const;

private:
    void listen(Channel const& channel);

    std::atomic<bool> const& mTerminate;
    std::atomic<uint64_t> mHeardNs{0};
    std::chrono::steady_clock::time_point mLastTick;
    std::mutex mMutex; // guards what follows
    std::vector<Channel> mChannels;
    std::vector<std::thread> mListeners;
    std::exception_ptr mLost;
};

} // namespace engine_host
