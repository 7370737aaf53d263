"""What all drivers of Python have in common: the lines (../README.md), the buffer, the cell and the clock."""

from __future__ import annotations

import mmap
import os
import select
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Pieces = npt.NDArray[np.uint64]
"""One row a copy: offset in the source, offset in the destination, bytes."""

_WORD = 8
_WORDS_AT_ONCE = 1 << 17
_TURNS_BETWEEN_LOOKS = 64
_PATIENCE_S = 10


class Failed(Exception):
    """What a command could not do, for the person who runs the bench."""


class Driver:
    """How an implementation does what the lines ask for."""

    def open(self, name: str, address: int, size: int) -> tuple[bytes, int]:
        """Makes an agent that has this memory, if it is the first one. Its card, and the time to register in ns."""
        raise NotImplementedError

    def meet(self, ours: str, theirs: str, card: bytes) -> None:
        """Makes agent `ours` know agent `theirs`."""
        raise NotImplementedError

    def prepare(self, pieces: Pieces, local: int, remote: int) -> None:
        """Takes the cell for the moves to come; `remote` is the other side's buffer."""
        raise NotImplementedError

    def post(self) -> None:
        """Starts a move."""
        raise NotImplementedError

    def wait(self) -> None:
        """Ends with it."""
        raise NotImplementedError

    def ping(self) -> None:
        """A move with a notification, and the wait for the answer."""
        raise Failed("has no notifications")

    def note(self) -> None:
        """A notification, and the wait for the answer."""
        raise Failed("has no notifications")

    def serve(self) -> None:
        """Polls, and answers notifications, once."""
        time.sleep(0.001)


class Side:
    """One side of a pair, and what it has been told so far."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._memory = np.zeros(0, dtype=np.uint64)
        self._pieces: Pieces = np.zeros((0, 3), dtype=np.uint64)
        self._pending = b""

    def run(self) -> None:
        """Serves the lines until stdin ends, then ends the process: some libraries crash one that ends otherwise."""
        answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print there
        while (line := self._next()) and line != ["quit"]:
            try:
                answer = "ok " + getattr(self, "_do_" + line[0])(*line[1:])
            except Failed as error:
                answer = f"failed {error}"
            except Exception as error:  # whatever a library raises is told
                answer = f"failed {type(error).__name__}: {error}"
            answers.write(answer.replace("\n", " ") + "\n")
            answers.flush()
        os._exit(0)

    def _next(self) -> list[str]:
        while b"\n" not in self._pending:
            got = os.read(0, 1 << 16)
            if not got:
                return []
            self._pending += got
        line, self._pending = self._pending.split(b"\n", 1)
        return line.decode().split()

    def _do_buffer(self, size: str, fill: str) -> str:
        self._mapping = mmap.mmap(-1, int(size), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory = np.frombuffer(self._mapping, dtype=np.uint64)
        self._memory[:] = 0
        for at in range(0, self._memory.size if fill == "pattern" else 0, _WORDS_AT_ONCE):
            piece = self._memory[at : at + _WORDS_AT_ONCE]
            piece[:] = _pattern(at, piece.size)
        return str(self._address)

    def _do_open(self, name: str) -> str:
        begin = time.perf_counter_ns()
        card, register_ns = self._driver.open(name, self._address, self._memory.nbytes)
        return f"{card.hex()} {time.perf_counter_ns() - begin - register_ns} {register_ns}"

    def _do_meet(self, ours: str, theirs: str, card: str) -> str:
        begin = time.perf_counter_ns()
        self._driver.meet(ours, theirs, bytes.fromhex(card))
        return str(time.perf_counter_ns() - begin)

    def _do_cell(self, path: str, remote: str) -> str:
        self._pieces = np.fromfile(path, dtype=np.uint64).reshape(-1, 3)
        begin = time.perf_counter_ns()
        self._driver.prepare(self._pieces, self._address, int(remote))
        return str(time.perf_counter_ns() - begin)

    def _do_move(self, seconds: str, samples: str, inner: str) -> str:
        driver, turns, now = self._driver, int(inner), time.perf_counter_ns
        times: list[int] = []
        posts: list[int] = []
        end = now() + int(float(seconds) * 1e9)
        while len(times) < int(samples) or now() < end:
            posting = 0
            start = now()
            for _ in range(turns):
                post = now()
                driver.post()
                posting += now() - post
                driver.wait()
            times.append((now() - start) // turns)
            posts.append(posting // turns)
        return f"{_joined(times)} / {_joined(posts)}"

    def _do_ping(self, count: str) -> str:
        return _repeat(int(count), self._driver.ping)

    def _do_note(self, count: str) -> str:
        return _repeat(int(count), self._driver.note)

    def _do_serve(self) -> str:
        while True:
            for _ in range(_TURNS_BETWEEN_LOOKS):
                self._driver.serve()
            if self._pending or select.select([0], [], [], 0)[0]:
                return ""

    def _do_rest(self) -> str:
        return ""  # it ends `serve`

    def _do_clear(self) -> str:
        self._memory[:] = 0
        return ""

    def _do_check(self) -> str:
        at = 0
        rows = (self._pieces[np.argsort(self._pieces[:, 1])] // np.uint64(_WORD)).tolist()
        for source, destination, size in rows:
            self._expect(at, destination, np.uint64(0))
            at = destination + size
            self._expect(destination, at, _pattern(source, size))
        self._expect(at, self._memory.size, np.uint64(0))
        return ""

    def _expect(self, begin: int, end: int, words: npt.NDArray[np.uint64] | np.uint64) -> None:
        is_wrong = self._memory[begin:end] != words
        if is_wrong.any():
            raise Failed(f"wrong data at offset {(begin + int(is_wrong.argmax())) * _WORD} of the destination")

    @property
    def _address(self) -> int:
        return int(self._memory.ctypes.data)


def await_answer(peer: str, look: Callable[[], object]) -> None:
    """Looks for messages again and again until there are some. Raises Failed where none come."""
    deadline = time.perf_counter() + _PATIENCE_S
    while not look():
        if time.perf_counter() > deadline:
            raise Failed(f"no answer from {peer} in {_PATIENCE_S} s")


def _pattern(first: int, words: int) -> npt.NDArray[np.uint64]:
    """splitmix64 of `first` and those after it."""
    z = np.arange(first + 1, first + 1 + words, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _repeat(count: int, act: Callable[[], None]) -> str:
    times = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        act()
        times.append(time.perf_counter_ns() - begin)
    return _joined(times)


def _joined(numbers: list[int]) -> str:
    return " ".join(map(str, numbers))


def main(driver: Driver) -> None:
    """The body of a driver program."""
    try:
        Side(driver).run()
    except KeyboardInterrupt:
        sys.exit(130)
