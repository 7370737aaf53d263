"""One agent of seam S2, used as TensorRT-LLM's Python runtime uses it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorrt_llm.tensorrt_llm_transfer_agent_binding as binding

from memory import Memory, Spans
from scenarios import Scenario

DRAM, VRAM = binding.MemoryType.DRAM, binding.MemoryType.VRAM

HELLO, ALIVE = "hello", "alive"
SIGN_OF_LIFE_S = 0.1
POLL_S = 0.0002
PATIENCE_S = 25.0


def lacks(scenario: Scenario) -> str:
    """Why a scenario cannot be played at this seam: the part that does not exist there. Empty: it can."""
    steps = {
        "make-no-age": "the host's library is always there, and tells its age",
        "receive-shorter": "the receiver takes no part in a transfer",
        "abandoned": "the receiver takes no part in a transfer",
    }
    if scenario.text("step") in steps:
        return steps[scenario.text("step")]
    if scenario.text("bytes") == "0":
        return "a transfer of no bytes is an error"
    return "Python unloads no extension module" if "library" in scenario.text("order") else ""


@dataclass
class Shipment:
    """What to move."""

    peer: str
    id: int
    is_read: bool
    with_message: bool
    ours: Spans
    theirs: Spans
    ours_are: binding.MemoryType = DRAM
    theirs_are: binding.MemoryType = DRAM


class Outgoing:
    """A shipment under way, as its sender holds it. Destroying it breaks it off."""

    def __init__(self, status: binding.TransferStatus) -> None:
        self._status = status

    def is_over(self) -> bool:
        """Whether it succeeded or failed."""
        return self._status.is_completed()

    def wait(self, timeout_ms: int = -1) -> binding.TransferState:
        """Waits until it is over, at most `timeout_ms`."""
        return self._status.wait(timeout_ms)

    def cancel(self) -> bool:
        """Breaks it off; whether no byte of it can land any more."""
        return self._status.release()

    def error(self) -> str:
        """Why it failed."""
        return self._status.get_last_status_str()

    def destroy(self) -> None:
        """Drops the only reference to the host object."""
        del self._status


class Side:
    """An agent, and the messages that have come to it."""

    def __init__(self, name: str) -> None:
        # The config is gone when this returns, as the Python runtime has it.
        self._agent: binding.NixlTransferAgent = binding.NixlTransferAgent(
            binding.BaseAgentConfig(name, True, multi_thread=True, use_listen_thread=False)
        )
        self._lock = threading.Lock()
        self._messages: set[tuple[str, str]] = set()
        self._hellos: set[tuple[str, str]] = set()
        self._introductions = 0

    def destroy(self) -> None:
        """Drops the only reference to the host object."""
        del self._agent

    def offer(self, kind: binding.MemoryType, spans: Spans) -> None:
        """Makes memory usable in moves."""
        self._agent.register_memory(descs(kind, spans))

    def withdraw(self, kind: binding.MemoryType, spans: Spans) -> None:
        """Takes it back."""
        self._agent.deregister_memory(descs(kind, spans))

    def card(self) -> bytes:
        """What a peer needs: the address, a line break, the blob, which has travelled as the host's bytes."""
        desc = binding.AgentDesc.deserialize(self._agent.get_local_agent_desc().serialize())
        return self._agent.get_local_connection_info().encode() + b"\n" + desc.backend_agent_desc

    def reach(self, peer: str, card: bytes) -> None:
        """Gets ready to move with a peer, without a word to its host."""
        address, blob = _parts(card)
        if blob:
            self._agent.load_remote_agent(peer, binding.AgentDesc(blob))
        else:
            self._agent.load_remote_agent_by_connection(peer, address.decode())

    def greet(self, peer: str, card: bytes) -> None:
        """The receiver's first contact."""
        self._agent.load_remote_agent_by_connection(peer, _parts(card)[0].decode())
        self.introduce(peer)

    def introduce(self, peer: str) -> None:
        """The receiver says who it is."""
        self._introductions += 1
        self._agent.notify_sync_message(peer, f"{HELLO} {os.getpid()}.{self._introductions}")

    def welcome(self, peer: str, card: bytes) -> None:
        """The sender's answer to it."""
        deadline = time.monotonic() + PATIENCE_S
        self.hear(peer, lambda: time.monotonic() > deadline)
        self._agent.invalidate_remote_agent(peer)
        self.reach(peer, card)

    def hear(self, peer: str, is_given_up: Callable[[], bool]) -> None:
        """Returns when a receiver has introduced itself."""
        self._await_message(peer, HELLO, is_given_up)

    def forget(self, peer: str) -> None:
        """Forgets what this side may do to a peer."""
        self._agent.invalidate_remote_agent(peer)

    def send(self, shipment: Shipment) -> Outgoing:
        """Starts a shipment."""
        op = binding.TransferOp.READ if shipment.is_read else binding.TransferOp.WRITE
        message = _done(shipment.id) if shipment.with_message else None
        ours, theirs = descs(shipment.ours_are, shipment.ours), descs(shipment.theirs_are, shipment.theirs)
        request = binding.TransferRequest(op, ours, theirs, shipment.peer, message)
        return Outgoing(self._agent.submit_transfer_requests(request))

    def confirm(self, peer: str, id: int) -> None:
        """Announces a shipment that is done."""
        self._agent.notify_sync_message(peer, _done(id))

    def receive(self, peer: str, id: int, is_given_up: Callable[[], bool]) -> None:
        """Returns when a shipment is there. A host that waits gives signs of life: the call tells it of a loss."""
        next_sign = 0.0

        def idle() -> bool:
            nonlocal next_sign
            if (now := time.monotonic()) >= next_sign:
                self._agent.notify_sync_message(peer, ALIVE)
                next_sign = now + SIGN_OF_LIFE_S
            return is_given_up()

        self._await_message(peer, _done(id), idle)

    def shutdown(self) -> None:
        """Ends the agent's work without destroying it."""
        self._agent.shutdown()

    def _await_message(self, peer: str, wanted: str, is_given_up: Callable[[], bool]) -> None:
        while True:
            with self._lock:
                for sender, messages in self._agent.get_notified_sync_messages().items():
                    for message in messages:
                        self._keep(sender, message)
                if (peer, wanted) in self._messages:
                    self._messages.remove((peer, wanted))
                    return
            if is_given_up():
                raise RuntimeError(f"given up: no message '{wanted}' from '{peer}'")
            time.sleep(POLL_S)

    def _keep(self, sender: str, message: str) -> None:
        """Signs of life may repeat. A peer that has started anew introduces itself again, under another number; nothing else may."""
        is_hello = message.startswith(HELLO)
        seen = self._hellos if is_hello else self._messages
        if message != ALIVE and (sender, message) in seen:
            raise RuntimeError(f"message '{message}' of '{sender}' came twice")
        seen.add((sender, message))
        if is_hello:
            self._messages.add((sender, HELLO))


def kind_of(memory: Memory) -> binding.MemoryType:
    """What the seam calls it."""
    return VRAM if memory.is_vram else DRAM


def descs(kind: binding.MemoryType, spans: Spans) -> binding.MemoryDescs:
    """Descriptors as the Python runtime builds them: from arrays of numbers."""
    addrs, sizes = np.ascontiguousarray(spans[:, 0]), np.ascontiguousarray(spans[:, 1])
    return binding.MemoryDescs.from_arrays_uniform_device(kind, addrs, sizes, 0)


def _parts(card: bytes) -> tuple[bytes, bytes]:
    """The address and the blob of a card; what has no line break is a blob."""
    head, found, tail = card.partition(b"\n")
    return (head, tail) if found else (b"", card)


def _done(id: int) -> str:
    return f"done {id}"
