// The two phases, each as one rank plays it. `run` serves commands until stdin ends (Stopped) or a Failure.
//
//   generation                         context
//       |                                 | prepare: fill the KV of a request (staged: gather it into the slot)
//       |-- RequestAndBufferInfo -------->|
//       |                                 | first contact: invalidate, load
//       |<------------------ ReadySignal--|
//       |<== one-sided WRITE =============| submit, wait
//       |<------------- DoneNotification--|
//       | check (staged: scatter first)   |
#pragma once

#include "console.h"
#include "endpoint.h"
#include "memory.h"
#include "options.h"

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace engine_host
{

// What a rank of either role has.
struct Rank
{
    Rank(Options const& options, Console& console);
    ~Rank();
    Rank(Rank const&) = delete;
    Rank& operator=(Rank const&) = delete;

    Options const& options;
    Console& console;
    BlockPool pool;
    Mapping slot;
    Endpoint endpoint; // last, so that it goes first: it knows the memory above

    std::vector<kv::MemoryDesc> shared() const;

    // The pieces of each request that this rank sends or receives.
    std::vector<Piece> pieces() const;
    // Tells the driver how to reach this rank, then serves: hands each command to `obey` and each notification to
    // `takeIn`, and calls `proceed` in every turn. After quit() only the end of stdin counts: peers may leave first.
    void run(int commandWaitMs, std::function<void(std::vector<std::string> const&)> const& obey,
        std::function<void(Received&&)> const& takeIn, std::function<void()> const& proceed);
    void quit();
    // Throws Failure(kUsage) when a request of that many blocks does not fit into the slot.
    void requireSlot(uint64_t request, uint64_t blocks) const;
    // Signs of life, and whether the driver still wants us.
    void tick();

private:
    void announce();

    bool mQuitting = false;
};

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
    struct Prepared
    {
        uint64_t request;
        std::vector<uint32_t> blocks;
    };

    struct Asked
    {
        std::string peer;
        RequestAndBufferInfo info;
    };

    void obey(std::vector<std::string> const& words);
    void prepare(uint64_t request, uint64_t tokens, bool corrupt);
    void gather();
    void corruptOneByte();
    void takeIn(Received received);
    void serve();
    void send(std::vector<Asked> const& asked);
    void describe(Piece const& piece, RequestAndBufferInfo const& info, std::vector<kv::MemoryDesc>& source,
        std::vector<kv::MemoryDesc>& destination) const;
    void await(kv::TransferStatus const& status, std::string const& peer);

    Rank mRank;
    std::vector<Piece> mPieces; // those that this rank sends
    std::optional<Prepared> mPrepared;
    std::map<uint64_t, std::vector<Asked>> mAsked; // by request
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
    struct Context
    {
        std::string name;
        std::string connectionInfo;
    };

    struct Landing
    {
        uint64_t request;
        std::vector<uint32_t> blocks;
        size_t ready = 0;
        std::vector<DoneNotification> done;
    };

    void obey(std::vector<std::string> const& words);
    void receive(uint64_t request, uint64_t tokens);
    void ask(Piece const& piece);
    void awaitAll();
    void reportReceived() const;
    void takeIn(Received const& received);
    void check(uint64_t request);
    void scatter();

    Rank mRank;
    std::vector<Piece> mPieces; // those that this rank receives
    std::map<uint64_t, Context> mContexts; // by rank
    std::optional<Landing> mLanding;
    uint64_t mCorrupt = 0;
};

} // namespace engine_host
