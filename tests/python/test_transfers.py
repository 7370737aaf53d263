"""Bytes arrive: writes and reads, whole and scattered, from one thread and from several."""

from __future__ import annotations

import threading

import host
import numpy as np
import pytest
from host import Pair


@pytest.mark.parametrize("nbytes", [1, 4095, 1 << 16, 5_000_001, 1 << 25])
def test_a_write_arrives(lane: str, nbytes: int) -> None:
    pair = Pair(nbytes)
    status = pair.write()
    assert status.wait() == host.SUCCESS
    assert status.is_completed()
    assert (pair.dst == pair.src).all()


def test_a_read_brings_the_peers_bytes(pair: Pair) -> None:
    pair.dst[:] = host.pattern(pair.dst.nbytes, seed=9)
    status = host.submit(
        pair.ctx, host.READ, host.descs(pair.src), host.descs(pair.dst), pair.gen_name
    )
    assert status.wait() == host.SUCCESS
    assert (pair.src == pair.dst).all()


def test_pages_arrive_in_their_places_and_gaps_stay(lane: str) -> None:
    page, pages = 3000, 2000
    pair = Pair(page * pages)
    order = np.random.default_rng(5).permutation(pages)
    from_, to = order[: pages // 2], order[::-1][: pages // 2]
    status = host.submit(
        pair.ctx,
        host.WRITE,
        host.pages(pair.src, page, from_),
        host.pages(pair.dst, page, to),
        pair.gen_name,
    )
    assert status.wait() == host.SUCCESS
    expected = np.zeros((pages, page), dtype=np.uint8)
    expected[to] = pair.src.reshape(pages, page)[from_]
    assert (pair.dst.reshape(pages, page) == expected).all()


def test_descriptors_come_from_arrays_tuples_and_objects() -> None:
    binding = host.binding
    addrs, sizes = np.array([4096, 8192]), np.array([10, 20])
    made = (
        binding.MemoryDescs.from_arrays(host.DRAM, addrs, sizes, np.array([0, 1], dtype=np.int32)),
        binding.MemoryDescs(host.DRAM, [(4096, 10, 0), (8192, 20, 1)]),
        binding.MemoryDescs(
            host.DRAM, [binding.MemoryDesc(4096, 10, 0), binding.MemoryDesc(8192, 20, 1)]
        ),
    )
    for descs in made:
        assert descs.type == host.DRAM
        fields = [(desc.addr, desc.len, desc.device_id) for desc in descs.descs]
        assert fields == [(4096, 10, 0), (8192, 20, 1)]


def test_a_message_follows_its_data(pair: Pair) -> None:
    assert pair.write(message="request 7").wait() == host.SUCCESS
    assert pair.gen.get_notified_sync_messages() == {pair.ctx_name: ["request 7"]}
    assert pair.gen.get_notified_sync_messages() == {}


def test_several_threads_share_an_agent(lane: str) -> None:
    workers, piece = 6, 300_000
    pair = Pair(workers * piece)
    failed: list[BaseException] = []

    def work(index: int) -> None:
        try:
            part = slice(index * piece, (index + 1) * piece)
            for _ in range(8):
                src, dst = host.descs(pair.src[part]), host.descs(pair.dst[part])
                status = host.submit(pair.ctx, host.WRITE, src, dst, pair.gen_name)
                assert status.wait() == host.SUCCESS
                pair.ctx.notify_sync_message(pair.gen_name, f"{index}")
        except BaseException as error:  # of a thread, for the test to show
            failed.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (pair.dst == pair.src).all()
    messages = collect(pair, workers * 8)
    assert sorted(messages) == sorted([f"{index}" for index in range(workers)] * 8)


def collect(pair: Pair, count: int) -> list[str]:
    """The next `count` notifications; the test's timeout bounds it."""
    messages: list[str] = []
    while len(messages) < count:
        messages += pair.gen.get_notified_sync_messages().get(pair.ctx_name, [])
    return messages
