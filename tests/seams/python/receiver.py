"""The receiving end of a scenario, and where it is: on threads of this process, or in one of its own.

A receiver follows commands, which are lists of JSON values: make NAME, offer SLOT BYTES DESCRIPTORS SHAPE EACH STORE, card,
greet PEER CARD, expect PEER SLOT ID SEED, abandon, fill SLOT SEED, clear SLOT, check SLOT SEED, words SLOT SEED,
traces SLOT, withdraw SLOT EACH, destroy.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from memory import Layout, Memory
from side import PATIENCE_S, Side, kind_of

PR_SET_PDEATHSIG = 1


class Receiver:
    """A side and its memory. Several threads may call it."""

    def __init__(self) -> None:
        self._side: Side | None = None
        self._memories: dict[int, Memory] = {}
        self._changed = threading.Condition()
        self._expecting = 0
        self._abandoned = False

    def hear(self, verb: str) -> None:
        """Hears of a command, in their order: an `abandon` ends every `expect` before it, begun or not."""
        with self._changed:
            self._expecting += verb == "expect"

    def follow(self, verb: str, *arguments: Any) -> Any:
        """Follows a command that it has heard of and returns the answer."""
        return getattr(self, f"_{verb}")(*arguments)

    def _make(self, name: str) -> None:
        self._side = Side(name)

    def _destroy(self) -> None:
        self._abandon()
        self._side.destroy()

    def _card(self) -> str:
        return self._side.card().hex()

    def _greet(self, peer: str, card: str) -> None:
        self._side.greet(peer, bytes.fromhex(card))

    def _offer(self, slot: int, nbytes: int, descriptors: int, shape: str, each: bool, store: str) -> int:
        memory = Memory(Layout(nbytes, descriptors, shape), is_destination=True, store=store)
        self._side.offer(kind_of(memory), memory.regions(each))
        self._memories[slot] = memory
        return memory.base

    def _withdraw(self, slot: int, each: bool) -> None:
        memory = self._memories[slot]
        self._side.withdraw(kind_of(memory), memory.regions(each))

    def _expect(self, peer: str, slot: int, id: int, seed: int) -> None:
        try:
            self._side.receive(peer, id, lambda: self._abandoned)
            if faults := self._memories[slot].faults(seed):
                raise RuntimeError(f"the receiver holds other bytes: {faults}")
        finally:
            with self._changed:
                self._expecting -= 1
                self._changed.notify_all()

    def _abandon(self) -> None:
        with self._changed:
            self._abandoned = True
            self._changed.wait_for(lambda: self._expecting == 0)
            self._abandoned = False

    def _fill(self, slot: int, seed: int) -> None:
        self._memories[slot].fill(seed)

    def _clear(self, slot: int) -> None:
        self._memories[slot].clear()

    def _check(self, slot: int, seed: int) -> str:
        return self._memories[slot].faults(seed)

    def _words(self, slot: int, seed: int) -> int:
        return self._memories[slot].words_of(seed)

    def _traces(self, slot: int) -> str:
        return self._memories[slot].traces()


class Partner:
    """The receiver on threads of this process."""

    def __init__(self) -> None:
        self._receiver = Receiver()

    def tell(self, verb: str, *arguments: Any) -> Future:
        """Hands a command over; the answer comes as a value or as RuntimeError."""
        self._receiver.hear(verb)
        return _on_a_thread(self._receiver, verb, *arguments)

    def ask(self, verb: str, *arguments: Any) -> Any:
        """Hands a command over and waits for the answer."""
        return self.tell(verb, *arguments).result(PATIENCE_S)

    def close(self) -> None:
        """Destroys the receiver, if nobody has."""
        self.ask("abandon")


class Process(Partner):
    """The receiver in a process of its own, which can be stopped and killed."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("host.py")), "--serve", str(os.getpid())]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._pending: dict[int, Future] = {}
        self._is_gone = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def tell(self, verb: str, *arguments: Any) -> Future:
        answer: Future = Future()
        with self._lock:
            number = next(self._numbers)
            if self._is_gone:
                answer.set_exception(RuntimeError("the other process has ended"))
                return answer
            self._pending[number] = answer
            self._child.stdin.write(json.dumps([number, verb, *arguments]) + "\n")
            self._child.stdin.flush()
        return answer

    def stop(self) -> None:
        """Stops it where it is; returns when it is stopped."""
        self._child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._child.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Lets it go on."""
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Ends it without warning; returns when it is gone."""
        self._child.kill()
        self._child.wait()

    def close(self) -> None:
        self.kill()
        self._reader.join()

    def _read(self) -> None:
        for line in self._child.stdout:
            number, value, error = json.loads(line)
            with self._lock:
                answer = self._pending.pop(number)
            answer.set_exception(RuntimeError(error)) if error is not None else answer.set_result(value)
        with self._lock:
            self._is_gone = True
            for answer in self._pending.values():
                answer.set_exception(RuntimeError("the other process has ended"))


def serve(parent: int) -> None:
    """The other end of Process: follows commands from standard input until it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # never outlives the scenario
    if os.getppid() != parent:
        return
    receiver, output = Receiver(), threading.Lock()

    def say(number: int, answer: Future) -> None:
        error = answer.exception()
        with output:
            print(json.dumps([number, None if error else answer.result(), error and str(error)]), flush=True)

    for line in sys.stdin:
        number, verb, *arguments = json.loads(line)
        receiver.hear(verb)
        answer = _on_a_thread(receiver, verb, *arguments)
        answer.add_done_callback(lambda answer, number=number: say(number, answer))
        if verb != "expect":
            answer.exception()  # in their order, but for those that wait


def _on_a_thread(receiver: Receiver, verb: str, *arguments: Any) -> Future:
    answer: Future = Future()

    def run() -> None:
        try:
            value = receiver.follow(verb, *arguments)
        except Exception as error:  # whatever it is, the asker is told
            # As text: the traceback would keep host objects alive.
            answer.set_exception(RuntimeError(str(error)))
        else:
            answer.set_result(value)

    threading.Thread(target=run, daemon=True).start()
    return answer
