"""Whoever can reach a rank's inbox may say anything: it is refused, counted, and the rank serves on.

The stranger is the test itself. As `Impostor` it speaks the protocol with the host's own modules, with an agent that
has a real pool, and departs from it in one place.
"""

from __future__ import annotations

import dataclasses
import secrets
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from conftest import Start
from library import Agent, Region
from memory import AUX_SLOTS, DRAM, AuxBuffer, BlockPool
from messages import (
    FAILED,
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
    decode,
    encode,
)
from ranks import Rank, connect
from wire import Inbox, dial, new_context

LIMIT_MS = 10_000


class Impostor:
    """A generation rank of the test's own, which has asked a context rank who it is."""

    def __init__(self, context: Rank) -> None:
        self.agent = Agent(f"impostor_{secrets.token_hex(4)}")
        self.zmq = new_context()
        self.inbox = Inbox(self.zmq)
        self.to_context = dial(self.zmq, "context", context.ready["connection_info"])
        self.say(RequestInstanceInfo())
        info = self.answer()
        assert isinstance(info, InstanceInfo)
        assert info.name == context.ready["name"]
        self.pool, self.aux = BlockPool(8, 2 * 2 * 2 * 16 * 16 * 2, seed=1), AuxBuffer()
        self._regions = [
            Region(DRAM, memory.address, memory.length_bytes) for memory in (self.pool, self.aux)
        ]
        self.agent.register(self._regions)
        self.info = RegisterRankInfo(
            token=secrets.token_hex(16),
            name=self.agent.name,
            rank=0,
            endpoint=self.inbox.endpoint,
            geometry=info.geometry,
            pool_is_vram=0,
            pool_device=0,
            pool_address=self.pool.address,
            pool_blocks=8,
            aux_address=self.aux.address,
            aux_slots=AUX_SLOTS,
            raw=self.agent.descriptor(),
        )

    def say(self, message: Message) -> None:
        self.to_context.send_multipart(encode(message))

    def answer(self) -> Message:
        """What the context rank answers on our connection."""
        assert self.to_context.poll(LIMIT_MS), "no answer"
        return decode(self.to_context.recv_multipart())

    def refusal(self) -> str:
        """Why it refuses what was said last."""
        answer = self.answer()
        assert isinstance(answer, Refused), answer
        return answer.text

    def told(self) -> Message:
        """What it sends to our inbox."""
        assert self.inbox.socket.poll(LIMIT_MS), "nothing came"
        (_, message) = next(self.inbox.receive())
        assert not isinstance(message, Malformed)
        return message

    def ask(self, request: int, blocks: list[int], aux_slot: int = 0) -> None:
        self.say(RequestData(self.info.token, request, aux_slot, np.array(blocks, dtype=np.int64).tobytes()))

    def close(self) -> None:
        self.agent.close(self._regions)
        self.zmq.destroy(linger=0)


@pytest.fixture
def context(start: Start) -> Rank:
    rank = start("context")
    rank.expect("ready")
    return rank


@pytest.fixture
def impostor(context: Rank, monkeypatch: pytest.MonkeyPatch) -> Iterator[Impostor]:
    monkeypatch.setenv("TRTLLM_NIXL_INTERFACE", "lo")
    stranger = Impostor(context)
    yield stranger
    stranger.close()


def assert_serves(context: Rank, start: Start, refused: int) -> None:
    """The context rank still hands a request over, and has refused as many messages as this."""
    assert refused == count_refused_by_one_that_serves(context, start)


def count_refused_by_one_that_serves(context: Rank, start: Start) -> int:
    """Has the context rank hand a request over to a real generation rank; returns what it has counted."""
    generation = start("generation")
    generation.expect("ready")
    connect(generation, [context])
    context.tell("prepare 77 100 0")
    generation.tell("receive 77 100", "check 77")
    generation.expect("received")
    assert generation.expect("checked")["wrong_blocks"] == 0
    generation.finish()
    count = int(context.finish()["refused"])
    assert context.wait() == 0
    return count


