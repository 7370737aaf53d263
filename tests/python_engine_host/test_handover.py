"""Ranks hand requests over: every layout, every order of asking and preparing, many at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import MODEL, Start
from geometry import Geometry
from ranks import Rank, connect

TOKENS = 16 * 9 + 5  # ten blocks, the last one in part


def geometry(tp: int, gen_tp: int) -> Geometry:
    flags = dict(zip(MODEL[::2], MODEL[1::2], strict=True))
    sizes = (flags["--layers"], 2, flags["--kv-heads"], flags["--head-dim"], 2, flags["--tokens-per-block"])
    return Geometry(*sizes, tp, gen_tp)


def start_ranks(start: Start, tp: int, gen_tp: int, *flags: object) -> tuple[list[Rank], list[Rank]]:
    """All ranks of both phases, connected."""
    layout = ("--tp", tp, "--gen-tp", gen_tp, *flags)
    contexts = [start("context", "--rank", rank, *layout) for rank in range(tp)]
    generations = [start("generation", "--rank", rank, *layout) for rank in range(gen_tp)]
    for rank in [*contexts, *generations]:
        rank.expect("ready")
    for rank in generations:
        connect(rank, contexts)
    return contexts, generations


def finish(ranks: list[Rank]) -> None:
    for rank in ranks:
        assert rank.finish()["refused"] == 0
    assert [rank.wait() for rank in ranks] == [0] * len(ranks)


@pytest.mark.parametrize(
    ("tp", "gen_tp"),
    [(1, 1), (1, 2), (2, 1), (2, 2), (1, 4), (4, 1), (4, 4)],
    ids=lambda tp: f"tp{tp}",
)
def test_every_layout_arrives_whole(start: Start, tp: int, gen_tp: int) -> None:
    shape = geometry(tp, gen_tp)
    contexts, generations = start_ranks(start, tp, gen_tp)
    for rank in contexts:
        rank.tell(f"prepare 7 {TOKENS} 0")
        assert rank.expect("prepared")["blocks"] == 10
    for number, rank in enumerate(generations):
        rank.tell(f"receive 7 {TOKENS}", "check 7")
        received, checked = rank.expect("received"), rank.expect("checked")
        pieces = [piece for piece in shape.pieces() if piece.generation_rank == number]
        assert received["bytes"] == 10 * shape.block_bytes(shape.generation_heads(number).count)
        runs = [1 if shape.same_layout(piece) else shape.planes for piece in pieces]
        assert received["descriptors"] == 10 * sum(runs)
        assert received["submitted_ns"] < received["done_ns"]
        assert (checked["wrong_blocks"], checked["first_wrong"]) == (0, "")
    senders = {piece.context_rank for piece in shape.pieces()}
    for number, rank in enumerate(contexts):
        assert number not in senders or rank.expect("submitted")["request"] == 7
        assert rank.expect("sent")["request"] == 7
    finish([*contexts, *generations])


def packages() -> list[Path]:
    """Every package beside the one that PYTHONPATH names: both namespaces, classes final and not, older hosts."""
    named = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
    return sorted(package.parent for package in named.parent.glob("*/tensorrt_llm"))


@pytest.mark.parametrize("package", packages(), ids=lambda package: package.name)
def test_every_host_of_the_binding_serves(start: Start, package: Path) -> None:
    context = start("context", "--gen-tp", 2, PYTHONPATH=str(package))
    context.expect("ready")
    context.tell(f"prepare 1 {TOKENS} 0")
    for number in range(2):
        rank = start("generation", "--gen-tp", 2, "--rank", number, PYTHONPATH=str(package))
        rank.expect("ready")
        connect(rank, [context])
        rank.tell(f"receive 1 {TOKENS}", "check 1")
        rank.expect("received")
        assert rank.expect("checked")["wrong_blocks"] == 0


@pytest.mark.parametrize("lane", ["local", "stream-unix", "stream-tcp"])
def test_every_lane_serves(start: Start, monkeypatch: pytest.MonkeyPatch, lane: str) -> None:
    monkeypatch.setenv("BATON_LANES", lane)
    contexts, generations = start_ranks(start, 2, 1)
    generations[0].tell("receive 1 1000", "check 1")
    for rank in contexts:
        rank.tell("prepare 1 1000 0")
    generations[0].expect("received")
    assert generations[0].expect("checked")["wrong_blocks"] == 0


def test_a_corrupt_byte_is_found(start: Start) -> None:
    contexts, generations = start_ranks(start, 1, 2)
    contexts[0].tell(f"prepare 1 {TOKENS} 1")
    wrong = 0
    for rank in generations:
        rank.tell(f"receive 1 {TOKENS}", "check 1")
        rank.expect("received")
        wrong += rank.expect("checked")["wrong_blocks"]
    assert wrong == 1
    corrupt = [rank.finish()["corrupt"] for rank in generations]
    assert [rank.wait() for rank in generations] == corrupt  # exit code 1 for the one that has found it
    assert sum(corrupt) == 1


def test_requests_may_be_asked_for_before_they_are_prepared(start: Start) -> None:
    contexts, generations = start_ranks(start, 1, 1)
    generations[0].tell("receive 1 100", "check 1", "receive 2 200", "check 2")
    contexts[0].tell("prepare 2 200 0")
    assert generations[0].expect("received")["request"] == 2
    assert generations[0].expect("checked")["wrong_blocks"] == 0
    contexts[0].tell("prepare 1 100 0")
    assert generations[0].expect("received")["request"] == 1
    assert generations[0].expect("checked")["wrong_blocks"] == 0
    finish([*contexts, *generations])


@pytest.mark.parametrize("threads", [1, 4])
def test_several_requests_are_under_way_at_once(start: Start, threads: int) -> None:
    contexts, generations = start_ranks(start, 2, 2, "--sender-threads", threads)
    requests = range(1, 13)  # of four blocks and more: most of the pool
    for rank in generations:
        rank.tell(*(f"receive {n} {48 + n}" for n in requests), *(f"check {n}" for n in requests))
    for rank in contexts:
        rank.tell(*(f"prepare {n} {48 + n} 0" for n in requests))
    for rank in generations:
        events = [rank.next() for _ in range(2 * len(requests))]
        assert sorted(event["request"] for event in events if event["event"] == "received") == list(requests)
        assert [event["wrong_blocks"] for event in events if event["event"] == "checked"] == [0] * len(requests)
    for rank in contexts:
        events = [rank.next() for _ in range(3 * len(requests))]
        assert sorted(event["request"] for event in events if event["event"] == "sent") == list(requests)
    finish([*contexts, *generations])


def test_reused_blocks_hold_the_new_request(start: Start) -> None:
    contexts, generations = start_ranks(start, 1, 1, "--pool-blocks", 10)
    for request in range(30):
        contexts[0].tell(f"prepare {request} {TOKENS} 0")
        contexts[0].expect("prepared")
        generations[0].tell(f"receive {request} {TOKENS}", f"check {request}")
        generations[0].expect("received")
        assert generations[0].expect("checked")["wrong_blocks"] == 0
        contexts[0].expect("submitted")
        contexts[0].expect("sent")
    finish([*contexts, *generations])


def test_a_request_without_tokens_moves_its_aux_slot_alone(start: Start) -> None:
    contexts, generations = start_ranks(start, 1, 1)
    contexts[0].tell("prepare 1 0 0")
    generations[0].tell("receive 1 0", "check 1")
    received = generations[0].expect("received")
    assert (received["bytes"], received["descriptors"]) == (0, 0)
    assert generations[0].expect("checked")["wrong_blocks"] == 0


def test_a_receiver_that_leaves_in_order_is_not_mourned(start: Start) -> None:
    contexts, generations = start_ranks(start, 1, 1)
    second = start("generation")
    second.expect("ready")
    connect(second, contexts)
    for request, rank in enumerate([generations[0], second]):
        contexts[0].tell(f"prepare {request} 100 0")
        rank.tell(f"receive {request} 100", f"check {request}")
        rank.expect("received")
        assert rank.expect("checked")["wrong_blocks"] == 0
        for name in ("prepared", "submitted", "sent"):
            contexts[0].expect(name)
        finish([rank])
    finish(contexts)
