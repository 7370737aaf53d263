"""What a rank of either role has, and the loop that serves it. Everything here runs on the process's main thread.

A role (context.py, generation.py) says what to do with a command, a message, an answer, a lost peer. A peer that
says what makes no sense is refused: it is answered, logged and counted, and nothing else happens.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod

import zmq

from console import Console, Events
from failure import Failure, Kind
from geometry import Piece
from library import Agent, Region
from memory import DRAM, AuxBuffer, BlockPool
from messages import Malformed, Message, Refused, Termination
from options import Options
from pattern import Pattern
from wire import Inbox, Link, new_context

_TURN_MS = 50  # how often deadlines are looked at while nothing happens
_LOGGED_REFUSALS = 20


class Rank:
    """Memory, agent, sockets and driver of one rank. Construction registers the memory and opens the inbox."""

    def __init__(self, options: Options, console: Console, events: Events) -> None:
        self.options = options
        self.console = console
        self.events = events
        seed = options.seed + options.rank
        self.pool = BlockPool(options.pool_blocks, options.block_bytes, seed, console.check_stopped, options.vram)
        self.aux = AuxBuffer()
        self.pattern = Pattern(options.geometry, options.heads)
        role = "ctx" if options.is_context else "gen"
        self.agent = Agent(f"{role}{options.rank}_{os.getpid()}")
        self._regions = [
            Region(self.pool.place, self.pool.address, self.pool.length_bytes),
            Region(DRAM, self.aux.address, self.aux.length_bytes),
        ]
        self.agent.register(self._regions)
        self.zmq = new_context()
        self.inbox = Inbox(self.zmq)
        self.links: dict[str, Link] = {}  # by token
        self.refused = 0
        self._poller = zmq.Poller()
        self.watch(console.fd)
        self.watch(self.inbox.socket)

    @property
    def pieces(self) -> list[Piece]:
        """The pieces of each request that this rank sends or receives."""
        options = self.options
        return [
            piece
            for piece in options.geometry.pieces()
            if (piece.context_rank if options.is_context else piece.generation_rank) == options.rank
        ]

    def watch(self, what: zmq.Socket[bytes] | int) -> None:
        """Has the loop take a turn as soon as there is something to read."""
        self._poller.register(what, zmq.POLLIN)

    def await_something(self) -> None:
        """Returns when there is something to do, or after a turn's time."""
        self._poller.poll(_TURN_MS)

    def watch_only_driver(self) -> None:
        """Ends caring for anything but commands."""
        self._poller = zmq.Poller()
        self.watch(self.console.fd)

    def link(self, token: str, peer: str, endpoint: str) -> Link:
        """Opens a watched connection to a peer; `token` is what the two of them know."""
        link = Link(self.zmq, peer, endpoint)
        self.links[token] = link
        self.watch(link.socket)
        self.watch(link.monitor)
        return link

    def unlink(self, token: str) -> None:
        """Ends watching a peer that has left in order."""
        link = self.links.pop(token)
        self._poller.unregister(link.socket)
        self._poller.unregister(link.monitor)
        link.close()

    def refuse(self, sender: bytes, token: str, why: str) -> None:
        """Answers a message that makes no sense."""
        self.refused += 1
        if self.refused <= _LOGGED_REFUSALS:
            print(f"{self.agent.name}: refused a message: {why}", file=sys.stderr, flush=True)
        self.inbox.reply(sender, Refused(token, why))

    def say_goodbye(self) -> None:
        """Tells every peer that this rank leaves in order: its end is not a death."""
        for token in list(self.links):
            try:
                self.links[token].send(Termination(token))
            except Failure:
                pass  # it has gone first
            self.unlink(token)

    def announce(self) -> None:
        """Tells the driver how to reach this rank."""
        self.events.emit(
            "ready",
            role=self.options.role,
            rank=self.options.rank,
            name=self.agent.name,
            connection_info=self.inbox.endpoint,
            pool_bytes=self.pool.length_bytes,
            slot_bytes=0,
            aux_bytes=self.aux.length_bytes,
            memory="vram" if self.pool.place.is_vram else "dram",
        )

    def close(self) -> None:
        """Takes the memory back from the library and ends the connections."""
        self.agent.close(self._regions)
        self.pool.close()
        self.zmq.destroy()


class Role(ABC):
    """One phase, as one rank plays it."""

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self._quitting = False

    def run(self) -> None:
        """Serves until stdin ends (Stopped) or a Failure; a rank that leaves in order tells its peers."""
        self.rank.announce()
        try:
            while True:
                self.rank.await_something()
                for words in self.rank.console.commands():
                    self._obey(words)
                if not self._quitting:
                    self._take_turn()
        except Exception as error:
            if not isinstance(error, Failure):
                self.rank.say_goodbye()
            raise

    @property
    def corrupt(self) -> int:
        """Requests whose bytes were not what they must be."""
        return 0

    @abstractmethod
    def obey(self, words: list[str]) -> bool:
        """Carries out a command; False where it knows none such."""

    @abstractmethod
    def take_in(self, sender: bytes, message: Message) -> None:
        """Acts on a message to the inbox. Raises Malformed for one that is to be refused."""

    @abstractmethod
    def take_answer(self, token: str, message: Message) -> None:
        """Acts on what a peer has answered on our connection to it."""

    @abstractmethod
    def on_loss(self, token: str, why: str) -> None:
        """Called in every turn while a peer counts as gone."""

    @abstractmethod
    def proceed(self) -> None:
        """Called in every turn."""

    @abstractmethod
    def summary(self) -> dict[str, int]:
        """What this role adds to the event `summary`."""

    def close(self) -> None:
        """Ends what the role has started."""

    def _obey(self, words: list[str]) -> None:
        if words == ["quit"]:
            # Only the end of stdin counts from now on: peers may leave first.
            self._quitting = True
            self.rank.say_goodbye()
            self.rank.watch_only_driver()
            self.rank.events.emit("summary", refused=self.rank.refused, **self.summary())
        elif not self.obey(words):
            role, count = self.rank.options.role, len(words) - 1
            raise Failure(Kind.USAGE, f'a {role} rank does not know the command "{words[0]}" with {count} words')

    def _take_turn(self) -> None:
        self.proceed()
        for sender, message in self.rank.inbox.receive():
            self._take_in(sender, message)
        self._look_after_links()

    def _take_in(self, sender: bytes, message: Message | Malformed) -> None:
        token = getattr(message, "token", "")
        try:
            if isinstance(message, Malformed):
                raise message
            self.take_in(sender, message)
        except Malformed as error:
            self.rank.refuse(sender, token, str(error))

    def _look_after_links(self) -> None:
        for token, link in list(self.rank.links.items()):
            for message in link.replies():
                self.take_answer(token, message)
            why = link.loss()
            if why is not None:
                self.on_loss(token, why)
