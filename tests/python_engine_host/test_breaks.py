"""A rank dies, stops, leaves or is silent: the others notice within 5 s, and say whom it is about."""

from __future__ import annotations

import signal
import time

import pytest

from conftest import Start
from ranks import Rank, connect

NOTICE_S = 5.0


def start_pair(start: Start, *flags: object, **environment: str) -> tuple[Rank, Rank]:
    context, generation = (start(role, *flags, **environment) for role in ("context", "generation"))
    for rank in (context, generation):
        rank.expect("ready")
    connect(generation, [context])
    return context, generation


def hand_over(context: Rank, generation: Rank, request: int) -> None:
    context.tell(f"prepare {request} 100 0")
    generation.tell(f"receive {request} 100", f"check {request}")
    generation.expect("received")
    generation.expect("checked")
    for name in ("prepared", "submitted", "sent"):
        context.expect(name)


@pytest.mark.parametrize("victim", ["context", "generation"])
def test_an_idle_survivor_notices_a_death(start: Start, victim: str) -> None:
    context, generation = start_pair(start)
    hand_over(context, generation, 1)
    dead, survivor = (context, generation) if victim == "context" else (generation, context)
    dead.kill()
    assert dead.ready["name"] in survivor.expect_error("peer-lost", 4, NOTICE_S)


def test_a_receiver_notices_that_its_sender_dies_before_it_has_prepared(start: Start) -> None:
    context, generation = start_pair(start)
    hand_over(context, generation, 1)
    generation.tell("receive 2 100")
    context.kill()
    text = generation.expect_error("peer-lost", 4, NOTICE_S)
    assert context.ready["name"] in text
    assert "request 2" in text


@pytest.mark.parametrize("victim", ["context", "generation"])
@pytest.mark.parametrize("lane", ["local", "stream-tcp"])
def test_a_survivor_notices_a_death_in_mid_transfer(start: Start, lane: str, victim: str) -> None:
    context, generation = start_pair(start, BATON_LANES=lane)
    hand_over(context, generation, 1)
    generation.tell("receive 2 500", "receive 3 100")
    context.tell("prepare 3 100 0")
    generation.expect("received")  # so it has asked for the other one too
    for name in ("prepared", "submitted", "sent"):
        context.expect(name)
    generation.signal(signal.SIGSTOP)  # so that the transfer cannot be over
    context.tell("prepare 2 500 0")
    for name in ("prepared", "submitted"):
        context.expect(name)
    if victim == "context":
        context.kill()
        generation.signal(signal.SIGCONT)
        text = generation.expect_error("peer-lost", 4, NOTICE_S)
        assert context.ready["name"] in text
        assert "while it owed request 2" in text
    else:
        generation.kill()
        assert generation.ready["name"] in context.expect_error("transfer-failed", 5, NOTICE_S)


@pytest.mark.parametrize("victim", ["context", "generation"])
def test_a_survivor_notices_a_stopped_peer(start: Start, victim: str) -> None:
    context, generation = start_pair(start)
    hand_over(context, generation, 1)
    stopped, survivor = (context, generation) if victim == "context" else (generation, context)
    stopped.signal(signal.SIGSTOP)
    assert stopped.ready["name"] in survivor.expect_error("peer-lost", 4, NOTICE_S)


def test_every_rank_that_knows_the_dead_one_notices(start: Start) -> None:
    layout = ("--tp", 2, "--gen-tp", 1)
    contexts = [start("context", "--rank", number, *layout) for number in range(2)]
    generation = start("generation", *layout)
    for rank in [*contexts, generation]:
        rank.expect("ready")
    connect(generation, contexts)
    for rank in contexts:
        rank.tell("prepare 1 100 0")
    generation.tell("receive 1 100")
    generation.expect("received")
    generation.kill()
    for rank in contexts:
        assert generation.ready["name"] in rank.expect_error("peer-lost", 4, NOTICE_S)


def test_a_sender_that_leaves_while_it_is_waited_for_is_lost(start: Start) -> None:
    context, generation = start_pair(start)
    hand_over(context, generation, 1)
    generation.tell("receive 2 100")
    context.finish()
    text = generation.expect_error("peer-lost", 4, NOTICE_S)
    assert context.ready["name"] in text
    assert "has left" in text


def test_waiting_for_what_nobody_prepares_ends(start: Start) -> None:
    _, generation = start_pair(start, "--patience-ms", 300)
    began = time.monotonic()
    generation.tell("receive 5 100")
    text = generation.expect_error("timeout", 6)
    assert time.monotonic() - began >= 0.3
    assert "request 5 is not all there after 300 ms; of 1 context ranks 0 have written their part" in text


def test_a_context_rank_that_is_not_there_is_named(start: Start) -> None:
    generation = start("generation")
    generation.expect("ready")
    generation.tell("connect 0 ctx0_1 127.0.0.1:1", "receive 1 100")
    text = generation.expect_error("peer-lost", 4)
    assert "ctx0_1 at 127.0.0.1:1 could not be reached" in text


def test_the_end_of_stdin_ends_a_rank_in_order(start: Start) -> None:
    context, generation = start_pair(start)
    hand_over(context, generation, 1)
    context.close()
    assert context.wait() == 0
    summary = generation.finish()  # it has not taken the end of the other for a death
    assert summary["corrupt"] == 0
    assert generation.wait() == 0
