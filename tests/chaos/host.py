"""One side of a chaos run at seam S2: what host/main.cc is for S1 and S3, with the same commands (host/desk.h), the same
answers and the same board (host/board.h). It opens the library as TensorRT-LLM's Python runtime does."""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "seams" / "python"))

import numpy as np
from side import DRAM, Outgoing, Shipment, Side
from tensorrt_llm.tensorrt_llm_transfer_agent_binding import TransferState

PAGE, GAP, WORD = 4096, 64, 8
FIRST_SLOT = 2 * PAGE
PR_SET_PDEATHSIG = 1


def phases() -> dict[str, int]:
    """The names on the board, from the C++ host's list."""
    text = (Path(__file__).parent / "host" / "board.h").read_text()
    names = text.split("enum class Phase")[1].split("};")[0].splitlines()
    found = [name.strip().split(",")[0][1:].lower() for name in names if name.strip().startswith("k")]
    return {name: place for place, name in enumerate(found)}


class Arena:
    """The memory that the driver shares."""

    def __init__(self, path: str, piece_bytes: int, pieces: int, slots: int) -> None:
        self._piece_bytes, self._pieces = piece_bytes, pieces
        self._extent = pieces * (piece_bytes + GAP)
        self._stride = -(-self._extent // PAGE) * PAGE + PAGE
        with open(path, "r+b") as file:
            self._mapping = mmap.mmap(file.fileno(), FIRST_SLOT + slots * self._stride)
        self._base = np.frombuffer(self._mapping, dtype=np.uint8).ctypes.data
        self._board = memoryview(self._mapping)[:PAGE].cast("Q")
        self._phases = phases()

    def reach(self, phase: str) -> None:
        """Says that a phase is reached, if it is the first time."""
        place = 1 + self._phases[phase]
        if self._board[place] == 0:
            self._board[place] = time.monotonic_ns()

    def extent(self, slot: int) -> np.ndarray:
        """All pieces of a slot and the gaps between them: what is registered."""
        return np.array([[self._base + FIRST_SLOT + slot * self._stride, self._extent]], dtype=np.int64)

    def pieces(self, slot: int) -> np.ndarray:
        """The pieces of a slot."""
        return self.pieces_at(int(self.extent(slot)[0, 0]))

    def pieces_at(self, base: int) -> np.ndarray:
        """The same places in a peer's slot."""
        starts = base + np.arange(self._pieces, dtype=np.int64) * (self._piece_bytes + GAP)
        return np.stack([starts, np.full_like(starts, self._piece_bytes)], axis=1)


class Desk:
    """The commands. Several threads may call it."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._side: Side | None = None
        self._outgoing: dict[int, Outgoing] = {}
        self._changed = threading.Condition()
        self._waiting = 0
        self._is_abandoned = False

    def follow(self, verb: str, *words: str) -> str:
        """Follows one command and returns the answer."""
        return getattr(self, "_" + verb.replace("-", "_"))(*words) or ""

    def expect(self, verb: str) -> None:
        """Hears of a command, in their order: an `abandon` ends what waits before it, begun or not."""
        with self._changed:
            self._waiting += verb in ("hear", "receive")

    def _call(self, before: str, after: str, call: Callable[[], object]) -> object:
        self._arena.reach(before)
        result = call()
        self._arena.reach(after)
        return result

    def _make(self, name: str) -> None:
        self._side = self._call("create", "created", lambda: Side(name))

    def _destroy(self) -> None:
        self._abandon()
        side, self._side = self._side, None
        if side is not None:
            self._call("destroy", "destroyed", side.destroy)

    def _offer(self, slot: str) -> str:
        extent = self._arena.extent(int(slot))
        self._call("register", "registered", lambda: self._side.offer(DRAM, extent))
        return str(int(extent[0, 0]))

    def _withdraw(self, slot: str) -> None:
        extent = self._arena.extent(int(slot))
        self._call("withdraw", "withdrawn", lambda: self._side.withdraw(DRAM, extent))

    def _card(self) -> str:
        card = self._side.card().hex()
        self._arena.reach("blob")
        return card

    def _connect(self, peer: str, card: str) -> None:
        address = bytes.fromhex(card).partition(b"\n")[0] + b"\n"
        self._call("connect", "connected", lambda: self._side.reach(peer, address))

    def _introduce(self, peer: str) -> None:
        self._call("introduce", "introduced", lambda: self._side.introduce(peer))

    def _hear(self, peer: str) -> None:
        self._wait_here("hear", "heard", lambda: self._side.hear(peer, lambda: self._is_abandoned))

    def _forget(self, peer: str) -> None:
        self._call("forget", "forgot", lambda: self._side.forget(peer))

    def _load(self, peer: str, card: str) -> None:
        self._call("load", "loaded", lambda: self._side.reach(peer, bytes.fromhex(card)))

    def _leave(self, peer: str) -> None:
        self._call("leave", "left", lambda: self._side.forget(peer))

    def _send(self, id: str, peer: str, slot: str, base: str, how: str = "") -> None:
        ours, theirs = self._arena.pieces(int(slot)), self._arena.pieces_at(int(base))
        shipment = Shipment(peer, int(id), False, how == "with", ours, theirs)
        self._outgoing[int(id)] = self._call("submit", "submitted", lambda: self._side.send(shipment))

    def _wait(self, id: str) -> str:
        outgoing = self._outgoing[int(id)]
        if outgoing.wait() != TransferState.SUCCESS:
            raise RuntimeError(outgoing.error())
        self._arena.reach("success")
        return "done"

    def _cancel(self, id: str) -> str:
        return "quiet" if self._call("cancel", "cancelled", self._outgoing[int(id)].cancel) else "not quiet"

    def _drop(self, id: str) -> None:
        self._call("drop", "dropped", self._outgoing.pop(int(id)).destroy)

    def _confirm(self, id: str, peer: str) -> None:
        self._call("notify", "notified", lambda: self._side.confirm(peer, int(id)))

    def _receive(self, id: str, peer: str, slot: str) -> None:
        self._wait_here("receive", "received", lambda: self._side.receive(peer, int(id), lambda: self._is_abandoned))

    def _abandon(self) -> None:
        with self._changed:
            self._is_abandoned = True
            self._changed.wait_for(lambda: self._waiting == 0)
            self._is_abandoned = False

    def _wait_here(self, before: str, after: str, call: Callable[[], object]) -> None:
        try:
            self._call(before, after, call)
        finally:
            with self._changed:
                self._waiting -= 1
                self._changed.notify_all()

    def _exit(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # Python's own exit is the main thread's


def serve(desk: Desk) -> None:
    """Follows commands until there are no more, each on a thread of its own."""
    output = threading.Lock()

    def answer(number: str, command: str) -> None:
        try:
            sign, text = "+", desk.follow(*command.split())
        except Exception as error:  # whatever it is, the driver is told
            sign, text = "-", str(error).replace("\n", " ")
        with output:
            print(number, sign, time.monotonic_ns(), text, flush=True)

    for line in sys.stdin:
        number, _, command = line.strip().partition(" ")
        desk.expect(command.partition(" ")[0])
        threading.Thread(target=answer, args=(number, command), daemon=True).start()


def main() -> None:
    """Reads the flags of host/main.cc."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seam", choices=["s2"])
    options.add_argument("--memory", required=True)
    for size in ("--piece-bytes", "--pieces", "--slots", "--parent"):
        options.add_argument(size, type=int, required=True)
    given = options.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlives its driver
    if os.getppid() != given.parent:
        sys.exit(2)
    os.environ.setdefault("TRTLLM_NIXL_INTERFACE", "lo")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve(Desk(Arena(given.memory, given.piece_bytes, given.pieces, given.slots)))


if __name__ == "__main__":
    main()
