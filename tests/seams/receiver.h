// The receiving end of a scenario: a side, its memory, and what may be asked of them, as lines of text. The same
// commands work in this process and in another one (partner.h).
//
//   make NAME [SHUT]            offer SLOT BYTES DESCRIPTORS SHAPE EACH    -> base of the memory
//   card                  -> its card, in hex     greet PEER CARD
//   expect PEER SLOT ID SEED    waits for a shipment and checks what the slot holds
//   fill SLOT SEED        clear SLOT        check SLOT SEED
//   words SLOT SEED       -> how many words hold that pattern
//   traces SLOT           says whether anything was written
//   withdraw SLOT EACH    destroy

#pragma once

#include "seam.h"

#include <map>
#include <mutex>

namespace seams
{

class Receiver
{
public:
    explicit Receiver(Seam& seam);

    // Follows a command and returns the answer; throws what went wrong. Several threads may call it, but for
    // `destroy`, which is the last word about the side.
    std::string follow(std::string const& command);

private:
    // Blocks that a slot's pieces are offered as.
    std::vector<Span> regionsOf(size_t slot, bool each);
    Memory& memoryOf(size_t slot);

    Seam& mSeam;
    std::unique_ptr<Side> mSide;
    std::mutex mMutex; // the map alone
    std::map<size_t, std::unique_ptr<Memory>> mMemories;
};

// What a region of ours is: all of the memory, or each piece.
std::vector<Span> regions(Memory const& memory, bool each);

std::string toHex(std::string const& bytes);
std::string fromHex(std::string const& text);

} // namespace seams
