"""A generation rank: asks every context rank that holds a part of a request, and checks what has landed.

It loads no peer with its agent: context ranks write into its memory, and say so over ZMQ.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from console import parse_number
from failure import Failure, Kind
from mapper import Int64s
from memory import AUX_SLOTS
from messages import (
    SUCCESS,
    AuxAgentResult,
    InstanceInfo,
    KvAgentResult,
    Malformed,
    Message,
    Refused,
    RegisterRankInfo,
    RequestData,
    RequestInstanceInfo,
    Termination,
)
from pattern import aux_words, first_difference
from rank import Rank, Role

_LEAVE_GRACE_S = 1.0  # results of a rank that has left may still be on their way, on other connections


@dataclass
class Source:
    """A context rank, and how far we have got with it."""

    rank: int
    name: str
    endpoint: str
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    is_linked: bool = False
    knows_us: bool = False  # REGISTER_RANK_INFO has been sent
    left_at: float | None = None


@dataclass
class Landing:
    """A request that is being received, or waits to be checked."""

    request: int
    blocks: Int64s
    aux_slot: int
    deadline: float
    sources: list[Source]
    kv: dict[int, KvAgentResult] = field(default_factory=dict)  # by context rank
    aux: set[int] = field(default_factory=set)
    is_check_wanted: bool = False

    @property
    def is_complete(self) -> bool:
        return len(self.kv) == len(self.aux) == len(self.sources)

    def awaits(self, source: Source) -> bool:
        """Whether this source still owes a result."""
        return source in self.sources and not (source.rank in self.kv and source.rank in self.aux)


class Generation(Role):
    """Commands: connect, receive, check."""

    def __init__(self, rank: Rank) -> None:
        super().__init__(rank)
        self._sources: dict[int, Source] = {}  # by context rank
        self._by_token: dict[str, Source] = {}
        self._landings: dict[int, Landing] = {}  # by request
        self._corrupt = 0

    @property
    def corrupt(self) -> int:
        return self._corrupt

    def summary(self) -> dict[str, int]:
        return {"corrupt": self._corrupt}

    def obey(self, words: list[str]) -> bool:
        match words:
            case ["connect", rank, name, endpoint]:
                self._sources[parse_number(rank, "CONTEXT_RANK")] = Source(parse_number(rank, ""), name, endpoint)
            case ["receive", request, tokens]:
                self._receive(parse_number(request, "REQUEST"), parse_number(tokens, "TOKENS"))
            case ["check", request]:
                self._check_when_landed(parse_number(request, "REQUEST"))
            case _:
                return False
        return True

    def proceed(self) -> None:
        now = time.monotonic()
        for landing in self._landings.values():
            if not landing.is_complete and now > landing.deadline:
                raise Failure(
                    Kind.TIMEOUT,
                    f"request {landing.request} is not all there after {self.rank.options.patience_ms} ms; of "
                    f"{len(landing.sources)} context ranks {len(landing.kv)} have written their part",
                )
        for source in self._by_token.values():
            owes = any(landing.awaits(source) for landing in self._landings.values())
            if owes and source.left_at is not None and now > source.left_at + _LEAVE_GRACE_S:
                raise Failure(Kind.PEER_LOST, f"{source.name} has left while it was being waited for", source.name)

    def take_in(self, sender: bytes, message: Message) -> None:
        source = self._by_token.get(getattr(message, "token", ""))
        if source is None:
            raise Malformed(f"{message.NAME} from nobody that this rank knows")
        match message:
            case KvAgentResult() | AuxAgentResult():
                self._take_result(source, message)
            case Termination():
                source.left_at = time.monotonic()
                self.rank.unlink(source.token)
            case _:
                raise Malformed(f"a generation rank takes no {message.NAME}")

    def take_answer(self, token: str, message: Message) -> None:
        source = self._by_token[token]
        match message:
            case InstanceInfo():
                self._register_at(source, message)
            case Refused():
                raise Failure(Kind.PROTOCOL, f"{source.name} refuses: {message.text}", source.name)
            case _:
                raise Failure(Kind.PROTOCOL, f"{source.name} answers with {message.NAME}", source.name)

    def on_loss(self, token: str, why: str) -> None:
        source = self._by_token[token]
        waiting = [str(landing.request) for landing in self._landings.values() if landing.awaits(source)]
        under_way = f" while it owed request {', '.join(waiting)}" if waiting else ""
        raise Failure(Kind.PEER_LOST, why + under_way, source.name)

    def _receive(self, request: int, tokens: int) -> None:
        if request in self._landings:
            raise Failure(Kind.USAGE, f"request {request} has not been checked yet")
        sources = []
        for piece in self.rank.pieces:
            source = self._sources.get(piece.context_rank)
            if source is None:
                raise Failure(Kind.USAGE, f"no connect command has named context rank {piece.context_rank}")
            sources.append(source)
        blocks = self.rank.pool.allocate(self.rank.options.geometry.blocks_for(tokens))
        deadline = time.monotonic() + self.rank.options.patience_ms / 1000
        landing = Landing(request, blocks, self.rank.aux.allocate(), deadline, sources)
        self._landings[request] = landing
        for source in sources:
            self._ask(source, landing)

    def _ask(self, source: Source, landing: Landing) -> None:
        if source.left_at is not None:
            raise Failure(Kind.PEER_LOST, f"{source.name} has left", source.name)
        if not source.is_linked:
            source.is_linked = True
            self._by_token[source.token] = source
            self.rank.link(source.token, source.name, source.endpoint).send(RequestInstanceInfo())
        if source.knows_us:
            request = RequestData(source.token, landing.request, landing.aux_slot, landing.blocks.tobytes())
            self.rank.links[source.token].send(request)

    def _register_at(self, source: Source, info: InstanceInfo) -> None:
        """The first contact, with all that has waited for it."""
        ours = self.rank.options.geometry.as_numbers()
        if (info.name, info.rank) != (source.name, source.rank):
            told = f"{source.name}, context rank {source.rank}"
            who = f"{info.name}, context rank {info.rank}"
            raise Failure(Kind.PROTOCOL, f"at {source.endpoint} is {who}, not {told}", source.name)
        if info.geometry != ours:
            raise Failure(Kind.PROTOCOL, f"{source.name} has another cache: {info.geometry}, not {ours}", source.name)
        if source.knows_us:
            raise Failure(Kind.PROTOCOL, f"{source.name} says twice who it is", source.name)
        rank, options = self.rank, self.rank.options
        rank.links[source.token].send(
            RegisterRankInfo(
                token=source.token,
                name=rank.agent.name,
                rank=options.rank,
                endpoint=rank.inbox.endpoint,
                geometry=ours,
                pool_is_vram=int(rank.pool.place.is_vram),
                pool_device=rank.pool.place.device,
                pool_address=rank.pool.address,
                pool_blocks=rank.pool.block_count,
                aux_address=rank.aux.address,
                aux_slots=AUX_SLOTS,
                raw=rank.agent.descriptor(),
            )
        )
        source.knows_us = True
        for landing in self._landings.values():
            if landing.awaits(source):
                self._ask(source, landing)

    def _take_result(self, source: Source, result: KvAgentResult | AuxAgentResult) -> None:
        landing = self._landings.get(result.request)
        seen = landing.aux if landing and isinstance(result, AuxAgentResult) else landing.kv if landing else ()
        if landing is None or source not in landing.sources or source.rank in seen:
            text = f"{source.name} speaks of request {result.request}, which it does not owe"
            raise Failure(Kind.PROTOCOL, text, source.name)
        if result.status != SUCCESS:
            text = f"{source.name} could not send request {result.request}: {result.text}"
            raise Failure(Kind.TRANSFER_FAILED, text, source.name)
        if isinstance(result, KvAgentResult):
            landing.kv[source.rank] = result
        else:
            landing.aux.add(source.rank)
        if landing.is_complete:
            self._report_received(landing)

    def _report_received(self, landing: Landing) -> None:
        done_ns = time.monotonic_ns()
        results = landing.kv.values()
        self.rank.events.emit(
            "received",
            request=landing.request,
            submitted_ns=min((result.submitted_ns for result in results), default=done_ns),
            done_ns=done_ns,
            bytes=sum(result.length_bytes for result in results),
            descriptors=sum(result.descriptors for result in results),
        )
        if landing.is_check_wanted:
            self._check(landing)

    def _check_when_landed(self, request: int) -> None:
        landing = self._landings.get(request)
        if landing is None:
            raise Failure(Kind.USAGE, f"request {request} has not been received")
        landing.is_check_wanted = True
        if landing.is_complete:
            self._check(landing)

    def _check(self, landing: Landing) -> None:
        """Holds every byte against what it must be, the AUX slot's too; what is wrong there counts as a block."""
        wrong = []
        for logical, block in enumerate(landing.blocks):
            self.rank.console.check_stopped()  # checking may take seconds: nobody may be there any more
            words = self.rank.pool.block(int(block))
            at = self.rank.pattern.first_wrong_byte(words, landing.request, logical)
            if at is not None:
                wrong.append(f"block {logical} at byte {at}")
        slot = self.rank.aux.slot(landing.aux_slot)
        at = first_difference(slot, aux_words(landing.request, slot.size))
        if at is not None:
            wrong.append(f"AUX slot {landing.aux_slot} at byte {at}")
        self._corrupt += bool(wrong)
        self.rank.pool.release(landing.blocks)
        self.rank.aux.release(landing.aux_slot)
        del self._landings[landing.request]
        first = wrong[0] if wrong else ""
        self.rank.events.emit("checked", request=landing.request, wrong_blocks=len(wrong), first_wrong=first)
