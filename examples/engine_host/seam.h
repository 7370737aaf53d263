// What the phases need of a seam: a way to the ranks of the other phase. A phase (roles.h) knows KV caches and the
// driver, a seam knows how bytes travel. agent/ is the transfer agent, connections/ the connection manager.
//
// A phase uses its end of a seam from one thread.
#pragma once

#include "rank.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace engine_host
{

// What one context rank has handed over.
struct Delivery
{
    uint64_t submittedNs; // when it began, on the clock of monotonicNs()
    uint64_t lengthBytes;
    uint64_t descriptors; // or messages, where a seam has no descriptors
};

// One rank's end of a seam, whichever phase it serves. What the library throws becomes a Failure that names the peer.
class End
{
public:
    virtual ~End() = default;

    // How the driver tells the other phase where this rank is.
    virtual std::string connectionInfo() = 0;
    // Takes in what has come, and gives peers a sign of life a few times a second. Throws Failure(kPeerLost) when one
    // is gone.
    virtual void turn() = 0;
    // Peers may leave from now on; nothing but destruction follows.
    virtual void quit() = 0;
};

// The context phase's end.
class Sender : public End
{
public:
    // How many receivers have asked for their piece of a request.
    virtual size_t asked(uint64_t request) const = 0;
    // Hands a request to all who have asked for it. Emits "submitted" once bytes may move; returns when they have.
    virtual void send(Request const& request) = 0;
};

// The generation phase's end.
class Receiver : public End
{
public:
    // Says where a context rank is. Comes before the first receive().
    virtual void connect(uint32_t contextRank, std::string name, std::string connectionInfo) = 0;
    // Asks every context rank that holds a part of the request, and waits until all of it has landed: staged, in the
    // slot if that holds it, else in the pool.
    virtual std::vector<Delivery> receive(Request const& request) = 0;
};

// The end that the rank's options ask for. The rank must outlive it. Throws Failure(kLibrary).
std::unique_ptr<Sender> makeSender(Rank& rank);
std::unique_ptr<Receiver> makeReceiver(Rank& rank);

} // namespace engine_host