def test_garbage_on_the_socket(context: Rank, start: Start) -> None:
    port = int(context.ready["connection_info"].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=5) as bare:
        bare.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(range(256)) * 100)
    random = np.random.default_rng(7)
    messages = [[b""], [b"REQUEST_DATA"], [b"REQUEST_DATA", b"{}", b""], [b"TERMINATION", b'{"token": 5}']]
    messages += [[b"REQUEST_INSTANCE_INFO", b"[" * 50_000], [b"REQUEST_INSTANCE_INFO", b"\xff"], [b"x"] * 100]
    messages += [[random.bytes(size)] * frames for size, frames in ((1, 1), (1000, 2), (100_000, 3))]
    with zmq.Context() as garbage, dial(garbage, "context", f"127.0.0.1:{port}") as dealer:
        for frames in messages:
            dealer.send_multipart(frames)
            assert dealer.poll(LIMIT_MS), f"no answer to {frames[0][:20]!r}"
            assert isinstance(decode(dealer.recv_multipart()), Refused)
    # The bare bytes too may have been taken for messages, as ZMTP/1.0 has no greeting.
    assert count_refused_by_one_that_serves(context, start) >= len(messages)


def test_a_generation_rank_takes_no_results_from_strangers(context: Rank, start: Start) -> None:
    generation = start("generation")
    ready = generation.expect("ready")
    connect(generation, [context])
    generation.tell("receive 1 100", "check 1")
    lies = [
        KvAgentResult("guess", 1, SUCCESS, 1, 1, 1, ""),
        AuxAgentResult("", 1, SUCCESS, ""),
        KvAgentResult("guess", 1, FAILED, 1, 1, 1, "because"),
        Termination("guess"),
        RequestInstanceInfo(),
    ]
    with zmq.Context() as liar, dial(liar, "generation", ready["connection_info"]) as dealer:
        for lie in lies:
            dealer.send_multipart(encode(lie))
            assert dealer.poll(LIMIT_MS)
            assert isinstance(decode(dealer.recv_multipart()), Refused)
    context.tell("prepare 1 100 0")
    generation.expect("received")
    assert generation.expect("checked")["wrong_blocks"] == 0
    assert generation.finish()["refused"] == len(lies)


def test_a_request_of_somebody_unknown(context: Rank, impostor: Impostor, start: Start) -> None:
    impostor.ask(1, [0])
    assert "REGISTER_RANK_INFO comes first" in impostor.refusal()
    impostor.say(Termination("guess"))
    assert "nobody who has registered here" in impostor.refusal()
    assert_serves(context, start, refused=2)


@pytest.mark.parametrize("keep", [0, 1, 40, -1])
def test_an_agent_desc_that_is_cut_off(context: Rank, impostor: Impostor, start: Start, keep: int) -> None:
    impostor.say(dataclasses.replace(impostor.info, raw=impostor.info.raw[:keep]))
    assert f"load_remote_agent {impostor.agent.name}: " in impostor.refusal()
    assert_serves(context, start, refused=1)


def test_registrations_that_cannot_be(context: Rank, impostor: Impostor, start: Start) -> None:
    info = impostor.info
    lies: dict[str, dict[str, Any]] = {
        "has another cache": {"geometry": {**info.geometry, "layers": 3}},
        "is generation rank 5, to which this rank sends nothing": {"rank": 5},
        "or with memory that cannot be": {"pool_address": (1 << 63) - 8},
        "with memory that cannot be": {"pool_device": 1 << 32},
        "memory that cannot be": {"pool_is_vram": 2},
        "without a token": {"token": ""},
    }
    for text, lie in lies.items():
        impostor.say(dataclasses.replace(info, **lie))
        assert text in impostor.refusal()
    impostor.say(info)
    impostor.say(info)  # said twice, it is not refused
    impostor.say(dataclasses.replace(info, endpoint="127.0.0.1:9"))
    assert "has registered before, as another" in impostor.refusal()
    impostor.say(Termination(info.token))
    assert_serves(context, start, refused=len(lies) + 1)


