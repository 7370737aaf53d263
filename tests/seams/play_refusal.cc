// Calls that have to be refused, one per step: each with an error that names the thing, within the scenario's time.
// Afterwards whoever is left does a good move.

#include "play.h"
#include "rig.h"

#include <cstdlib>
#include <map>
#include <stdexcept>

namespace seams
{
namespace
{

// A step: what is done, and the text that its error must have.
using Step = void (*)(Rig&, std::string const& says);

// A variable with another value (none: nullptr), for as long as this lives. While no other thread runs.
class Variable
{
public:
    Variable(char const* name, char const* value)
        : mName{name}
    {
        char const* const before = std::getenv(name);
        mHadOne = before != nullptr;
        mBefore = mHadOne ? before : "";
        set(value);
    }

    ~Variable()
    {
        set(mHadOne ? mBefore.c_str() : nullptr);
    }

    Variable(Variable const&) = delete;
    Variable& operator=(Variable const&) = delete;

private:
    void set(char const* value)
    {
        value == nullptr ? ::unsetenv(mName) : ::setenv(mName, value, 1);
    }

    char const* mName;
    bool mHadOne;
    std::string mBefore;
};

// The whole of a transfer: its submission may fail, or its wait.
void transfer(Rig& rig, Shipment const& shipment)
{
    auto const outgoing = rig.send(shipment);
    if (outgoing->wait(-1) != State::kDone)
    {
        throw std::runtime_error(outgoing->error());
    }
}

// A transfer of pieces that are not as they should be.
void refuse(Rig& rig, std::string const& says, Shipment const& shipment)
{
    expectError("send", says, [&] { transfer(rig, shipment); });
    require(rig.partner().ask("traces 0").empty(), "the refused transfer has written something");
}

// Repeats a call until it throws: the library may take a moment to notice. The watchdog bounds it.
template <typename Call>
void untilRefused(std::string const& what, std::string const& says, Call&& call)
{
    expectError(what, says,
        [&]
        {
            for (auto const deadline = patience(); std::chrono::steady_clock::now() < deadline;)
            {
                call();
            }
        });
}

void reach(Rig& rig, std::string const& says, std::string const& peer, std::string const& card)
{
    expectError("reach", says, [&] { rig.sender().reach(peer, card); });
}

// --- before anybody is made -------------------------------------------------------------------------------------

std::map<std::string, Step> const kBeforeStart{
    {"make-lane",
        [](Rig& rig, std::string const& says)
        {
            Variable const lanes("BATON_LANES", "locl");
            expectError("make", says, [&] { rig.makeSender(); });
        }},
    {"make-age",
        [](Rig& rig, std::string const& says)
        {
            Variable const age("BATON_TRTLLM_ABI", "p7");
            expectError("make", says, [&] { rig.makeSender(); });
        }},
    {"make-no-age",
        [](Rig& rig, std::string const& says)
        {
            Variable const age("BATON_TRTLLM_ABI", nullptr);
            expectError("make", says, [&] { rig.makeSender(); });
        }},
    {"make-name",
        [](Rig& rig, std::string const& says) { expectError("make", says, [&] { rig.makeNamed(""); }); }},
};

// --- once both sides have met -----------------------------------------------------------------------------------

void offer(Rig& rig, std::string const& says, Kind kind, Span span)
{
    expectError("offer", says, [&] { rig.sender().offer(kind, {span}); });
}

std::map<std::string, Step> const kMemory{
    {"offer-zero",
        [](Rig& rig, std::string const& says) { offer(rig, says, Kind::kDram, {rig.memory().base(), 0}); }},
    {"offer-wrap",
        [](Rig& rig, std::string const& says) { offer(rig, says, Kind::kDram, {~uintptr_t{7}, 64}); }},
    {"offer-vram",
        [](Rig& rig, std::string const& says) { offer(rig, says, Kind::kVram, {rig.memory().base(), 64}); }},
    {"withdraw-unknown",
        [](Rig& rig, std::string const&)
        { rig.sender().withdraw(Kind::kDram, {{rig.memory().base() + 1, 7}, {1, 1}}); }},
};

std::map<std::string, Step> const kReach{
    {"reach-garbage", [](Rig& rig, std::string const& says) { reach(rig, says, rig.receiverName(), "nonsense"); }},
    {"reach-nothing", [](Rig& rig, std::string const& says) { reach(rig, says, rig.receiverName(), ""); }},
    {"reach-truncated",
        [](Rig& rig, std::string const& says)
        {
            auto const& card = rig.receiverCard();
            for (size_t len = card.size() / 2; len < card.size(); len += card.size() / 7)
            {
                reach(rig, says, rig.receiverName(), card.substr(0, len));
            }
        }},
    {"reach-other-name", [](Rig& rig, std::string const& says) { reach(rig, says, "gen77", rig.receiverCard()); }},
    {"reach-oneself", [](Rig& rig, std::string const& says) { reach(rig, says, "ctx0", rig.sender().card()); }},
    {"reach-nobody",
        [](Rig& rig, std::string const& says) { reach(rig, says, "gen77", rig.sender().cardOf("127.0.0.1:1")); }},
    {"reach-dead",
        [](Rig& rig, std::string const& says)
        {
            rig.partner().kill();
            untilRefused("reach", says, [&] { rig.sender().reach(rig.receiverName(), rig.receiverCard()); });
            rig.replaceReceiver();
        }},
};

std::map<std::string, Step> const kSend{
    {"send-source",
        [](Rig& rig, std::string const& says)
        {
            Memory const outside(rig.layout, End::kSource);
            auto shipment = rig.shipment();
            shipment.ours = outside.pieces();
            refuse(rig, says, shipment);
        }},
    {"send-destination",
        [](Rig& rig, std::string const& says)
        {
            auto shipment = rig.shipment();
            shipment.theirs = shipment.ours;
            refuse(rig, says, shipment);
        }},
    {"send-past-the-end",
        [](Rig& rig, std::string const& says)
        {
            auto shipment = rig.shipment();
            shipment.theirs.back().addr += 1 << 12;
            refuse(rig, says, shipment);
        }},
    {"send-lengths",
        [](Rig& rig, std::string const& says)
        {
            auto shipment = rig.shipment();
            --shipment.theirs.back().len;
            refuse(rig, says, shipment);
        }},
    {"send-counts",
        [](Rig& rig, std::string const& says)
        {
            auto shipment = rig.shipment();
            shipment.theirs.pop_back();
            refuse(rig, says, shipment);
        }},
    {"send-zero",
        [](Rig& rig, std::string const& says)
        {
            auto shipment = rig.shipment();
            shipment.ours.front().len = shipment.theirs.front().len = 0;
            refuse(rig, says, shipment);
        }},
    {"send-nothing",
        [](Rig& rig, std::string const& says)
        {
            auto shipment = rig.shipment();
            shipment.ours.clear();
            shipment.theirs.clear();
            refuse(rig, says, shipment);
        }},
    {"send-wrap",
        [](Rig& rig, std::string const& says)
        {
            auto shipment = rig.shipment();
            shipment.theirs.front().addr = ~uintptr_t{7};
            refuse(rig, says, shipment);
        }},
    {"send-nobody",
        [](Rig& rig, std::string const& says)
        {
            auto shipment = rig.shipment();
            shipment.peer = "gen77";
            refuse(rig, says, shipment);
        }},
    {"send-forgotten",
        [](Rig& rig, std::string const& says)
        {
            rig.sender().forget(rig.receiverName());
            refuse(rig, says, rig.shipment());
            rig.meet();
        }},
    {"send-withdrawn",
        [](Rig& rig, std::string const& says)
        {
            rig.partner().ask(rig.inRegionsEach ? "withdraw 0 1" : "withdraw 0 0");
            refuse(rig, says, rig.shipment());
            rig.offerAgain();
            rig.meet();
        }},
    {"send-dead",
        [](Rig& rig, std::string const& says)
        {
            rig.partner().kill();
            expectError("send", says, [&] { transfer(rig, rig.shipment()); });
            rig.replaceReceiver();
        }},
};

std::map<std::string, Step> const kMessages{
    {"confirm-nobody",
        [](Rig& rig, std::string const& says)
        { expectError("confirm", says, [&] { rig.sender().confirm("gen77", 1); }); }},
    {"confirm-forgotten",
        [](Rig& rig, std::string const& says)
        {
            rig.sender().forget(rig.receiverName());
            expectError("confirm", says, [&] { rig.sender().confirm(rig.receiverName(), 1); });
            rig.meet();
        }},
    {"confirm-dead",
        [](Rig& rig, std::string const& says)
        {
            rig.partner().kill();
            uint64_t id = 1000;
            untilRefused("confirm", says, [&] { rig.sender().confirm(rig.receiverName(), id++); });
            rig.replaceReceiver();
        }},
    {"receive-shorter",
        [](Rig& rig, std::string const& says)
        {
            auto const shipment = rig.shipment();
            auto waiting = rig.expect(shipment, 1, 0, 1);
            expectError("send", says, [&] { transfer(rig, shipment); });
            expectError("receive", says, [&] { answerOf(waiting, "expect"); });
        }},
    {"receive-dead",
        [](Rig& rig, std::string const& says)
        {
            auto waiting = rig.expect(rig.shipment(), 1);
            rig.destroySender();
            expectError("receive", says, [&] { answerOf(waiting, "expect"); });
            rig.replaceSender();
        }},
    {"use-after-shutdown",
        [](Rig& rig, std::string const& says)
        {
            auto const shipment = rig.shipment();
            rig.sender().shutdown();
            rig.sender().shutdown();
            expectError("offer", says, [&] { rig.sender().offer(Kind::kDram, {rig.memory().extent()}); });
            expectError("reach", says, [&] { rig.sender().reach(rig.receiverName(), rig.receiverCard()); });
            expectError("send", says, [&] { transfer(rig, shipment); });
            expectError("confirm", says, [&] { rig.sender().confirm(rig.receiverName(), 1); });
            rig.destroySender();
            rig.replaceSender();
        }},
};

} // namespace

void playRefusal(Seam& seam, Scenario const& scenario)
{
    Rig rig(seam, scenario);
    auto const step = scenario.text("step"), says = scenario.text("says");
    if (auto const found = kBeforeStart.find(step); found != kBeforeStart.end())
    {
        found->second(rig, says);
        rig.start();
        rig.move();
        return;
    }
    for (auto const* const steps : {&kMemory, &kReach, &kSend, &kMessages})
    {
        if (auto const found = steps->find(step); found != steps->end())
        {
            rig.start();
            found->second(rig, says);
            rig.move();
            return;
        }
    }
    throw std::logic_error("there is no step '" + step + "'");
}

} // namespace seams
