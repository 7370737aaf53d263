// The commands of a host. Each runs on a thread of its own; who gives them waits for the answers it depends on.
//
//   make NAME                    the host object              destroy     after ending what still waits
//   offer SLOT                   -> address of the slot       withdraw SLOT
//   card                         -> what a peer needs, in hex
//   connect PEER CARD            by its address               introduce PEER
//   hear PEER                    until it introduces itself   forget PEER       load PEER CARD
//   leave PEER                   forgets a peer that it has met
//   send ID PEER SLOT BASE [with]  returns once submitted     wait ID           -> done, or its error
//   cancel ID                    -> quiet or not quiet        drop ID
//   confirm ID PEER              receive ID PEER SLOT         message ID PEER   one that nobody waits for
//   abandon                      ends hear and receive
//   close-library                dlclose
//   fork PEER                    -> what a child got from its calls
//   exit                         ends the process at once, with everything alive
//   storm                        -> signals taken by threads of commands: SIGPROFs, SIGCHLDs
//   hoard BYTES                  fails where so much memory is not to be had
//   plant scribble SLOT | hang | crash | unquiet | keep    what the driver has to notice

#pragma once

#include "board.h"
#include "seam.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <sstream>

namespace chaos
{

class Desk
{
public:
    Desk(seams::Seam& seam, Arena& arena);
    ~Desk();

    // Hears of a command, in the order in which they are given: an `abandon` ends every `hear` and `receive` before it,
    // whether that has begun or not.
    void expect(std::string const& command);

    // Follows a command that it has heard of and returns the answer; throws what went wrong.
    std::string follow(std::string const& command);

private:
    using Words = std::istringstream;

    // The side, and a note that it is in use, which keeps `destroy` waiting.
    class Use
    {
    public:
        explicit Use(Desk& desk);
        ~Use();
        seams::Side* operator->() const;

    private:
        Desk& mDesk;
        std::shared_ptr<seams::Side> mSide;
    };

    void awaitQuiet(std::unique_lock<std::mutex>& lock);
    void stopWaiting();

    std::string make(Words& words);
    std::string destroy(Words& words);
    std::string offer(Words& words);
    std::string withdraw(Words& words);
    std::string card(Words& words);
    std::string connect(Words& words);
    std::string introduce(Words& words);
    std::string hear(Words& words);
    std::string forget(Words& words);
    std::string load(Words& words);
    std::string leave(Words& words);
    std::string send(Words& words);
    std::string wait(Words& words);
    std::string cancel(Words& words);
    std::string drop(Words& words);
    std::string confirm(Words& words);
    std::string receive(Words& words);
    std::string message(Words& words);
    std::string abandon(Words& words);
    std::string closeLibrary(Words& words);
    std::string forkChild(Words& words);
    std::string exitNow(Words& words);
    std::string storm(Words& words);
    std::string hoard(Words& words);
    std::string plant(Words& words);

    std::shared_ptr<seams::Outgoing> outgoing(uint64_t id);

    seams::Seam& mSeam;
    Arena& mArena;
    std::mutex mMutex; // what follows
    std::condition_variable mChanged;
    std::shared_ptr<seams::Side> mSide;
    int mUsers = 0;
    int mWaiting = 0; // hear, receive: also those that have yet to begin
    std::map<uint64_t, std::shared_ptr<seams::Outgoing>> mOutgoing;
    std::atomic<bool> mAbandoned{false};
    std::atomic<bool> mIsUnquiet{false}; // planted
};

} // namespace chaos
