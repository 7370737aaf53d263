"""Peers: found by desc and by address, forgotten, checked, heard from; another process, stopped and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import host
import numpy as np
import pytest
from host import Pair

PEER = """
import sys
import numpy as np, host
name, nbytes = sys.argv[1], int(sys.argv[2])
agent, pool = host.agent(name), np.zeros(nbytes, dtype=np.uint8)
agent.register_memory(host.descs(pool))
print(agent.get_local_connection_info(), pool.ctypes.data, flush=True)
for line in sys.stdin:
    print(int(pool.astype(np.uint64).sum()), flush=True)
"""


class Peer:
    """A generation agent in a process of its own."""

    def __init__(self, nbytes: int) -> None:
        self.name, self.nbytes = host.unique("far"), nbytes
        self.process = subprocess.Popen(
            [sys.executable, "-c", PEER, self.name, str(nbytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=os.path.dirname(__file__),
        )
        self.address, pool = self.process.stdout.readline().split()
        self.pool = int(pool)

    def descs(self) -> host.binding.MemoryDescs:
        return host.binding.MemoryDescs(host.DRAM, [(self.pool, self.nbytes, 0)])

    def checksum(self) -> int:
        """Sum of the pool's bytes, as the peer sees them."""
        self.process.stdin.write("sum\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def stop(self) -> None:
        """Returns when it has stopped."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def peer(lane: str) -> Iterator[Peer]:
    peer = Peer(1 << 22)
    yield peer
    peer.end()


def test_a_peer_is_loaded_by_its_address(lane: str) -> None:
    pair = Pair()
    by_address = host.agent(host.unique("ctx"))
    by_address.register_memory(host.descs(pair.src))
    by_address.load_remote_agent_by_connection(
        pair.gen_name, pair.gen.get_local_connection_info()
    )
    status = host.submit(
        by_address, host.WRITE, host.descs(pair.src), host.descs(pair.dst), pair.gen_name
    )
    assert status.wait() == host.SUCCESS
    assert (pair.dst == pair.src).all()


@pytest.mark.skipif(not host.HAS_SERIALIZE, reason="hosts before P3 pass the blob itself")
def test_a_desc_keeps_its_bytes_on_the_way(lane: str) -> None:
    agent = host.agent(host.unique("gen"))
    desc = agent.get_local_agent_desc()
    again = host.travelled(desc)
    assert again.backend_agent_desc == desc.backend_agent_desc
    assert again.serialize() == desc.serialize()


def test_the_peers_regions_are_known(pair: Pair) -> None:
    assert pair.ctx.check_remote_descs(pair.gen_name, host.descs(pair.dst))
    assert not pair.ctx.check_remote_descs(pair.gen_name, host.descs(np.zeros(64, np.uint8)))
    assert not pair.ctx.check_remote_descs("nobody", host.descs(pair.dst))


def test_notifications_come_once_and_in_order(pair: Pair) -> None:
    sent = [f"message {number}" for number in range(200)]
    for text in sent:
        pair.ctx.notify_sync_message(pair.gen_name, text)
    heard: list[str] = []
    while len(heard) < len(sent):
        heard += pair.gen.get_notified_sync_messages().get(pair.ctx_name, [])
    assert heard == sent


def test_the_hosts_first_contact_invalidates_and_loads(pair: Pair) -> None:
    pair.gen.load_remote_agent_by_connection(
        pair.ctx_name, pair.ctx.get_local_connection_info()
    )
    pair.ctx.invalidate_remote_agent(pair.gen_name)
    with pytest.raises(RuntimeError, match="is not loaded: call loadRemoteAgent first"):
        pair.write()
    host.load(pair.ctx, pair.gen_name, pair.gen)
    assert pair.write().wait() == host.SUCCESS
    pair.ctx.invalidate_remote_agent("nobody")


def test_another_process_gets_the_bytes(peer: Peer) -> None:
    ctx, src = host.agent(host.unique("ctx")), host.pattern(peer.nbytes, seed=11)
    ctx.register_memory(host.descs(src))
    ctx.load_remote_agent_by_connection(peer.name, peer.address)
    status = host.submit(ctx, host.WRITE, host.descs(src), peer.descs(), peer.name)
    assert status.wait() == host.SUCCESS
    assert peer.checksum() == int(src.astype(np.uint64).sum())


def test_a_wait_lets_other_threads_run(peer: Peer) -> None:
    """The peer is stopped: only another Python thread, running during the wait, can let it go on."""
    ctx, src = host.agent(host.unique("ctx")), host.pattern(peer.nbytes, seed=12)
    ctx.register_memory(host.descs(src))
    ctx.load_remote_agent_by_connection(peer.name, peer.address)
    peer.stop()
    status = host.submit(ctx, host.WRITE, host.descs(src), peer.descs(), peer.name)
    assert status.wait(timeout_ms=20) == host.IN_PROGRESS
    assert not status.is_completed()
    ends: list[host.binding.TransferState] = []
    waiter = threading.Thread(target=lambda: ends.append(status.wait()))
    waiter.start()
    peer.process.send_signal(signal.SIGCONT)
    waiter.join()
    assert ends == [host.SUCCESS]
    assert peer.checksum() == int(src.astype(np.uint64).sum())


def test_a_killed_peer_fails_the_transfer(peer: Peer) -> None:
    ctx, src = host.agent(host.unique("ctx")), host.pattern(peer.nbytes, seed=13)
    ctx.register_memory(host.descs(src))
    ctx.load_remote_agent_by_connection(peer.name, peer.address)
    peer.stop()
    status = host.submit(ctx, host.WRITE, host.descs(src), peer.descs(), peer.name)
    peer.process.kill()
    assert status.wait() == host.FAILURE
    assert status.is_completed()
    if hasattr(status, "get_last_status"):
        remote_disconnect = -10
        assert status.get_last_status() == remote_disconnect
        assert f"peer '{peer.name}'" in status.get_last_status_str()
        assert "peer lost" in status.get_last_status_str()