def test_requests_that_cannot_be(context: Rank, impostor: Impostor, start: Start) -> None:
    impostor.say(impostor.info)
    for blocks in ([8], [-1], [0, 1 << 40]):
        impostor.ask(1, blocks)
        assert "offers a block outside its pool of 8" in impostor.refusal()
    impostor.ask(1, [0], aux_slot=AUX_SLOTS)
    assert f"offers AUX slot {AUX_SLOTS} of {AUX_SLOTS}" in impostor.refusal()
    impostor.say(RequestData(impostor.info.token, 1, 0, b"12345"))
    assert "5 bytes of block ids are no list of int64" in impostor.refusal()
    impostor.ask(1, [0])
    impostor.ask(1, [1])
    assert "asks twice for request 1" in impostor.refusal()
    impostor.say(Termination(impostor.info.token))
    assert_serves(context, start, refused=6)


def test_the_protocol_as_it_should_be(context: Rank, impostor: Impostor) -> None:
    impostor.say(impostor.info)
    impostor.ask(1, [5, 2])
    context.tell("prepare 1 32 0")
    kv, aux = impostor.told(), impostor.told()
    assert isinstance(kv, KvAgentResult)
    assert isinstance(aux, AuxAgentResult)
    assert (kv.token, kv.request, kv.status) == (impostor.info.token, 1, SUCCESS)
    assert (kv.length_bytes, kv.descriptors) == (2 * impostor.pool.block(0).nbytes, 2)
    assert (aux.token, aux.request, aux.status) == (impostor.info.token, 1, SUCCESS)
    landed = [bool(impostor.pool.block(block).any()) for block in range(8)]
    assert landed == [False, False, True, False, False, True, False, False]
    assert impostor.aux.slot(0).any()
    assert not impostor.aux.slot(1).any()


@pytest.mark.parametrize("blocks", [[0], [0, 1, 2]])
def test_another_number_of_blocks_fails_the_request(context: Rank, impostor: Impostor, blocks: list[int]) -> None:
    impostor.say(impostor.info)
    impostor.ask(1, blocks)
    context.tell("prepare 1 32 0")
    result = impostor.told()
    assert isinstance(result, KvAgentResult)
    expected = f"{impostor.agent.name} offers {len(blocks)} blocks for request 1, which has 2"
    assert (result.status, result.text) == (FAILED, expected)
    assert context.expect_error("protocol", 7) == expected


def test_memory_that_is_not_registered_fails_the_transfer(context: Rank, impostor: Impostor) -> None:
    other = BlockPool(8, 4096, seed=1)
    impostor.say(dataclasses.replace(impostor.info, pool_address=other.address))
    impostor.ask(1, [0])
    context.tell("prepare 1 5 0")
    result = impostor.told()
    assert isinstance(result, KvAgentResult)
    assert result.status == FAILED
    assert impostor.agent.name in result.text
    assert context.expect_error("transfer-failed", 5) == result.text


def test_a_context_rank_of_another_name_is_not_believed(context: Rank, start: Start) -> None:
    generation = start("generation")
    generation.expect("ready")
    generation.tell(f"connect 0 somebody {context.ready['connection_info']}", "receive 1 100")
    text = generation.expect_error("protocol", 7)
    assert f"is {context.ready['name']}, context rank 0, not somebody, context rank 0" in text


def test_a_context_rank_of_another_model_is_not_believed(context: Rank, start: Start) -> None:
    generation = start("generation", "--layers", 3)
    generation.expect("ready")
    connect(generation, [context])
    generation.tell("receive 1 100")
    assert "has another cache" in generation.expect_error("protocol", 7)
