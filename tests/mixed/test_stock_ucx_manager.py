"""Baton beside ZeroMQ sockets as a stock UCX connection manager opens them, in the words of a real libzmq.

No stock manager is at hand here: what is tried is that ours knows the protocol, that its asker gets an answer it
can read, and that a listening one is handed nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import host
import pytest
import zmq

SOON_S = 3.0
REFUSAL = b"\x03\0\0\0\0\0"


@pytest.fixture
def context() -> Iterator[zmq.Context]:
    context = zmq.Context()
    context.linger = 0
    yield context
    context.destroy()


def test_a_request_is_refused_and_logged_once(context: zmq.Context, capfd: pytest.CaptureFixture[str]) -> None:
    agent = host.agent(host.unique("ctx"))
    for size in (1, 20, 255, 256, 70_000):
        socket = context.socket(zmq.REQ)
        socket.rcvtimeo = int(SOON_S * 1000)
        socket.connect(f"tcp://{agent.get_local_connection_info()}")
        socket.send(b"w" * size)
        assert socket.recv() == REFUSAL
        socket.close()
    assert capfd.readouterr().err.count("a stock UCX connection manager (TensorRT-LLM without Baton") == 1


def test_a_listener_is_named_and_handed_nothing(context: zmq.Context) -> None:
    agent = host.agent(host.unique("gen"))
    socket = context.socket(zmq.REP)
    address = f"127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
    for _ in range(20):
        begun = time.monotonic()
        with pytest.raises(RuntimeError, match="a stock UCX connection manager .* listens there: put the Baton library"):
            agent.load_remote_agent_by_connection("ctx", address)
        assert time.monotonic() - begun < SOON_S
    assert socket.poll(200) == 0, "a stock manager ends its process over a message that it cannot read"
