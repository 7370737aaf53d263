#include "rig.h"

#include "receiver.h"

#include <iostream>
#include <sstream>
#include <stdexcept>

namespace seams
{
namespace
{

constexpr char const* kSender = "ctx0";

} // namespace

Rig::Rig(Seam& seam, Scenario const& scenario)
    : layout{scenario.number("bytes", 1 << 20), scenario.number("descriptors", 4), scenario.text("layout", "gaps")}
    , inRegionsEach{scenario.text("regions", "one") == "each"}
    , source{storeNamed(scenario.text("source", "dram"))}
    , destination{storeNamed(scenario.text("destination", "dram"))}
    , mSeam{seam}
    , mScenario{scenario}
{
}

void Rig::start(size_t slots)
{
    makeSender();
    for (size_t slot = 0; slot < slots; ++slot)
    {
        mMemories.push_back(std::make_unique<Memory>(layout, End::kSource, source));
        mSender->offer(mMemories.back()->kind(), regions(*mMemories.back(), inRegionsEach));
    }
    makeReceiver();
    meet();
}

void Rig::makeSender()
{
    makeNamed(kSender);
}

void Rig::makeNamed(std::string const& name)
{
    note("make the sender");
    mSender = mSeam.makeSide(name);
}

void Rig::makeReceiver()
{
    note("make the receiver");
    if (mReceiverName.empty())
    {
        mReceiverName = "gen" + std::to_string(mReceivers++);
    }
    mPartner = mScenario.number("processes", 1) == 2 ? partnerProcess(mSeam) : partnerThreads(mSeam);
    mPartner->ask("make " + mReceiverName);
    mBases.clear();
    for (size_t slot = 0; slot < mMemories.size(); ++slot)
    {
        mBases.push_back(offerAtReceiver(slot));
    }
    mReceiverCard = fromHex(mPartner->ask("card"));
}

uintptr_t Rig::offerAtReceiver(size_t slot)
{
    return std::stoull(mPartner->ask("offer " + std::to_string(slot) + " " + std::to_string(layout.bytes) + " "
        + std::to_string(layout.descriptors) + " " + layout.shape + " " + (inRegionsEach ? "1 " : "0 ") + name(destination)));
}

void Rig::meet()
{
    note("meet " + mReceiverName);
    auto greeted = mPartner->tell("greet " + std::string(kSender) + " " + toHex(mSender->card()));
    try
    {
        mSender->welcome(mReceiverName, mReceiverCard, patience());
    }
    catch (std::exception const&)
    {
        answerOf(greeted, "greet"); // the cause, if it is theirs
        throw;
    }
    answerOf(greeted, "greet");
}

void Rig::replaceReceiver(bool sameName)
{
    mPartner.reset();
    mAnnounced.clear();
    if (!sameName)
    {
        mReceiverName.clear();
    }
    makeReceiver();
    meet();
}

void Rig::replaceSender()
{
    makeSender();
    for (auto const& memory : mMemories)
    {
        mSender->offer(memory->kind(), regions(*memory, inRegionsEach));
    }
    meet();
}

void Rig::offerAgain()
{
    for (size_t slot = 0; slot < mBases.size(); ++slot)
    {
        mBases[slot] = offerAtReceiver(slot);
    }
    mReceiverCard = fromHex(mPartner->ask("card"));
}

Shipment Rig::shipment(size_t slot)
{
    std::lock_guard const lock(mMutex);
    return {mReceiverName, mNextId++, mScenario.text("op", "write") == "read",
        mScenario.text("message", "after") == "with", mMemories.at(slot)->pieces(),
        piecesAt(layout, End::kDestination, mBases.at(slot)), mMemories.at(slot)->kind(),
        destination == Store::kDram ? Kind::kDram : Kind::kVram};
}

std::unique_ptr<Outgoing> Rig::send(Shipment const& shipment)
{
    return mSender->send(shipment);
}

std::future<std::string> Rig::expect(Shipment const& shipment, uint64_t seed, size_t slot, size_t less)
{
    return mPartner->tell("expect " + std::string(kSender) + " " + std::to_string(slot) + " "
        + std::to_string(shipment.id) + " " + std::to_string(seed) + " " + std::to_string(less));
}

Shipment Rig::announce(size_t slot)
{
    auto const what = shipment(slot);
    if (mSeam.isTwoSided())
    {
        mAnnounced.push_back(expect(what, 0, slot));
    }
    return what;
}

void Rig::settle()
{
    mPartner->ask("abandon");
    mAnnounced.clear(); // waits for those on threads of ours
}

void Rig::move(size_t slot)
{
    auto const seed = newSeed();
    auto const what = shipment(slot);
    auto const slotAndSeed = " " + std::to_string(slot) + " " + std::to_string(seed);
    note("move " + std::to_string(layout.bytes) + " bytes in " + std::to_string(layout.descriptors) + " pieces");
    if (what.isRead)
    {
        mMemories.at(slot)->clear();
        mPartner->ask("fill" + slotAndSeed);
    }
    else
    {
        mMemories.at(slot)->fill(seed);
        mPartner->ask("clear " + std::to_string(slot));
    }
    auto arrived = expect(what, seed, slot);
    try
    {
        auto const outgoing = send(what);
        finish(*outgoing);
        if (!what.withMessage)
        {
            mSender->confirm(what.peer, what.id);
        }
    }
    catch (std::exception const& error)
    {
        std::cout << "the sender: " << error.what() << std::endl; // now: the receiver has still to give up
        throw;
    }
    answerOf(arrived, "expect");
    auto const faults = mMemories.at(slot)->faults(seed);
    require(faults.empty(), "the sender holds other bytes: " + faults);
}

uint64_t Rig::newSeed()
{
    std::lock_guard const lock(mMutex);
    return mNextSeed++;
}

Side& Rig::sender()
{
    return *mSender;
}

Memory& Rig::memory(size_t slot)
{
    return *mMemories.at(slot);
}

Partner& Rig::partner()
{
    return *mPartner;
}

std::string const& Rig::receiverName() const
{
    return mReceiverName;
}

std::string const& Rig::receiverCard() const
{
    return mReceiverCard;
}

void Rig::destroySender()
{
    note("destroy the sender");
    mSender.reset();
}

void Rig::destroyReceiver()
{
    note("destroy the receiver");
    mPartner->ask("destroy");
}

bool hasOneOf(std::string const& text, std::string const& parts)
{
    std::istringstream words(parts);
    std::string part;
    bool found = parts.empty();
    while (std::getline(words, part, '|'))
    {
        found = found || text.find(part) != std::string::npos;
    }
    return found;
}

void expectError(std::string const& what, std::string const& parts, std::function<void()> const& call)
{
    note(what);
    std::string text;
    try
    {
        call();
    }
    catch (std::runtime_error const& error)
    {
        text = error.what();
    }
    require(!text.empty(), what + ": no error, expected '" + parts + "'");
    std::cout << what << ": " << text << std::endl;
    require(hasOneOf(text, parts), what + ": the error lacks '" + parts + "': " + text);
}

void finish(Outgoing& outgoing)
{
    if (!isDone(outgoing, ""))
    {
        throw std::runtime_error("the transfer failed: " + outgoing.error());
    }
}

bool isDone(Outgoing& outgoing, std::string const& parts)
{
    constexpr int64_t kAsLongAsItTakes = -1;
    note("wait for the end");
    auto const state = outgoing.wait(kAsLongAsItTakes);
    require(state != State::kUnderWay, "a wait without a limit ended before the transfer");
    require(outgoing.isOver() && outgoing.wait(0) == state, "a transfer that is over does not stay as it is");
    auto const text = outgoing.error();
    if (state == State::kDone)
    {
        require(text.empty(), "a transfer that is done has an error: " + text);
        return true;
    }
    std::cout << "a transfer failed: " << text << std::endl;
    require(!text.empty() && hasOneOf(text, parts), "the transfer's error lacks '" + parts + "': " + text);
    return false;
}

void require(bool good, std::string const& text)
{
    if (!good)
    {
        throw std::runtime_error(text);
    }
}

} // namespace seams
