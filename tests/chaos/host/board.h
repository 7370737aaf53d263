// What a host shares with the program that drives it: a board on which it says how far it is, and the memory that
// moves. The driver made it, fills it, watches it and checks it, also when the host is stopped or dead.
//
//   0       Board           4096    background         8192    slot 0, rounded up, one page of background, slot 1, ...
//   a slot: `pieces` times `pieceBytes` bytes that move and kGap bytes of background
//
// tests/chaos/src/arena.rs computes the same places.

#pragma once

#include "memory.h"

#include <atomic>
#include <string>
#include <vector>

namespace chaos
{

// How far a host is. The driver knows the same names in the same order (tests/chaos/src/phase.rs, which reads this
// file in a test).
enum class Phase
{
    kCreate,     // before the call, kCreated: after it; so for all pairs
    kCreated,
    kRegister,
    kRegistered,
    kBlob,       // the blob is read
    kConnect,    // to an address
    kConnected,
    kIntroduce,
    kIntroduced,
    kHear,
    kHeard,
    kForget,
    kForgot,
    kLoad,       // of a blob
    kLoaded,
    kSubmit,
    kSubmitted,
    kSuccess,    // seen by the sender
    kNotify,
    kNotified,
    kReceive,
    kReceived,
    kCancel,
    kCancelled,
    kDrop,
    kDropped,
    kWithdraw,
    kWithdrawn,
    kDestroy,
    kDestroyed,
    kLeave,      // a peer that was met before is forgotten
    kLeft,
};

// The first page. All of it is zero at first.
struct Board
{
    std::atomic<int64_t> clockShiftNs;  // read by the clock shim
    std::atomic<uint64_t> reachedNs[64]; // per phase: when it was first reached (CLOCK_MONOTONIC), or 0
};

// Where bytes lie in a slot.
struct Shape
{
    size_t pieceBytes = 0;
    size_t pieces = 0;
    size_t slots = 0;
};

// The shared memory, mapped.
class Arena
{
public:
    // Maps the file at `path`, which is as large as `shape` asks for. Throws std::runtime_error.
    Arena(std::string const& path, Shape const& shape);
    ~Arena();
    Arena(Arena const&) = delete;
    Arena& operator=(Arena const&) = delete;

    // Says that a phase is reached, if it is the first time.
    void reach(Phase phase);

    // All pieces of a slot and the gaps between them: what is registered.
    seams::Span extent(size_t slot) const;

    std::vector<seams::Span> pieces(size_t slot) const;

    // The same places in a peer's slot that begins at `base`.
    std::vector<seams::Span> piecesAt(uintptr_t base) const;

private:
    size_t extentBytes() const;

    Shape mShape;
    size_t mSize;
    unsigned char* mMapping;
    Board* mBoard;
};

} // namespace chaos
