"""Mooncake's transfer engine over TCP, through its Python module; metadata goes from peer to peer."""

from __future__ import annotations

import os
import time
from typing import Any

import driver
from driver import Failed, Pieces

# With 16,384 in one batch 0.3.13 fails, and bytes of the failed transfer land later.
_BATCH = 1024
_ADDRESS = os.environ.get("BENCH_ADDRESS", "127.0.0.1")


class MooncakeDriver(driver.Driver):
    """One engine."""

    def __init__(self) -> None:
        self._engine: Any = None
        self._peer = ""
        self._lists: tuple[list[int], list[int], list[int]] = ([], [], [])

    def open(self, name: str, address: int, size: int) -> tuple[bytes, int]:
        from mooncake.engine import TransferEngine

        if self._engine is not None:
            raise Failed("one engine a process")
        self._engine = TransferEngine()
        if self._engine.initialize(_ADDRESS, "P2PHANDSHAKE", "tcp", "") != 0:
            raise Failed("the engine does not initialise")
        begin = time.perf_counter_ns()
        if self._engine.register_memory(address, size) != 0:
            raise Failed("the engine does not register the buffer")
        register_ns = time.perf_counter_ns() - begin
        return f"{_ADDRESS}:{self._engine.get_rpc_port()}".encode(), register_ns

    def meet(self, ours: str, theirs: str, card: bytes) -> None:
        self._peer = card.decode()

    def prepare(self, pieces: Pieces, local: int, remote: int) -> None:
        sources, destinations, sizes = (pieces[:, column].tolist() for column in range(3))
        self._lists = ([local + at for at in sources], [remote + at for at in destinations], sizes)

    def post(self) -> None:
        sources, destinations, sizes = self._lists
        if len(sizes) == 1:
            self._expect(self._engine.transfer_sync_write(self._peer, sources[0], destinations[0], sizes[0]))
            return
        for at in range(0, len(sizes), _BATCH):
            part = slice(at, at + _BATCH)
            status = self._engine.batch_transfer_sync_write(self._peer, sources[part], destinations[part], sizes[part])
            self._expect(status)

    def wait(self) -> None:
        """A post blocks until all is there."""

    @staticmethod
    def _expect(status: int) -> None:
        if status != 0:
            raise Failed(f"the transfer failed with {status}")


if __name__ == "__main__":
    os.environ.setdefault("MC_LOG_LEVEL", "ERROR")
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ["MC_TCP_BIND_ADDRESS"] = _ADDRESS
    driver.main(MooncakeDriver())
