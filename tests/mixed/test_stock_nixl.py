"""Baton beside a real stock NIXL agent: every first contact ends soon, with cause and cure on both sides."""

from __future__ import annotations

import time
from collections.abc import Callable

import host
import pytest
from stock import Stock

# Far below any connect timeout; a stock agent looks at its sockets every 100 ms.
SOON_S = 3.0
CURE = "put the Baton library on that side too, or remove it here"


def words_of(name: str) -> str:
    """What a stock agent's log says of the Baton agent of this name."""
    return (
        f"loadRemoteMD: error loading remote metadata for agent 'Baton agent {name} (cause: it runs Baton, and this "
        "side runs the stock NIXL agent; cure: put the Baton library on this side too, or remove it on that side)' "
        "with status NIXL_ERR_NOT_FOUND"
    )


def ip_and_port(agent: host.binding.NixlTransferAgent) -> tuple[str, int]:
    ip, port = agent.get_local_connection_info().rsplit(":", 1)
    return ip, int(port)


def blob_of(stock: Stock) -> host.binding.AgentDesc:
    return host.binding.AgentDesc(bytes.fromhex(stock.ask("blob")))


def test_baton_loads_the_blob_of_a_stock_agent(stock: Stock, capfd: pytest.CaptureFixture[str]) -> None:
    agent = host.agent(host.unique("gen"))
    expected = f'agent "{stock.name}" is a stock NIXL agent (TensorRT-LLM without Baton) with backend UCX: {CURE}'
    for _ in range(3):
        with pytest.raises(RuntimeError) as error:
            agent.load_remote_agent(stock.name, blob_of(stock))
        assert expected in str(error.value)
    assert capfd.readouterr().err.count(expected) == 1, "the log is told once"


def test_a_stock_agent_loads_the_blob_of_baton(stock: Stock) -> None:
    name = host.unique("ctx")
    agent = host.agent(name)
    answer = stock.ask("load", host.travelled(agent.get_local_agent_desc()).backend_agent_desc.hex())
    assert answer == "error: nixlNotFoundError: NIXL_ERR_NOT_FOUND"
    assert words_of(name) in stock.log
    assert not stock.ask("check", name), "nothing is left of it"


def test_baton_fetches_from_a_stock_listener(stock: Stock, capfd: pytest.CaptureFixture[str]) -> None:
    name = host.unique("gen")
    agent = host.agent(name)
    begun = time.monotonic()
    with pytest.raises(RuntimeError) as error:
        agent.load_remote_agent_by_connection(stock.name, stock.address)
    assert time.monotonic() - begun < SOON_S
    expected = (
        f"cannot load agent '{stock.name}' from {stock.address}: a stock NIXL agent (TensorRT-LLM without Baton; it "
        f"speaks NIXLCOMM) listens there: {CURE}"
    )
    assert expected in str(error.value)
    assert expected in capfd.readouterr().err
    assert stock.says_within(words_of(name), SOON_S), stock.log
    assert stock.is_alive()


def test_a_stock_agent_fetches_from_baton(stock: Stock, capfd: pytest.CaptureFixture[str]) -> None:
    name = host.unique("ctx")
    agent = host.agent(name)
    stock.ask("fetch", name, *ip_and_port(agent))
    assert stock.loads_within(name, SOON_S), f"its host would wait for ever: {stock.log}"
    assert stock.ask("notify", name, "request") == "error: nixlNotFoundError: NIXL_ERR_NOT_FOUND"
    assert words_of(name) in stock.log
    assert "genNotif: no specified or potential backend could send the inter-agent notifications" in stock.log
    log = capfd.readouterr().err
    assert "a stock NIXL agent (TensorRT-LLM without Baton; it speaks NIXLCOMM) has connected from 127.0.0.1" in log
    assert CURE in log


def test_a_stock_agent_sends_its_metadata_to_baton(stock: Stock, capfd: pytest.CaptureFixture[str]) -> None:
    name = host.unique("ctx")
    agent = host.agent(name)
    for _ in range(3):
        stock.ask("send", *ip_and_port(agent))
    assert stock.says_within(words_of(name), SOON_S), stock.log
    assert capfd.readouterr().err.count("has connected from 127.0.0.1") == 1, "the log is told once"


def test_a_name_that_was_batons_can_be_a_stock_agents(make_stock: Callable[..., Stock]) -> None:
    first, name = make_stock(), host.unique("ctx")
    agent = host.agent(name)
    first.ask("fetch", name, *ip_and_port(agent))
    assert first.loads_within(name, SOON_S)
    second = make_stock(name)
    assert first.ask("load", second.ask("blob")) == name
    assert first.ask("notify", name, "now it works") is None
    heard: list[str] = []
    while not heard:  # each only moves while it is asked; the test's time limit ends this
        first.ask("heard")
        heard = second.ask("heard")
    assert heard == ["now it works"]


def test_a_name_that_was_a_stock_agents_can_be_batons(make_stock: Callable[..., Stock]) -> None:
    name = host.unique("ctx")
    ctx, gen = host.agent(name), host.agent(host.unique("gen"))
    stock = make_stock(name)
    with pytest.raises(RuntimeError):
        gen.load_remote_agent_by_connection(name, stock.address)
    with pytest.raises(RuntimeError):
        gen.load_remote_agent(name, blob_of(stock))
    gen.load_remote_agent_by_connection(name, ctx.get_local_connection_info())
    gen.notify_sync_message(name, "hello")


def test_a_pair_of_baton_is_not_disturbed(stock: Stock) -> None:
    pair = host.Pair()
    stock.ask("fetch", pair.gen_name, *ip_and_port(pair.gen))
    assert stock.loads_within(pair.gen_name, SOON_S)
    assert pair.write().wait() == host.SUCCESS
    assert (pair.src == pair.dst).all()
