"""Calls that have to be refused, one per step: each with an error that names the thing, within the scenario's time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np

from memory import Memory
from receiver import Process
from rig import SENDER, Rig, expect_error, require, State
from scenarios import Scenario
from side import DRAM, PATIENCE_S, VRAM, Shipment, Side

def play(scenario: Scenario) -> None:
    """Afterwards whoever is left does a good move."""
    rig, step, says = Rig(scenario), scenario.text("step"), scenario.text("says")
    if step in BEFORE_START:
        BEFORE_START[step](says)
        rig.start()
    else:
        rig.start()
        STEPS[step](rig, says)
    rig.move()


# ---- before anybody is made


def _make_with(variable: str, value: str, says: str) -> None:
    before = os.environ.get(variable)
    os.environ[variable] = value
    try:
        expect_error("make", says, lambda: Side(SENDER))
    finally:
        os.environ.pop(variable) if before is None else os.environ.update({variable: before})


BEFORE_START: dict[str, Callable[[str], None]] = {
    "make-lane": lambda says: _make_with("BATON_LANES", "locl", says),
    "make-age": lambda says: _make_with("BATON_TRTLLM_ABI", "p7", says),
    "make-name": lambda says: expect_error("make", says, lambda: Side("")),
}

# ---- once both sides have met


def _transfer(rig: Rig, shipment: Shipment) -> None:
    """The whole of a transfer: its submission may fail, or its wait."""
    outgoing = rig.sender.send(shipment)
    if outgoing.wait() != State.SUCCESS:
        raise RuntimeError(outgoing.error())


def _refuse(rig: Rig, says: str, shipment: Shipment) -> None:
    expect_error("send", says, lambda: _transfer(rig, shipment))
    require(rig.partner.ask("traces", 0) == "", "the refused transfer has written something")


def _changed(change: Callable[[Rig, Shipment], None]) -> Callable[[Rig, str], None]:
    """A step that sends a shipment that is not as it should be."""

    def step(rig: Rig, says: str) -> None:
        shipment = rig.shipment()
        change(rig, shipment)
        _refuse(rig, says, shipment)

    return step


def _offer(kind: object, addr: Callable[[Rig], int], length: int) -> Callable[[Rig, str], None]:
    def step(rig: Rig, says: str) -> None:
        span = np.array([[addr(rig), length]], dtype=np.int64)
        expect_error("offer", says, lambda: rig.sender.offer(kind, span))

    return step


def _withdraw_unknown(rig: Rig, says: str) -> None:
    rig.sender.withdraw(DRAM, np.array([[rig.memories[0].base + 1, 7], [1, 1]], dtype=np.int64))


def _reach(peer: str | None, card: Callable[[Rig], bytes]) -> Callable[[Rig, str], None]:
    def step(rig: Rig, says: str) -> None:
        name = rig.receiver_name if peer is None else peer
        expect_error("reach", says, lambda: rig.sender.reach(name, card(rig)))

    return step


def _reach_truncated(rig: Rig, says: str) -> None:
    card = rig.receiver_card
    for length in range(len(card) // 2, len(card), len(card) // 7):
        expect_error("reach", says, lambda: rig.sender.reach(rig.receiver_name, card[:length]))


def _until_refused(what: str, says: str, call: Callable[[], object]) -> None:
    """Repeats a call until it raises: the library may take a moment to notice."""
    deadline = time.monotonic() + PATIENCE_S

    def repeat() -> None:
        while time.monotonic() < deadline:
            call()

    expect_error(what, says, repeat)


def _kill(rig: Rig) -> None:
    assert isinstance(rig.partner, Process), "the scenario needs processes=2"
    rig.partner.kill()


def _reach_dead(rig: Rig, says: str) -> None:
    _kill(rig)
    _until_refused("reach", says, lambda: rig.sender.reach(rig.receiver_name, rig.receiver_card))
    rig.replace_receiver()


def _outside(rig: Rig, shipment: Shipment) -> None:
    rig.outside = Memory(rig.layout, is_destination=False)  # alive while the library looks at it
    shipment.ours = rig.outside.pieces()


def _send_forgotten(rig: Rig, says: str) -> None:
    rig.sender.forget(rig.receiver_name)
    _refuse(rig, says, rig.shipment())
    rig.meet()


def _send_withdrawn(rig: Rig, says: str) -> None:
    rig.partner.ask("withdraw", 0, rig.each)
    _refuse(rig, says, rig.shipment())
    rig.offer_again()
    rig.meet()


def _send_dead(rig: Rig, says: str) -> None:
    _kill(rig)
    expect_error("send", says, lambda: _transfer(rig, rig.shipment()))
    rig.replace_receiver()


def _confirm_forgotten(rig: Rig, says: str) -> None:
    rig.sender.forget(rig.receiver_name)
    expect_error("confirm", says, lambda: rig.sender.confirm(rig.receiver_name, 1))
    rig.meet()


def _confirm_dead(rig: Rig, says: str) -> None:
    _kill(rig)
    _until_refused("confirm", says, lambda: rig.sender.confirm(rig.receiver_name, rig.shipment().id))
    rig.replace_receiver()


def _receive_dead(rig: Rig, says: str) -> None:
    waiting = rig.expect(rig.shipment(), 1)
    rig.destroy_sender()
    expect_error("receive", says, lambda: waiting.result(PATIENCE_S))
    rig.replace_sender()


def _use_after_shutdown(rig: Rig, says: str) -> None:
    shipment, regions = rig.shipment(), rig.memories[0].regions(rig.each)
    rig.sender.shutdown()
    rig.sender.shutdown()
    expect_error("offer", says, lambda: rig.sender.offer(DRAM, regions))
    expect_error("card", says, rig.sender.card)
    expect_error("reach", says, lambda: rig.sender.reach(rig.receiver_name, rig.receiver_card))
    expect_error("send", says, lambda: _transfer(rig, shipment))
    expect_error("confirm", says, lambda: rig.sender.confirm(rig.receiver_name, 1))
    rig.destroy_sender()
    rig.replace_sender()


def _set(which: str, piece: int, column: int, value: Callable[[int], int]) -> Callable[[Rig, Shipment], None]:
    """Changes address (0) or length (1) of a piece of `ours` or `theirs`."""

    def change(rig: Rig, shipment: Shipment) -> None:
        spans = getattr(shipment, which)
        spans[piece, column] = value(int(spans[piece, column]))

    return change


def _zero(rig: Rig, shipment: Shipment) -> None:
    shipment.ours[0, 1] = shipment.theirs[0, 1] = 0


def _nothing(rig: Rig, shipment: Shipment) -> None:
    shipment.ours, shipment.theirs = shipment.ours[:0], shipment.theirs[:0]


STEPS: dict[str, Callable[[Rig, str], None]] = {
    "offer-zero": _offer(DRAM, lambda rig: rig.memories[0].base, 0),
    "offer-wrap": _offer(DRAM, lambda rig: -8, 64),
    "offer-vram": _offer(VRAM, lambda rig: rig.memories[0].base, 64),
    "withdraw-unknown": _withdraw_unknown,
    "reach-garbage": _reach(None, lambda rig: b"nonsense"),
    "reach-nothing": _reach(None, lambda rig: b"\n"),
    "reach-truncated": _reach_truncated,
    "reach-other-name": _reach("gen77", lambda rig: rig.receiver_card),
    "reach-oneself": _reach(SENDER, lambda rig: rig.sender.card()),
    "reach-nobody": _reach("gen77", lambda rig: b"127.0.0.1:1\n"),
    "reach-dead": _reach_dead,
    "send-source": _changed(_outside),
    "send-destination": _changed(lambda rig, shipment: setattr(shipment, "theirs", shipment.ours)),
    "send-past-the-end": _changed(_set("theirs", -1, 0, lambda addr: addr + 4096)),
    "send-lengths": _changed(_set("theirs", -1, 1, lambda length: length - 1)),
    "send-counts": _changed(lambda rig, shipment: setattr(shipment, "theirs", shipment.theirs[:-1])),
    "send-zero": _changed(_zero),
    "send-nothing": _changed(_nothing),
    "send-wrap": _changed(_set("theirs", 0, 0, lambda addr: -8)),
    "send-nobody": _changed(lambda rig, shipment: setattr(shipment, "peer", "gen77")),
    "send-forgotten": _send_forgotten,
    "send-withdrawn": _send_withdrawn,
    "send-dead": _send_dead,
    "confirm-nobody": lambda rig, says: expect_error(
        "confirm", says, lambda: rig.sender.confirm("gen77", 1)
    ),
    "confirm-forgotten": _confirm_forgotten,
    "confirm-dead": _confirm_dead,
    "receive-dead": _receive_dead,
    "use-after-shutdown": _use_after_shutdown,
}
