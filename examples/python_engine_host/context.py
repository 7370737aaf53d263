"""A context rank: plays prefill, and writes each request to those who ask for it, whichever comes first.

Requests and receivers are looked after here, on the main thread; sender.py does the writing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from console import parse_number
from failure import Failure, Kind
from geometry import Piece
from mapper import Int64s, PagedSide
from memory import AUX_SLOT_BYTES, slot_address
from messages import InstanceInfo, Malformed, Message, RegisterRankInfo, RequestData, RequestInstanceInfo, Termination
from pattern import aux_words
from rank import Rank, Role
from sender import AuxCopy, Progress, Senders, Stage, Task

_MOST_ASKED = 4096  # requests that receivers may ask for before they are prepared
_FLIPPED_BIT = 0x40
_LOSS_GRACE_S = 1.0  # the library's words on a transfer to a dead peer are better than ours, if they come soon


@dataclass(frozen=True)
class Receiver:
    """A generation rank that has registered; `piece` is what it gets of every request."""

    info: RegisterRankInfo
    piece: Piece


@dataclass
class Prepared:
    """A request whose KV stands in the pool."""

    request: int
    blocks: Int64s
    aux_slot: int
    submitted: int = 0
    finished: int = 0


@dataclass(frozen=True)
class Departure:
    """A receiver that has gone, or has said that it goes, while the senders may still be writing to it."""

    since: float
    why: str
    is_orderly: bool


@dataclass
class Asked:
    """Who wants a request, by generation rank."""

    by_rank: dict[int, tuple[Receiver, RequestData]] = field(default_factory=dict)


class Context(Role):
    """Commands: prepare."""

    def __init__(self, rank: Rank) -> None:
        super().__init__(rank)
        options = rank.options
        self._receivers: dict[str, Receiver] = {}  # by token
        self._prepared: dict[int, Prepared] = {}  # by request
        self._asked: dict[int, Asked] = {}  # by request; those not yet prepared
        self._under_way: dict[str, int] = {}  # tasks that the senders have, by token
        self._departures: dict[str, Departure] = {}  # by token
        self._senders = Senders(rank.agent, options.geometry, rank.zmq, options.sender_threads, options.patience_ms)
        rank.watch(self._senders.wake_fd)

    def summary(self) -> dict[str, int]:
        return {}

    def obey(self, words: list[str]) -> bool:
        match words:
            case ["prepare", request, tokens, corrupt]:
                numbers = parse_number(request, "REQUEST"), parse_number(tokens, "TOKENS")
                self._prepare(*numbers, parse_number(corrupt, "CORRUPT") != 0)
            case _:
                return False
        return True

    def close(self) -> None:
        self._senders.stop()

    def proceed(self) -> None:
        for progress in self._senders.progress():
            self._note(progress)
        for token, departure in list(self._departures.items()):
            if departure.is_orderly and not self._under_way.get(token):
                self._dismiss(token)
            elif not self._under_way.get(token) or time.monotonic() > departure.since + _LOSS_GRACE_S:
                raise Failure(Kind.PEER_LOST, departure.why, self._receivers[token].info.name)

    def take_in(self, sender: bytes, message: Message) -> None:
        match message:
            case RequestInstanceInfo():
                options = self.rank.options
                info = InstanceInfo(self.rank.agent.name, options.rank, options.geometry.as_numbers())
                self.rank.inbox.reply(sender, info)
            case RegisterRankInfo():
                self._register(message)
            case RequestData():
                self._take_request(message)
            case Termination(token):
                why = f"{self._known(token).info.name} has left while it was being written to"
                self._departures.setdefault(token, Departure(time.monotonic(), why, is_orderly=True))
            case _:
                raise Malformed(f"a context rank takes no {message.NAME}")

    def take_answer(self, token: str, message: Message) -> None:
        name = self._receivers[token].info.name
        raise Failure(Kind.PROTOCOL, f"{name} answers with {message.NAME}: {getattr(message, 'text', '')}", name)

    def on_loss(self, token: str, why: str) -> None:
        self._departures.setdefault(token, Departure(time.monotonic(), why, is_orderly=False))

    def _prepare(self, request: int, tokens: int, corrupt: bool) -> None:
        """Plays prefill: the request's KV comes to be in the pool, its first token in the AUX buffer."""
        if request in self._prepared:
            raise Failure(Kind.USAGE, f"request {request} has not been sent yet")
        rank = self.rank
        blocks = rank.pool.allocate(rank.options.geometry.blocks_for(tokens))
        prepared = Prepared(request, blocks, rank.aux.allocate())
        for logical, block in enumerate(blocks):
            rank.console.check_stopped()  # filling may take seconds: nobody may be there any more
            with rank.pool.changed(int(block)) as words:
                rank.pattern.fill(words, request, logical)
        slot = rank.aux.slot(prepared.aux_slot)
        slot[:] = aux_words(request, slot.size)
        if corrupt:
            self._corrupt_one_byte(blocks)
        self._prepared[request] = prepared
        rank.events.emit("prepared", request=request, blocks=len(blocks))
        asked = self._asked.pop(request, Asked())
        for receiver, data in asked.by_rank.values():
            self._send(prepared, receiver, data)
        self._end_if_sent(prepared)

    def _corrupt_one_byte(self, blocks: Int64s) -> None:
        """Flips one bit of a byte that will travel, after the filling: the check on the other side must see it."""
        pieces, options = self.rank.pieces, self.rank.options
        if not pieces or not len(blocks):
            raise Failure(Kind.USAGE, "this rank sends nothing that could be corrupted")
        runs = options.geometry.runs(options.heads, pieces[0].heads, whole_block=False)
        at = runs.offsets[len(runs.offsets) // 2] + runs.length_bytes // 3
        with self.rank.pool.changed(int(blocks[len(blocks) // 3])) as words:
            words.view("uint8")[at] ^= _FLIPPED_BIT

    def _register(self, info: RegisterRankInfo) -> None:
        rank, geometry = self.rank, self.rank.options.geometry
        known = self._receivers.get(info.token)
        if known is not None and known.info == info:
            return  # said twice
        if known is not None or any(receiver.info.name == info.name for receiver in self._receivers.values()):
            raise Malformed(f"{info.name} has registered before, as another")
        if info.geometry != geometry.as_numbers():
            raise Malformed(f"{info.name} has another cache: {info.geometry}, not {geometry.as_numbers()}")
        piece = next((piece for piece in rank.pieces if piece.generation_rank == info.rank), None)
        if piece is None:
            raise Malformed(f"{info.name} is generation rank {info.rank}, to which this rank sends nothing")
        theirs = geometry.block_bytes(geometry.generation_heads(info.rank).count)
        ends = info.pool_address + info.pool_blocks * theirs, info.aux_address + info.aux_slots * AUX_SLOT_BYTES
        if not info.token or max(ends) >= 1 << 63 or info.pool_is_vram > 1 or info.pool_device >= 1 << 32:
            raise Malformed(f"{info.name} registers without a token, or with memory that cannot be")
        try:
            rank.agent.load(info.name, info.raw)
            rank.link(info.token, info.name, info.endpoint)
        except Failure as failure:
            raise Malformed(failure.text) from failure
        self._receivers[info.token] = Receiver(info, piece)

    def _take_request(self, data: RequestData) -> None:
        receiver = self._known(data.token)
        name, blocks = receiver.info.name, data.blocks
        if blocks.size and not (0 <= blocks.min() and blocks.max() < receiver.info.pool_blocks):
            raise Malformed(f"{name} offers a block outside its pool of {receiver.info.pool_blocks}")
        if data.aux_slot >= receiver.info.aux_slots:
            raise Malformed(f"{name} offers AUX slot {data.aux_slot} of {receiver.info.aux_slots}")
        prepared = self._prepared.get(data.request)
        if prepared is not None:
            self._send(prepared, receiver, data)
            return
        if len(self._asked) >= _MOST_ASKED and data.request not in self._asked:
            raise Malformed(f"{_MOST_ASKED} requests have been asked for and not been prepared; {name} has to wait")
        asked = self._asked.setdefault(data.request, Asked())
        if receiver.info.rank in asked.by_rank:
            raise Malformed(f"{name} asks twice for request {data.request}")
        asked.by_rank[receiver.info.rank] = (receiver, data)

    def _send(self, prepared: Prepared, receiver: Receiver, data: RequestData) -> None:
        info = receiver.info
        aux = None
        if self._sends_aux(receiver.piece):
            source = slot_address(self.rank.aux.address, prepared.aux_slot)
            aux = AuxCopy(source, slot_address(info.aux_address, data.aux_slot))
        ours = PagedSide(self.rank.pool.address, prepared.blocks, self.rank.pool.place)
        theirs = PagedSide(info.pool_address, data.blocks, info.pool_place)
        self._under_way[info.token] = self._under_way.get(info.token, 0) + 1
        self._senders.submit(
            Task(info.name, info.endpoint, info.token, prepared.request, receiver.piece, ours, theirs, aux)
        )

    def _sends_aux(self, piece: Piece) -> bool:
        """Of all that send to a generation rank, the first writes the AUX slot; the others only answer."""
        pieces = self.rank.options.geometry.pieces()
        return piece == next(other for other in pieces if other.generation_rank == piece.generation_rank)

    def _note(self, progress: Progress) -> None:
        if progress.failure is not None:
            raise progress.failure
        prepared = self._prepared[progress.task.request]
        if progress.stage is Stage.SUBMITTED:
            prepared.submitted += 1
            if prepared.submitted == len(self.rank.pieces):
                self.rank.events.emit("submitted", request=prepared.request)
            return
        prepared.finished += 1
        self._under_way[progress.task.token] -= 1
        self._end_if_sent(prepared)

    def _end_if_sent(self, prepared: Prepared) -> None:
        if prepared.finished < len(self.rank.pieces):
            return
        self.rank.pool.release(prepared.blocks)
        self.rank.aux.release(prepared.aux_slot)
        del self._prepared[prepared.request]
        self.rank.events.emit("sent", request=prepared.request)

    def _known(self, token: str) -> Receiver:
        receiver = self._receivers.get(token)
        if receiver is None:
            raise Malformed("it is from nobody who has registered here; REGISTER_RANK_INFO comes first")
        return receiver

    def _dismiss(self, token: str) -> None:
        """A receiver has left in order: it is owed nothing any more."""
        receiver = self._receivers.pop(token)
        del self._departures[token]
        self.rank.unlink(token)
        self.rank.agent.forget(receiver.info.name)
        for request, asked in list(self._asked.items()):
            if asked.by_rank.get(receiver.info.rank, (None,))[0] is receiver:
                del asked.by_rank[receiver.info.rank]
            if not asked.by_rank:
                del self._asked[request]
