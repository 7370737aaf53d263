"""Shutdown with work in flight, and host objects that are destroyed in each order."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rig import TRIES, Failed, Rig, finish, is_done, note, require
from scenarios import Scenario
from side import Outgoing

#: What lives until the interpreter ends.
at_end: list[object] = []


def play_shutdown(scenario: Scenario) -> None:
    """A side goes, or the process, while threads wait for transfers: every waiter comes back, and nothing lands late."""
    who = scenario.text("who")
    if who.startswith("process"):
        _leave_process(scenario, is_leaked=who == "process-leaked")
    leave = {"sender": _sender_leaves, "receiver": _receiver_leaves, "both": _both_leave}[who]
    rig = Rig(scenario)
    rig.start()
    struck = False
    for _ in range(TRIES):
        struck = leave(rig, scenario)
        rig.move()
        if struck:
            break
    require(struck, "nothing was ever under way when it struck")


def play_order(scenario: Scenario) -> None:
    """What is left stays usable as far as it can be, and says how the transfer ended."""
    in_flight = scenario.text("flight") == "yes"
    struck = _play_once(scenario, in_flight)
    for _ in range(TRIES if in_flight else 0):
        struck = struck or _play_once(scenario, in_flight)
    require(struck == in_flight, "nothing was ever under way when it struck")
    note("once more from the start")
    rig = Rig(scenario)
    rig.start()
    rig.move()


# ---- shutdown


def _depart(rig: Rig, scenario: Scenario) -> list[Outgoing]:
    rig.memories[0].fill(rig.new_seed())
    return [rig.sender.send(rig.shipment()) for _ in range(scenario.number("transfers", 8))]


def _interrupt(rig: Rig, scenario: Scenario, strike: Callable[[], None]) -> bool:
    """Transfers with a thread that waits for each, until `strike`. Whether any was under way then."""
    flights = _depart(rig, scenario)
    with ThreadPoolExecutor(len(flights)) as pool:
        waiters = [pool.submit(is_done, flight, scenario.text("says")) for flight in flights]
        struck = not flights[-1].is_over()
        strike()
        note("the waiters have to come back")
        done = sum(waiter.result() for waiter in waiters)
    print(f"{done} of {len(flights)} were done all the same", flush=True)
    return struck


def _sender_leaves(rig: Rig, scenario: Scenario) -> bool:
    struck = _interrupt(rig, scenario, rig.destroy_sender)
    afterwards = rig.new_seed()
    rig.memories[0].fill(afterwards)
    rig.replace_sender()
    late = rig.partner.ask("words", 0, afterwards)
    require(late == 0, f"{late} words left the source after the sender was gone")
    return struck


def _receiver_leaves(rig: Rig, scenario: Scenario) -> bool:
    def strike() -> None:
        rig.destroy_receiver()
        rig.partner.ask("clear", 0)

    struck = _interrupt(rig, scenario, strike)
    require((traces := rig.partner.ask("traces", 0)) == "", f"after the receiver was gone: {traces}")
    rig.replace_receiver()
    return struck


def _both_leave(rig: Rig, scenario: Scenario) -> bool:
    def strike() -> None:
        other = rig.partner.tell("destroy")
        rig.destroy_sender()
        other.result()

    struck = _interrupt(rig, scenario, strike)
    rig.make_sender()
    rig.replace_receiver()
    return struck


def _leave_process(scenario: Scenario, is_leaked: bool) -> None:
    """The process ends with everything alive: never destroyed, or as the interpreter clears its modules."""
    rig = Rig(scenario)
    rig.start()
    for _ in range(TRIES):
        flights = _depart(rig, scenario)
        at_end.extend([flights, rig])
        if is_leaked:
            for leaked in at_end:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(leaked))
        if not flights[-1].is_over():
            note("leave the process")
            sys.exit(0)
    raise Failed("nothing was ever under way")


# ---- orders


def _play_once(scenario: Scenario, in_flight: bool) -> bool:
    rig = Rig(scenario)
    rig.start()
    rig.move()
    rig.memories[0].fill(rig.new_seed())
    outgoing = rig.sender.send(rig.shipment())
    if not in_flight:
        finish(outgoing)
    struck = not outgoing.is_over()
    was_done = not struck and not in_flight
    is_there = True
    for name in scenario.text("order").split(","):
        note(f"destroy the {name}")
        destroy = {
            "outgoing": outgoing.destroy,
            "sender": rig.destroy_sender,
            "receiver": rig.destroy_receiver,
        }
        destroy[name]()
        is_there = is_there and name != "outgoing"
        if is_there:
            done = is_done(outgoing, "")
            require(done or not was_done, "a transfer that was done has failed afterwards")
    return struck
