// The two phases, each as one rank plays it: what they do with KV caches, and what the driver may tell them. How
// bytes travel is their seam's (seam.h). `run` serves commands until stdin ends (Stopped) or a Failure.
//
//   context      prepare: fill the KV of a request (staged: gather it into the slot); send once all have asked
//   generation   receive: ask, wait until it has landed; check (staged: scatter first)
#pragma once

#include "seam.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace engine_host
{

class ContextRank
{
public:
    ContextRank(Options const& options, Console& console);
    void run();
    // A context rank checks nothing.
    uint64_t corrupt() const
    {
        return 0;
    }

private:
    bool obey(std::vector<std::string> const& words);
    void prepare(uint64_t request, uint64_t tokens, bool corrupt);
    void corruptOneByte();
    void serve();

    Rank mRank;
    std::unique_ptr<Sender> mSender; // after the rank, so that it goes first
    std::optional<Request> mPrepared;
};

class GenerationRank
{
public:
    GenerationRank(Options const& options, Console& console);
    void run();
    // Requests whose bytes were not what they must be.
    uint64_t corrupt() const
    {
        return mCorrupt;
    }

private:
    bool obey(std::vector<std::string> const& words);
    void receive(uint64_t request, uint64_t tokens);
    void check(uint64_t request);

    Rank mRank;
    std::unique_ptr<Receiver> mReceiver; // after the rank, so that it goes first
    std::optional<Request> mLanded;
    uint64_t mCorrupt = 0;
};

} // namespace engine_host
