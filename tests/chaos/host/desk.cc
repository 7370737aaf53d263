#include "desk.h"

#include "receiver.h"
#include "words.h"

#include <stdexcept>
#include <utility>

namespace chaos
{
namespace
{

// As long as the library takes.
constexpr int64_t kNoLimit = -1;

bool isWaiting(std::string const& command)
{
    return command.rfind("hear ", 0) == 0 || command.rfind("receive ", 0) == 0;
}

} // namespace

Desk::Use::Use(Desk& desk)
    : mDesk{desk}
{
    std::lock_guard const lock(mDesk.mMutex);
    if (mDesk.mSide == nullptr)
    {
        throw std::logic_error("there is no side");
    }
    mSide = mDesk.mSide;
    ++mDesk.mUsers;
}

Desk::Use::~Use()
{
    mSide.reset();
    std::lock_guard const lock(mDesk.mMutex);
    --mDesk.mUsers;
    mDesk.mChanged.notify_all();
}

seams::Side* Desk::Use::operator->() const
{
    return mSide.get();
}

Desk::Desk(seams::Seam& seam, Arena& arena)
    : mSeam{seam}
    , mArena{arena}
{
}

Desk::~Desk()
{
    Words none;
    destroy(none);
}

void Desk::expect(std::string const& command)
{
    std::lock_guard const lock(mMutex);
    mWaiting += isWaiting(command);
}

void Desk::awaitQuiet(std::unique_lock<std::mutex>& lock)
{
    mChanged.wait(lock, [this] { return mUsers == 0 && mWaiting == 0; });
}

void Desk::stopWaiting()
{
    std::lock_guard const lock(mMutex);
    --mWaiting;
    mChanged.notify_all();
}

std::string Desk::follow(std::string const& command)
{
    std::shared_ptr<Desk> const waiting(isWaiting(command) ? this : nullptr,
        [](Desk* desk)
        {
            if (desk != nullptr)
            {
                desk->stopWaiting();
            }
        });
    // Never destroyed: commands go on while exit() ends what is static.
    static auto const& kVerbs = *new std::map<std::string, std::string (Desk::*)(Words&)>{
        {"make", &Desk::make},
        {"destroy", &Desk::destroy},
        {"offer", &Desk::offer},
        {"withdraw", &Desk::withdraw},
        {"card", &Desk::card},
        {"connect", &Desk::connect},
        {"introduce", &Desk::introduce},
        {"hear", &Desk::hear},
        {"forget", &Desk::forget},
        {"load", &Desk::load},
        {"leave", &Desk::leave},
        {"send", &Desk::send},
        {"wait", &Desk::wait},
        {"cancel", &Desk::cancel},
        {"drop", &Desk::drop},
        {"confirm", &Desk::confirm},
        {"receive", &Desk::receive},
        {"message", &Desk::message},
        {"abandon", &Desk::abandon},
        {"close-library", &Desk::closeLibrary},
        {"fork", &Desk::forkChild},
        {"exit", &Desk::exitNow},
        {"storm", &Desk::storm},
        {"hoard", &Desk::hoard},
        {"plant", &Desk::plant},
    };
    Words words(command);
    auto const verb = kVerbs.find(next<std::string>(words));
    return verb != kVerbs.end() ? (this->*verb->second)(words) : throw std::logic_error("no command '" + command + "'");
}

// --- the host object --------------------------------------------------------------------------------------------

std::string Desk::make(Words& words)
{
    mArena.reach(Phase::kCreate);
    auto made = mSeam.makeSide(next<std::string>(words));
    mArena.reach(Phase::kCreated);
    std::lock_guard const lock(mMutex);
    mSide = std::move(made);
    return {};
}

// What is under way stays so, and ends by itself.
std::string Desk::destroy(Words&)
{
    mAbandoned = true;
    std::shared_ptr<seams::Side> last;
    {
        std::unique_lock lock(mMutex);
        awaitQuiet(lock);
        last = std::move(mSide);
    }
    mArena.reach(Phase::kDestroy);
    last.reset();
    mArena.reach(Phase::kDestroyed);
    mAbandoned = false;
    return {};
}

std::string Desk::offer(Words& words)
{
    auto const extent = mArena.extent(next<size_t>(words));
    Use const side(*this);
    mArena.reach(Phase::kRegister);
    side->offer(seams::Kind::kDram, {extent});
    mArena.reach(Phase::kRegistered);
    return std::to_string(extent.addr);
}

std::string Desk::withdraw(Words& words)
{
    auto const extent = mArena.extent(next<size_t>(words));
    Use const side(*this);
    mArena.reach(Phase::kWithdraw);
    side->withdraw(seams::Kind::kDram, {extent});
    mArena.reach(Phase::kWithdrawn);
    return {};
}

// --- first contact ----------------------------------------------------------------------------------------------

std::string Desk::card(Words&)
{
    auto const card = Use(*this)->card();
    mArena.reach(Phase::kBlob);
    return seams::toHex(card);
}

std::string Desk::connect(Words& words)
{
    auto const peer = next<std::string>(words);
    auto const card = seams::fromHex(next<std::string>(words));
    Use const side(*this);
    mArena.reach(Phase::kConnect);
    // The address and the line break of a card that has both (seam_s1.cc); all of any other.
    auto const end = card.find('\n');
    side->reach(peer, end == std::string::npos ? card : card.substr(0, end + 1));
    mArena.reach(Phase::kConnected);
    return {};
}

std::string Desk::introduce(Words& words)
{
    auto const peer = next<std::string>(words);
    Use const side(*this);
    mArena.reach(Phase::kIntroduce);
    side->introduce(peer);
    mArena.reach(Phase::kIntroduced);
    return {};
}

std::string Desk::hear(Words& words)
{
    auto const peer = next<std::string>(words);
    Use const side(*this);
    mArena.reach(Phase::kHear);
    side->hear(peer, mAbandoned);
    mArena.reach(Phase::kHeard);
    return {};
}

std::string Desk::forget(Words& words)
{
    auto const peer = next<std::string>(words);
    Use const side(*this);
    mArena.reach(Phase::kForget);
    side->forget(peer);
    mArena.reach(Phase::kForgot);
    return {};
}

std::string Desk::load(Words& words)
{
    auto const peer = next<std::string>(words);
    auto const card = seams::fromHex(next<std::string>(words));
    Use const side(*this);
    mArena.reach(Phase::kLoad);
    side->reach(peer, card);
    mArena.reach(Phase::kLoaded);
    return {};
}

std::string Desk::leave(Words& words)
{
    auto const peer = next<std::string>(words);
    Use const side(*this);
    mArena.reach(Phase::kLeave);
    side->forget(peer);
    mArena.reach(Phase::kLeft);
    return {};
}

// --- transfers --------------------------------------------------------------------------------------------------

std::string Desk::send(Words& words)
{
    auto const id = next<uint64_t>(words);
    auto const peer = next<std::string>(words);
    auto const slot = next<size_t>(words);
    auto const base = next<uintptr_t>(words);
    std::string with;
    words >> with;
    seams::Shipment const shipment{
        peer, id, false, with == "with", mArena.pieces(slot), mArena.piecesAt(base)};
    Use const side(*this);
    mArena.reach(Phase::kSubmit);
    std::shared_ptr<seams::Outgoing> made = side->send(shipment);
    mArena.reach(Phase::kSubmitted);
    std::lock_guard const lock(mMutex);
    mOutgoing[id] = std::move(made);
    return {};
}

std::string Desk::wait(Words& words)
{
    auto const under = outgoing(next<uint64_t>(words));
    if (under->wait(kNoLimit) != seams::State::kDone)
    {
        throw std::runtime_error(under->error());
    }
    mArena.reach(Phase::kSuccess);
    return "done";
}

std::string Desk::cancel(Words& words)
{
    auto const under = outgoing(next<uint64_t>(words));
    mArena.reach(Phase::kCancel);
    bool const isQuiet = under->cancel();
    mArena.reach(Phase::kCancelled);
    return isQuiet && !mIsUnquiet ? "quiet" : "not quiet";
}

std::string Desk::drop(Words& words)
{
    auto const id = next<uint64_t>(words);
    auto last = outgoing(id);
    {
        std::lock_guard const lock(mMutex);
        mOutgoing.erase(id);
    }
    mArena.reach(Phase::kDrop);
    last.reset();
    mArena.reach(Phase::kDropped);
    return {};
}

std::string Desk::confirm(Words& words)
{
    auto const id = next<uint64_t>(words);
    auto const peer = next<std::string>(words);
    Use const side(*this);
    mArena.reach(Phase::kNotify);
    side->confirm(peer, id);
    mArena.reach(Phase::kNotified);
    return {};
}

std::string Desk::receive(Words& words)
{
    auto const id = next<uint64_t>(words);
    auto const peer = next<std::string>(words);
    auto const pieces = mArena.pieces(next<size_t>(words));
    Use const side(*this);
    mArena.reach(Phase::kReceive);
    side->receive(peer, id, pieces, mAbandoned);
    mArena.reach(Phase::kReceived);
    return {};
}

std::string Desk::message(Words& words)
{
    auto const id = next<uint64_t>(words);
    Use(*this)->confirm(next<std::string>(words), id);
    return {};
}

// Returns when `hear` and `receive` have ended.
std::string Desk::abandon(Words&)
{
    mAbandoned = true;
    std::unique_lock lock(mMutex);
    awaitQuiet(lock);
    mAbandoned = false;
    return {};
}

std::shared_ptr<seams::Outgoing> Desk::outgoing(uint64_t id)
{
    std::lock_guard const lock(mMutex);
    auto const found = mOutgoing.find(id);
    return found != mOutgoing.end() ? found->second : throw std::logic_error("nothing was sent as " + std::to_string(id));
}

} // namespace chaos
