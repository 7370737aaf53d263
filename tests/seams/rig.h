// What most scenarios stand on: a sender here, a receiver with a partner, memory on both sides, and moves between
// them that are checked to the byte.

#pragma once

#include "partner.h"

#include <functional>
#include <mutex>

namespace seams
{

class Rig
{
public:
    // Nobody is made yet.
    Rig(Seam& seam, Scenario const& scenario);

    // Makes the sender, a receiver and `slots` memories on both sides, and has them meet.
    void start(size_t slots = 1);

    // Parts of start().
    void makeSender();
    void makeNamed(std::string const& name);
    void makeReceiver();
    void meet();

    // The receiver starts anew, under another name or under the same.
    void replaceReceiver(bool sameName = false);
    // So does the sender, with the memory that it had.
    void replaceSender();
    // The receiver offers its memory again, after a withdrawal.
    void offerAgain();

    // One whole move through a slot, whose bytes are checked.
    void move(size_t slot = 0);

    // Parts of move(): a shipment of a slot, of its own id; the receiver's word that it holds the bytes.
    Shipment shipment(size_t slot = 0);
    std::unique_ptr<Outgoing> send(Shipment const& shipment);
    std::future<std::string> expect(Shipment const& shipment, uint64_t seed, size_t slot = 0, size_t less = 0);

    // A shipment that may break: where nothing moves without a receive, the receiver is told to expect it, until
    // settle().
    Shipment announce(size_t slot = 0);
    // Ends what the receiver still expects.
    void settle();

    // A seed that no move has had.
    uint64_t newSeed();

    Side& sender();
    Memory& memory(size_t slot = 0);
    Partner& partner();
    std::string const& receiverName() const;
    std::string const& receiverCard() const;

    // Destroys a host object.
    void destroySender();
    void destroyReceiver();

    // What moves and how.
    Layout layout;
    bool inRegionsEach;
    Store source;
    Store destination;

private:
    // The base of the receiver's memory per slot.
    uintptr_t offerAtReceiver(size_t slot);

    Seam& mSeam;
    Scenario const& mScenario;
    std::string mReceiverName;
    std::string mReceiverCard;
    std::vector<std::unique_ptr<Memory>> mMemories;
    std::vector<uintptr_t> mBases;
    std::unique_ptr<Side> mSender;
    std::vector<std::future<std::string>> mAnnounced; // their answers do not matter; each waits for the partner's
    std::unique_ptr<Partner> mPartner;
    std::mutex mMutex; // what follows
    uint64_t mNextId = 1;
    uint64_t mNextSeed = 1;
    int mReceivers = 0;
};

// Whether a text has one of `parts`, which have '|' between them.
bool hasOneOf(std::string const& text, std::string const& parts);

// Runs `call`, which has to throw a std::runtime_error with one of `parts` in its text; says the text.
void expectError(std::string const& what, std::string const& parts, std::function<void()> const& call);

// Waits for a shipment, which has to succeed; throws its error otherwise.
void finish(Outgoing& outgoing);

// Waits until a shipment is over, whichever way; whether it is done. A failure has to say one of `parts`.
bool isDone(Outgoing& outgoing, std::string const& parts);

// Throws std::runtime_error with `text` unless `good`.
void require(bool good, std::string const& text);

// Says what a scenario is doing; the watchdog repeats the last one.
void note(std::string const& text);

} // namespace seams
