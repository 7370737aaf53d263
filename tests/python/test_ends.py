"""Shutdown, and objects that go in any order."""

from __future__ import annotations

import gc
import itertools

import host
import pytest
from host import Pair

needs_shutdown = pytest.mark.skipif(not host.HAS_SHUTDOWN, reason="hosts before P3 have no shutdown()")

BIG = 1 << 26  # not over before the next call

AFTER_SHUTDOWN = {
    "register_memory": lambda p: p.ctx.register_memory(host.descs(p.src)),
    "load_remote_agent": lambda p: host.load(p.ctx, p.gen_name, p.gen),
    "load_remote_agent_by_connection": lambda p: p.ctx.load_remote_agent_by_connection(
        p.gen_name, p.gen.get_local_connection_info()
    ),
    "get_local_agent_desc": lambda p: p.ctx.get_local_agent_desc(),
    "get_local_connection_info": lambda p: p.ctx.get_local_connection_info(),
    "submit_transfer_requests": lambda p: p.write(),
    "notify_sync_message": lambda p: p.ctx.notify_sync_message(p.gen_name, "late"),
    "get_notified_sync_messages": lambda p: p.ctx.get_notified_sync_messages(),
    "check_remote_descs": lambda p: p.ctx.check_remote_descs(p.gen_name, host.descs(p.dst)),
}


@needs_shutdown
def test_after_shutdown_calls_throw(pair: Pair) -> None:
    pair.ctx.shutdown()
    for name, call in AFTER_SHUTDOWN.items():
        with pytest.raises(RuntimeError) as caught:
            call(pair)
        assert str(caught.value) == f"[baton] agent '{pair.ctx_name}' has been shut down", name


@needs_shutdown
def test_after_shutdown_forgetting_does_nothing(pair: Pair) -> None:
    pair.ctx.shutdown()
    pair.ctx.invalidate_remote_agent(pair.gen_name)
    pair.ctx.deregister_memory(host.descs(pair.src))
    pair.ctx.shutdown()


@needs_shutdown
def test_shutdown_drains_what_is_under_way(lane: str) -> None:
    pair = Pair(BIG)
    status = pair.write()
    pair.ctx.shutdown()
    end = status.wait(timeout_ms=0)
    assert end in (host.SUCCESS, host.FAILURE)
    if end == host.FAILURE:
        assert "the agent was shut down" in status.get_last_status_str()
        canceled = -11
        assert status.get_last_status() == canceled
    landed = pair.dst.copy()
    pair.src[:] = ~pair.src
    pair.gen.get_local_agent_desc()  # the receiver goes on
    assert (pair.dst == landed).all()


@needs_shutdown
def test_the_receiver_may_shut_down_first(lane: str) -> None:
    pair = Pair(BIG)
    status = pair.write()
    pair.gen.shutdown()
    end = status.wait()
    assert end in (host.SUCCESS, host.FAILURE)
    assert (end == host.SUCCESS) == (status.get_last_status() == 0)
    assert (status.get_last_status_str() == "") == (end == host.SUCCESS)


@needs_shutdown
def test_a_released_transfer_is_over(lane: str) -> None:
    pair = Pair(BIG)
    status = pair.write()
    assert status.release()
    assert status.is_completed()
    assert status.wait() in (host.SUCCESS, host.FAILURE)
    landed = pair.dst.copy()
    pair.src[:] = ~pair.src
    assert (pair.dst == landed).all()


@pytest.mark.parametrize("order", itertools.permutations(["status", "ctx", "gen"]))
def test_objects_go_in_any_order(lane: str, order: tuple[str, ...]) -> None:
    pair = Pair(1 << 24)
    pair.status = pair.write()
    for name in order:
        delattr(pair, name)
        gc.collect()


def test_dropped_transfers_leave_the_agent_in_use(pair: Pair) -> None:
    for _ in range(20):
        pair.write()
    assert pair.write().wait() == host.SUCCESS
    assert (pair.dst == pair.src).all()


def test_memory_may_be_deregistered_under_a_transfer(lane: str) -> None:
    pair = Pair(BIG)
    status = pair.write()
    pair.ctx.deregister_memory(host.descs(pair.src))
    assert status.wait() in (host.SUCCESS, host.FAILURE)
    with pytest.raises(RuntimeError, match="register the memory with this agent first"):
        pair.write()
