#include "receiver.h"

#include <sstream>
#include <stdexcept>

namespace seams
{

std::vector<Span> regions(Memory const& memory, bool each)
{
    return each ? memory.pieces() : std::vector<Span>{memory.extent()};
}

std::string toHex(std::string const& bytes)
{
    constexpr char const* kDigits = "0123456789abcdef";
    std::string text;
    for (unsigned char const byte : bytes)
    {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

std::string fromHex(std::string const& text)
{
    std::string bytes;
    for (size_t at = 0; at + 1 < text.size(); at += 2)
    {
        bytes += static_cast<char>(std::stoi(text.substr(at, 2), nullptr, 16));
    }
    return bytes;
}

bool isExpectation(std::string const& command)
{
    return command.rfind("expect ", 0) == 0;
}

Receiver::Receiver(Seam& seam)
    : mSeam{seam}
{
}

std::vector<Span> Receiver::regionsOf(size_t slot, bool each)
{
    return regions(memoryOf(slot), each);
}

Memory& Receiver::memoryOf(size_t slot)
{
    std::lock_guard const lock(mMutex);
    auto const found = mMemories.find(slot);
    if (found == mMemories.end())
    {
        throw std::logic_error("no slot " + std::to_string(slot));
    }
    return *found->second;
}

Receiver::~Receiver()
{
    abandon();
}

void Receiver::hear(std::string const& command)
{
    std::lock_guard const lock(mMutex);
    mExpecting += isExpectation(command);
}

std::string Receiver::expect(std::string const& peer, size_t slot, uint64_t id, uint64_t seed, size_t less)
{
    std::string failure;
    try
    {
        auto& memory = memoryOf(slot);
        auto pieces = memory.pieces();
        if (!pieces.empty())
        {
            pieces.back().len -= less;
        }
        mSide->receive(peer, id, pieces, mAbandoned);
        auto const faults = memory.faults(seed);
        failure = faults.empty() ? faults : "the receiver holds other bytes: " + faults;
    }
    catch (std::exception const& error)
    {
        failure = error.what();
    }
    std::lock_guard const lock(mMutex);
    --mExpecting;
    mChanged.notify_all();
    return failure.empty() ? failure : throw std::runtime_error(failure);
}

void Receiver::abandon()
{
    std::unique_lock lock(mMutex);
    mAbandoned = true;
    mChanged.wait(lock, [this] { return mExpecting == 0; });
    mAbandoned = false;
}

std::string Receiver::follow(std::string const& command)
{
    std::istringstream words(command);
    std::string verb, name;
    size_t slot = 0;
    uint64_t id = 0, seed = 0;
    bool each = false;
    words >> verb;
    if (verb == "make")
    {
        words >> name;
        mSide = mSeam.makeSide(name);
        return {};
    }
    if (verb == "abandon")
    {
        abandon();
        return {};
    }
    if (verb == "destroy")
    {
        abandon();
        mSide.reset();
        return {};
    }
    if (verb == "card")
    {
        return toHex(mSide->card());
    }
    if (verb == "greet")
    {
        std::string card;
        words >> name >> card;
        mSide->greet(name, fromHex(card));
        return {};
    }
    if (verb == "expect")
    {
        size_t less = 0;
        words >> name >> slot >> id >> seed >> less;
        return expect(name, slot, id, seed, less);
    }
    words >> slot;
    if (verb == "offer")
    {
        Layout layout;
        std::string store;
        words >> layout.bytes >> layout.descriptors >> layout.shape >> each >> store;
        store = store.empty() ? "dram" : store;
        auto memory = std::make_unique<Memory>(layout, End::kDestination, storeNamed(store));
        auto const base = memory->base();
        mSide->offer(memory->kind(), regions(*memory, each));
        std::lock_guard const lock(mMutex);
        mMemories[slot] = std::move(memory);
        return std::to_string(base);
    }
    if (verb == "withdraw")
    {
        words >> each;
        mSide->withdraw(memoryOf(slot).kind(), regionsOf(slot, each));
        return {};
    }
    if (verb == "clear")
    {
        memoryOf(slot).clear();
        return {};
    }
    if (verb == "traces")
    {
        return memoryOf(slot).traces();
    }
    words >> seed;
    if (verb == "fill")
    {
        memoryOf(slot).fill(seed);
        return {};
    }
    if (verb == "check")
    {
        return memoryOf(slot).faults(seed);
    }
    if (verb == "words")
    {
        return std::to_string(memoryOf(slot).wordsOf(seed));
    }
    throw std::logic_error("no command '" + verb + "'");
}

} // namespace seams
