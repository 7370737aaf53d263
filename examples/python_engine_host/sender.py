"""The sender threads of a context rank: each writes one piece at a time, then tells the receiver.

Per piece: build the lists, submit the write, wait, KV_AGENT_RESULT, then the AUX slot likewise and
AUX_AGENT_RESULT. How far each piece has come goes to the rank's own thread as Progress. A thread has ZMQ sockets of
its own; the agent is shared.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np
import zmq

from failure import Failure, Kind
from geometry import Geometry, Piece
from library import Agent, State, Transfer
from mapper import Copies, Int64s, PagedSide, map_piece
from memory import AUX_SLOT_BYTES, DRAM, Place
from messages import FAILED, SUCCESS, AuxAgentResult, KvAgentResult, Message
from wire import dial, send

_WAIT_MS = 50
_STOP_LIMIT_S = 2.0


@dataclass(frozen=True)
class AuxCopy:
    """Addresses of the AUX slot here and at the receiver."""

    source: int
    destination: int


@dataclass(frozen=True)
class Task:
    """One piece of one request, to one receiver. `aux` is None where another rank writes the slot."""

    peer: str
    endpoint: str
    token: str
    request: int
    piece: Piece
    ours: PagedSide
    theirs: PagedSide
    aux: AuxCopy | None


class Stage(Enum):
    """How far a task has come."""

    SUBMITTED = 0  # the write is under way
    FINISHED = 1  # both results have been sent
    FAILED = 2


@dataclass(frozen=True)
class Progress:
    """A task has come to this stage; `failure` says why where it has failed."""

    task: Task
    stage: Stage
    failure: Failure | None = None


class Senders:
    """A fixed number of threads that take tasks in the order of submit()."""

    def __init__(
        self, agent: Agent, geometry: Geometry, context: zmq.Context[zmq.Socket[bytes]], threads: int, patience_ms: int
    ) -> None:
        self._agent = agent
        self._geometry = geometry
        self._context = context
        self._patience_s = patience_ms / 1000
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._progress: queue.SimpleQueue[Progress] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)  # readable when progress() has something
        self._threads = [threading.Thread(target=self._serve, name=f"sender-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    def submit(self, task: Task) -> None:
        self._tasks.put(task)

    def progress(self) -> Iterator[Progress]:
        """What has happened since the last call, in order per task."""
        try:
            os.eventfd_read(self.wake_fd)
        except BlockingIOError:
            return
        while True:
            try:
                yield self._progress.get_nowait()
            except queue.Empty:
                return

    def stop(self) -> None:
        """Cancels what is under way and ends the threads, within a bound."""
        self._stopping.set()
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + _STOP_LIMIT_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self) -> None:
        voice = _Voice(self._context)
        while (task := self._tasks.get()) is not None and not self._stopping.is_set():
            try:
                self._carry_out(task, voice)
                self._report(Progress(task, Stage.FINISHED))
            except Failure as failure:
                self._report(Progress(task, Stage.FAILED, failure))
            except Exception as error:  # a thread that dies in silence would be a hang
                text = f"internal: {type(error).__name__}: {error}"
                self._report(Progress(task, Stage.FAILED, Failure(Kind.TRANSFER_FAILED, text, task.peer)))
        voice.close()

    def _carry_out(self, task: Task, voice: _Voice) -> None:
        copies = _empty()
        submitted_ns = time.monotonic_ns()
        try:
            _require_room(task)
            copies = map_piece(self._geometry, task.piece, task.ours, task.theirs)
            submitted_ns = time.monotonic_ns()
            transfer = self._submit(task, copies, task.ours.place, task.theirs.place)
            self._report(Progress(task, Stage.SUBMITTED))
            self._await(transfer, task.peer)
        except Failure as failure:
            voice.tell(task, KvAgentResult(task.token, task.request, FAILED, submitted_ns, 0, 0, failure.text))
            raise
        done = (SUCCESS, submitted_ns, copies.length_bytes, copies.descriptors, "")
        voice.tell(task, KvAgentResult(task.token, task.request, *done))
        self._carry_out_aux(task, voice)

    def _carry_out_aux(self, task: Task, voice: _Voice) -> None:
        try:
            if task.aux is not None:
                self._await(self._submit(task, _one(task.aux), DRAM, DRAM), task.peer)
        except Failure as failure:
            voice.tell(task, AuxAgentResult(task.token, task.request, FAILED, failure.text))
            raise
        voice.tell(task, AuxAgentResult(task.token, task.request, SUCCESS, ""))

    def _submit(self, task: Task, copies: Copies, ours: Place, theirs: Place) -> Transfer | None:
        """None where there is nothing to write: the agent is not asked then."""
        return self._agent.write(task.peer, copies, ours, theirs) if copies.descriptors else None

    def _await(self, transfer: Transfer | None, peer: str) -> None:
        deadline = time.monotonic() + self._patience_s
        state = State.SUCCESS if transfer is None else State.IN_PROGRESS
        while transfer is not None and (state := transfer.wait(_WAIT_MS)) is State.IN_PROGRESS:
            if self._stopping.is_set():
                transfer.cancel()
                raise Failure(Kind.TRANSFER_FAILED, f"the transfer to {peer} is given up: this rank ends", peer)
            if time.monotonic() > deadline:
                transfer.cancel()
                raise Failure(Kind.TIMEOUT, f"the transfer to {peer} was not done in {self._patience_s:g} s", peer)
        if transfer is not None and state is State.FAILURE:
            why = transfer.text
            raise Failure(Kind.TRANSFER_FAILED, f"the transfer to {peer} failed" + (f": {why}" if why else ""), peer)

    def _report(self, progress: Progress) -> None:
        self._progress.put(progress)
        os.eventfd_write(self.wake_fd, 1)


class _Voice:
    """One thread's connections to receivers' inboxes, made when first needed."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self._sockets: dict[str, zmq.Socket[bytes]] = {}

    def tell(self, task: Task, message: Message) -> None:
        if task.endpoint not in self._sockets:
            self._sockets[task.endpoint] = dial(self._context, task.peer, task.endpoint)
        send(self._sockets[task.endpoint], task.peer, message)

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close()


def _require_room(task: Task) -> None:
    offered, needed = task.theirs.blocks.size, task.ours.blocks.size
    if offered != needed:
        text = f"{task.peer} offers {offered} blocks for request {task.request}, which has {needed}"
        raise Failure(Kind.PROTOCOL, text, task.peer)


def _one(aux: AuxCopy) -> Copies:
    def single(value: int) -> Int64s:
        return np.array([value], dtype=np.int64)

    return Copies(single(aux.source), single(aux.destination), single(AUX_SLOT_BYTES))


def _empty() -> Copies:
    nothing = np.empty(0, dtype=np.int64)
    return Copies(nothing, nothing, nothing)
