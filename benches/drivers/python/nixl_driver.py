"""NIXL through its Python agent, as its own Python users call it.

python nixl_driver.py PARAMETERS: backend parameters of UCX as KEY=VALUE, apart by commas. The environment chooses the
transports (UCX_TLS). Without a progress thread, which burns a core: the target polls instead.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import driver
import numpy as np
from driver import Failed, Pieces, await_answer


class NixlDriver(driver.Driver):
    """One agent with the backend UCX."""

    def __init__(self, parameters: dict[str, str]) -> None:
        self._parameters = parameters
        self._agents: dict[str, Any] = {}
        self._first: Any = None
        self._peer = ""
        self._request: Any = None
        self._sides: list[Any] = []

    def open(self, name: str, address: int, size: int) -> tuple[bytes, int]:
        from nixl_cu12._api import nixl_agent, nixl_agent_config

        logging.disable(logging.INFO)
        agent = nixl_agent(name, nixl_agent_config(enable_prog_thread=False, backends=[], num_threads=0))
        agent.create_backend("UCX", self._parameters)
        register_ns = 0
        if self._first is None:
            self._first = agent
            begin = time.perf_counter_ns()
            agent.register_memory([(address, size, 0, "")], "DRAM")
            register_ns = time.perf_counter_ns() - begin
        self._agents[name] = agent
        return agent.get_agent_metadata(), register_ns

    def meet(self, ours: str, theirs: str, card: bytes) -> None:
        agent = self._agents[ours]
        agent.add_remote_agent(card)
        agent.make_connection(theirs)
        self._peer = self._peer or theirs

    def prepare(self, pieces: Pieces, local: int, remote: int) -> None:
        agent = self._first
        if self._request is not None:
            agent.release_xfer_handle(self._request)
            for side in self._sides:
                agent.release_dlist_handle(side)
            self._request = None
        if not self._peer or agent.name == "target":
            return
        devices = np.zeros(len(pieces), dtype=np.uint64)

        def descriptors(base: int, column: int) -> Any:
            rows = np.stack([pieces[:, column] + np.uint64(base), pieces[:, 2], devices], axis=1)
            return agent.get_xfer_descs(rows, "DRAM")

        self._sides = [
            agent.prep_xfer_dlist("NIXL_INIT_AGENT", descriptors(local, 0), "DRAM"),
            agent.prep_xfer_dlist(self._peer, descriptors(remote, 1), "DRAM"),
        ]
        index = np.arange(len(pieces), dtype=np.int32)
        self._request = agent.make_prepped_xfer("WRITE", self._sides[0], index, self._sides[1], index, b"")

    def post(self) -> None:
        self._expect(self._first.transfer(self._request))

    def wait(self) -> None:
        while self._expect(self._first.check_xfer_state(self._request)):
            pass

    def ping(self) -> None:
        if self._expect(self._first.transfer(self._request, b"?")):
            self.wait()
        await_answer(self._peer, self._first.get_new_notifs)

    def note(self) -> None:
        self._first.send_notif(self._peer, b"?")
        await_answer(self._peer, self._first.get_new_notifs)

    def serve(self) -> None:
        for peer, messages in self._first.get_new_notifs().items():
            for _ in messages:
                self._first.send_notif(peer, b"!")

    @staticmethod
    def _expect(state: str) -> bool:
        """Whether it is still under way."""
        if state == "ERR":
            raise Failed("the transfer failed")
        return bool(state != "DONE")


if __name__ == "__main__":
    pairs = [pair.split("=", 1) for pair in "".join(sys.argv[1:]).split(",") if pair]
    driver.main(NixlDriver({key: value for key, value in pairs}))
