"""Transfers that break while they are under way: what has been given back is never touched again.

With the receiver's process stopped they cannot be over; with a receiver that is alive the scenario is repeated until
it struck in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rig import TRIES, Rig, is_done, note, require
from scenarios import Scenario
from side import Outgoing, kind_of

WATCHED, OTHER = 0, 1  # slots: the one whose transfer breaks, and that of the good moves


@dataclass
class Flight:
    """A transfer under way."""

    rig: Rig
    outgoing: Outgoing
    says: str
    is_stopped: bool

    def broke(self) -> bool:
        """Waits for the end; whether the transfer broke."""
        done = is_done(self.outgoing, self.says)
        require(not (done and self.is_stopped), "a transfer succeeded whose receiver was stopped")
        return not done

    def settle(self) -> None:
        """The source is ours again: what is written there now must never arrive."""
        rig, afterwards = self.rig, self.rig.new_seed()
        rig.memories[WATCHED].fill(afterwards)
        if self.is_stopped:
            rig.partner.resume()
        rig.meet()
        for _ in range(3):  # by then, anything late has landed
            rig.move(OTHER)
        late = rig.partner.ask("words", WATCHED, afterwards)
        require(late == 0, f"{late} words left the source after it was given back")


def play(scenario: Scenario) -> None:
    """Breaks a transfer as the step says; then good moves through the same memory."""
    rig = Rig(scenario)
    rig.start(slots=2)
    rig.move(WATCHED)
    step = STEPS[scenario.text("step")]
    struck = any(step(_depart(rig, scenario)) for _ in range(TRIES))
    require(struck, "nothing was ever under way when it struck")
    rig.move(WATCHED)
    rig.move(OTHER)


def _depart(rig: Rig, scenario: Scenario) -> Flight:
    is_stopped = scenario.text("receiver", "stopped") == "stopped"
    rig.memories[WATCHED].fill(rig.new_seed())
    shipment = rig.shipment(WATCHED)
    if is_stopped:
        rig.partner.stop()
    note("send what is to break")
    return Flight(rig, rig.sender.send(shipment), scenario.text("says"), is_stopped)


# ---- the steps: each says whether it struck in time


def _source_withdrawn(flight: Flight) -> bool:
    rig = flight.rig
    regions = rig.memories[WATCHED].regions(rig.each)
    note("withdraw the source")
    rig.sender.withdraw(kind_of(rig.memories[WATCHED]), regions)
    struck = flight.broke()
    rig.sender.offer(kind_of(rig.memories[WATCHED]), regions)
    flight.settle()
    return struck


def _cancelled(flight: Flight) -> bool:
    note("cancel")
    is_quiet = flight.outgoing.cancel()
    require(is_quiet or flight.is_stopped, "cancel() could not establish that no byte lands any more")
    struck = flight.broke()
    # One that was stopped in the midst of a pull may pull on when it goes on.
    require(flight.outgoing.cancel() or flight.is_stopped, "cancel() of what is over is false")
    flight.settle()
    return struck


def _dropped(flight: Flight) -> bool:
    note("drop")
    struck = not flight.outgoing.is_over()
    flight.outgoing.destroy()
    flight.settle()
    return struck


def _forgotten(flight: Flight) -> bool:
    note("forget")
    flight.rig.sender.forget(flight.rig.receiver_name)
    struck = flight.broke()
    flight.settle()
    return struck


def _silent(flight: Flight) -> bool:
    struck = flight.broke()
    flight.settle()
    return struck


def _killed(flight: Flight) -> bool:
    flight.rig.partner.kill()
    struck = flight.broke()
    flight.rig.replace_receiver()
    return struck


def _restarted(flight: Flight) -> bool:
    flight.rig.partner.kill()
    flight.rig.replace_receiver(same_name=True)
    return flight.broke()


def _receiver_leaves(flight: Flight, verb: str, *arguments: object) -> None:
    """The receiver goes on, and at once does this. From its answer on, its memory is its own."""
    partner = flight.rig.partner
    note(verb)
    left = partner.tell(verb, *arguments)
    partner.resume()
    left.result()
    partner.ask("clear", WATCHED)
    is_done(flight.outgoing, flight.says)  # it may have been quicker
    require((traces := partner.ask("traces", WATCHED)) == "", f"after {verb}: {traces}")


def _destination_withdrawn(flight: Flight) -> bool:
    _receiver_leaves(flight, "withdraw", WATCHED, flight.rig.each)
    flight.rig.offer_again()
    flight.rig.meet()
    return True


def _destroyed(flight: Flight) -> bool:
    _receiver_leaves(flight, "destroy")
    flight.rig.replace_receiver()
    return True


STEPS: dict[str, Callable[[Flight], bool]] = {
    "killed": _killed,
    "restarted": _restarted,
    "silent": _silent,
    "destroyed": _destroyed,
    "source-withdrawn": _source_withdrawn,
    "destination-withdrawn": _destination_withdrawn,
    "cancelled": _cancelled,
    "dropped": _dropped,
    "forgotten": _forgotten,
}
