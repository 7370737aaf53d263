// The receiving end of a scenario: a side, its memory, and what may be asked of them, as lines of text. The same
// commands work in this process and in another one (partner.h).
//
//   make NAME             offer SLOT BYTES DESCRIPTORS SHAPE EACH STORE    -> base of the memory
//   card                  -> its card, in hex     greet PEER CARD
//   expect PEER SLOT ID SEED LESS    waits for a shipment, with its last piece shorter by LESS, and checks the slot
//   abandon               ends every `expect`; they have ended when it is answered
//   fill SLOT SEED        clear SLOT        check SLOT SEED
//   words SLOT SEED       -> how many words hold that pattern
//   traces SLOT           says whether anything was written
//   withdraw SLOT EACH    destroy, after an abandon

#pragma once

#include "seam.h"

#include <condition_variable>
#include <map>
#include <mutex>

namespace seams
{

class Receiver
{
public:
    explicit Receiver(Seam& seam);

    ~Receiver();

    // Hears of a command, in the order in which they are given: an `abandon` ends every `expect` before it, whether
    // that has begun or not.
    void hear(std::string const& command);

    // Follows a command that it has heard of and returns the answer; throws what went wrong. Several threads may call it, and `destroy`
    // waits for those that expect something.
    std::string follow(std::string const& command);

private:
    std::string expect(std::string const& peer, size_t slot, uint64_t id, uint64_t seed, size_t less);
    void abandon();

    // Blocks that a slot's pieces are offered as.
    std::vector<Span> regionsOf(size_t slot, bool each);
    Memory& memoryOf(size_t slot);

    Seam& mSeam;
    std::unique_ptr<Side> mSide;
    std::mutex mMutex; // what follows, but not what the memories hold
    std::condition_variable mChanged;
    std::map<size_t, std::unique_ptr<Memory>> mMemories;
    size_t mExpecting = 0;
    std::atomic<bool> mAbandoned{false};
};

// Whether a command waits for something that a later one may end.
bool isExpectation(std::string const& command);

// What a region of ours is: all of the memory, or each piece.
std::vector<Span> regions(Memory const& memory, bool each);

std::string toHex(std::string const& bytes);
std::string fromHex(std::string const& text);

} // namespace seams
