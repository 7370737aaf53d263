// A seam as the scenarios see it: sides that are made, meet, and move pieces of memory from one to the other.
//
//   sender                              receiver
//   offer(source)                       offer(destination)
//                <--- greet ---         the receiver asks first, as a generation worker does
//   welcome
//   send, wait, confirm  ===========>   receive
//
// An adapter (seam_s1.cc, seam_s3.cc) maps this onto one binary seam and says what does not exist there; it adds no
// scenario. One-sided seams use the pieces that `send` is told of the peer's; two-sided ones those of `receive`, and
// move nothing before it is called.
// Calls throw what the library throws. A side may be used by several threads, until it is destroyed.

#pragma once

#include "memory.h"
#include "scenario.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

namespace seams
{

using Deadline = std::chrono::steady_clock::time_point;

// How long from now anything in a scenario may take; its watchdog fires later.
inline Deadline patience()
{
    return std::chrono::steady_clock::now() + std::chrono::seconds(25);
}

// What to move.
struct Shipment
{
    std::string peer;
    uint64_t id; // tells moves of one pair apart
    bool isRead; // the peer's pieces are the source
    bool withMessage; // the announcement travels with the data; otherwise confirm() sends it
    std::vector<Span> ours;
    std::vector<Span> theirs;
    Kind oursAre = Kind::kDram;
    Kind theirsAre = Kind::kDram;
};

enum class State
{
    kUnderWay,
    kDone,
    kFailed
};

// A shipment under way, as its sender holds it. Destroying it breaks it off.
class Outgoing
{
public:
    virtual ~Outgoing() = default;
    virtual bool isOver() = 0;
    // Waits until it is over, at most `timeout_ms`; -1: as long as the library takes.
    virtual State wait(int64_t timeout_ms) = 0;
    // Breaks it off; whether no byte of it can land any more.
    virtual bool cancel() = 0;
    // Why it failed.
    virtual std::string error() = 0;
};

// One host object that moves memory: an agent, a connection manager.
class Side
{
public:
    virtual ~Side() = default;

    // Makes memory usable in moves.
    virtual void offer(Kind kind, std::vector<Span> const& spans) = 0;
    virtual void withdraw(Kind kind, std::vector<Span> const& spans) = 0;

    // What a peer needs to reach this side. Opaque bytes.
    virtual std::string card() = 0;
    // A card that leads to an address alone.
    virtual std::string cardOf(std::string const& address) = 0;

    // Gets ready to move with a peer, without a word to its host.
    virtual void reach(std::string const& peer, std::string const& card) = 0;
    // The receiver's first contact, and the sender's answer to it.
    virtual void greet(std::string const& peer, std::string const& card) = 0;
    virtual void welcome(std::string const& peer, std::string const& card, Deadline deadline) = 0;
    // Parts of them: the receiver says who it is to a peer that it can reach; the sender hears of a receiver, or
    // throws soon after `abandoned`.
    virtual void introduce(std::string const& peer) = 0;
    virtual void hear(std::string const& peer, std::atomic<bool> const& abandoned) = 0;
    virtual void forget(std::string const& peer) = 0;

    virtual std::unique_ptr<Outgoing> send(Shipment const& shipment) = 0;
    // Announces a shipment that is done.
    virtual void confirm(std::string const& peer, uint64_t id) = 0;
    // Returns when the pieces of a shipment are there. Throws when the sender is gone, and soon after `abandoned`.
    virtual void receive(
        std::string const& peer, uint64_t id, std::vector<Span> const& pieces, std::atomic<bool> const& abandoned)
        = 0;

    // Ends the side's work without destroying it, where the seam has a call for that.
    virtual void shutdown() = 0;
};

class Seam
{
public:
    virtual ~Seam() = default;
    virtual char const* name() const = 0;
    // Why a scenario cannot be played at this seam: the part that does not exist there. Empty: it can.
    virtual std::string lacks(Scenario const& scenario) const = 0;
    // Whether nothing moves without a receive.
    virtual bool isTwoSided() const = 0;
    virtual std::unique_ptr<Side> makeSide(std::string const& name) = 0;
    // Gives the library back, as a host's loader does, while its objects may live on.
    virtual void closeLibrary() = 0;
};

// The adapters.
std::unique_ptr<Seam> makeSeam(std::string const& name);
std::unique_ptr<Seam> makeSeamS1();
std::unique_ptr<Seam> makeSeamS3();

} // namespace seams
