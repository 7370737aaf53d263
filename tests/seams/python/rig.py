"""What most scenarios stand on: a sender here, a receiver with a partner, and moves that are checked to the byte."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future

import tensorrt_llm.tensorrt_llm_transfer_agent_binding as binding

from memory import Layout, Memory
from receiver import Partner, Process
from scenarios import Scenario
from side import DRAM, PATIENCE_S, VRAM, Outgoing, Shipment, Side, kind_of

SENDER = "ctx0"
#: How often a scenario is tried until it struck while a transfer was under way.
TRIES = 20

State = binding.TransferState


class Failed(Exception):
    """Something is not as it should be."""


class Rig:
    """A pair of sides. Nobody is made at first."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self.layout = Layout(
            scenario.number("bytes", 1 << 20),
            scenario.number("descriptors", 4),
            scenario.text("layout", "gaps"),
        )
        self.each = scenario.text("regions", "one") == "each"
        self._source, self._destination = scenario.text("source", "dram"), scenario.text("destination", "dram")
        self.receiver_name = ""
        self.receiver_card = b""
        self.memories: list[Memory] = []
        self.sender: Side
        self.partner: Partner
        self._bases: list[int] = []
        self._ids, self._seeds, self._receivers = itertools.count(1), itertools.count(1), itertools.count()

    def start(self, slots: int = 1) -> None:
        """Makes the sender, a receiver and `slots` memories on both sides, and has them meet."""
        self.memories = [Memory(self.layout, is_destination=False, store=self._source) for _ in range(slots)]
        self.make_sender()
        self.make_receiver()
        self.meet()

    def make_sender(self) -> None:
        """Makes the sender, with the memory that there is."""
        note("make the sender")
        self.sender = Side(SENDER)
        for memory in self.memories:
            self.sender.offer(kind_of(memory), memory.regions(self.each))

    def make_receiver(self) -> None:
        """Makes the receiver and its memory."""
        note("make the receiver")
        self.receiver_name = self.receiver_name or f"gen{next(self._receivers)}"
        self.partner = Process() if self._scenario.number("processes", 1) == 2 else Partner()
        self.partner.ask("make", self.receiver_name)
        self.offer_again()

    def offer_again(self) -> None:
        """The receiver offers new memory."""
        layout = self.layout
        self._bases = [
            self.partner.ask(
                "offer", slot, layout.nbytes, layout.descriptors, layout.shape, self.each, self._destination
            )
            for slot in range(len(self.memories))
        ]
        self.receiver_card = bytes.fromhex(self.partner.ask("card"))

    def meet(self) -> None:
        """The receiver asks first, the sender answers."""
        note(f"meet {self.receiver_name}")
        greeted = self.partner.tell("greet", SENDER, self.sender.card().hex())
        try:
            self.sender.welcome(self.receiver_name, self.receiver_card)
        finally:
            greeted.result(PATIENCE_S)

    def replace_receiver(self, same_name: bool = False) -> None:
        """The receiver starts anew, under another name or under the same."""
        self.partner.close()
        if not same_name:
            self.receiver_name = ""
        self.make_receiver()
        self.meet()

    def replace_sender(self) -> None:
        """The sender starts anew, under the same name."""
        self.make_sender()
        self.meet()

    def shipment(self, slot: int = 0) -> Shipment:
        """A shipment of a slot, of its own id."""
        return Shipment(
            self.receiver_name,
            next(self._ids),
            self._scenario.text("op") == "read",
            self._scenario.text("message") == "with",
            self.memories[slot].pieces(),
            self.layout.pieces(self._bases[slot], is_destination=True),
            kind_of(self.memories[slot]),
            DRAM if self._destination == "dram" else VRAM,
        )

    def expect(self, shipment: Shipment, seed: int, slot: int = 0) -> Future:
        """The receiver's word that it holds the bytes."""
        return self.partner.tell("expect", SENDER, slot, shipment.id, seed)

    def move(self, slot: int = 0) -> None:
        """One whole move through a slot, whose bytes are checked."""
        seed, shipment = next(self._seeds), self.shipment(slot)
        note(f"move {self.layout.nbytes} bytes in {self.layout.descriptors} pieces")
        if shipment.is_read:
            self.memories[slot].clear()
            self.partner.ask("fill", slot, seed)
        else:
            self.memories[slot].fill(seed)
            self.partner.ask("clear", slot)
        arrived = self.expect(shipment, seed, slot)
        outgoing = self.sender.send(shipment)
        finish(outgoing)
        if not shipment.with_message:
            self.sender.confirm(shipment.peer, shipment.id)
        arrived.result(PATIENCE_S)
        require(not (faults := self.memories[slot].faults(seed)), f"the sender holds other bytes: {faults}")

    def new_seed(self) -> int:
        """A seed that no move has had."""
        return next(self._seeds)

    def destroy_sender(self) -> None:
        """Destroys the sender's agent."""
        note("destroy the sender")
        self.sender.destroy()

    def destroy_receiver(self) -> None:
        """Destroys the receiver's agent."""
        note("destroy the receiver")
        self.partner.ask("destroy")


def has_one_of(text: str, parts: str) -> bool:
    """Whether a text has one of `parts`, which have '|' between them."""
    return any(part in text for part in parts.split("|"))


def expect_error(what: str, parts: str, call: Callable[[], object]) -> None:
    """Runs `call`, which has to raise RuntimeError with one of `parts` in its text; says the text."""
    note(what)
    try:
        call()
    except RuntimeError as error:
        print(f"{what}: {error}", flush=True)
        require(has_one_of(str(error), parts), f"{what}: the error lacks '{parts}': {error}")
    else:
        raise Failed(f"{what}: no error, expected '{parts}'")


def finish(outgoing: Outgoing) -> None:
    """Waits for a shipment, which has to succeed."""
    if not is_done(outgoing, ""):
        raise RuntimeError(f"the transfer failed: {outgoing.error()}")


def is_done(outgoing: Outgoing, parts: str) -> bool:
    """Waits until a shipment is over; whether it is done. A failure has to say one of `parts`."""
    note("wait for the end")
    state = outgoing.wait()
    require(state != State.IN_PROGRESS, "a wait without a limit ended before the transfer")
    require(
        outgoing.is_over() and outgoing.wait(0) == state, "a transfer that is over does not stay as it is"
    )
    text = outgoing.error()
    if state == State.SUCCESS:
        require(not text, f"a transfer that is done has an error: {text}")
        return True
    print(f"a transfer failed: {text}", flush=True)
    require(bool(text) and has_one_of(text, parts), f"the transfer's error lacks '{parts}': {text}")
    return False


def require(good: bool, text: str) -> None:
    """Raises Failed with `text` unless `good`."""
    if not good:
        raise Failed(text)


def note(text: str) -> None:
    """Says what a scenario is doing: the last word of one that does not end."""
    print(f"- {text}", flush=True)
