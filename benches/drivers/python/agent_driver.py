"""Baton through seam S2: the Python binding of TensorRT-LLM's shape, called as its Python runtime calls it."""

from __future__ import annotations

import importlib
import time
from typing import Any

import driver
import numpy as np
from driver import Failed, Pieces, await_answer

_BINDING = "tensorrt_llm.tensorrt_llm_transfer_agent_binding"
_QUESTION, _ANSWER = "?", "!"


class AgentDriver(driver.Driver):
    """Agents of the binding. The descriptor lists are made anew for each move, as the runtime makes them."""

    def __init__(self) -> None:
        self._agents: dict[str, Any] = {}
        self._first: Any = None
        self._peer = ""
        self._status: Any = None
        self._arrays: tuple[Any, Any, Any] = (None, None, None)

    def open(self, name: str, address: int, size: int) -> tuple[bytes, int]:
        self._binding = importlib.import_module(_BINDING)
        agent = self._binding.NixlTransferAgent(
            self._binding.BaseAgentConfig(
                name=name,
                use_prog_thread=True,
                multi_thread=False,
                use_listen_thread=False,
                enable_telemetry=False,
                backend_params={},
            )
        )
        register_ns = 0
        if self._first is None:
            self._first = agent
            begin = time.perf_counter_ns()
            agent.register_memory(self._binding.MemoryDescs(self._binding.MemoryType.DRAM, [(address, size, 0)]))
            register_ns = time.perf_counter_ns() - begin
        self._agents[name] = agent
        return bytes(agent.get_local_agent_desc().backend_agent_desc), register_ns

    def meet(self, ours: str, theirs: str, card: bytes) -> None:
        self._agents[ours].load_remote_agent(theirs, self._binding.AgentDesc(card))
        self._peer = self._peer or theirs

    def prepare(self, pieces: Pieces, local: int, remote: int) -> None:
        columns = pieces.astype(np.int64)
        self._arrays = (columns[:, 0] + local, columns[:, 1] + remote, np.ascontiguousarray(columns[:, 2]))

    def post(self) -> None:
        self._status = self._submit(None)

    def wait(self) -> None:
        self._expect(self._status)
        self._status = None

    def ping(self) -> None:
        status = self._submit(_QUESTION)
        await_answer(self._peer, self._first.get_notified_sync_messages)
        self._expect(status)

    def note(self) -> None:
        self._first.notify_sync_message(self._peer, _QUESTION)
        await_answer(self._peer, self._first.get_notified_sync_messages)

    def serve(self) -> None:
        for peer, messages in self._first.get_notified_sync_messages().items():
            for message in messages:
                if message in (_QUESTION, _QUESTION.encode()):
                    self._first.notify_sync_message(peer, _ANSWER)

    def _submit(self, message: str | None) -> Any:
        sources, destinations, sizes = self._arrays
        dram = self._binding.MemoryType.DRAM
        lists = self._binding.MemoryDescs.from_arrays_uniform_device
        request = self._binding.TransferRequest(
            self._binding.TransferOp.WRITE,
            lists(dram, sources, sizes, 0),
            lists(dram, destinations, sizes, 0),
            self._peer,
            message,
        )
        return self._first.submit_transfer_requests(request)

    def _expect(self, status: Any) -> None:
        if status.wait(-1) != self._binding.TransferState.SUCCESS:
            raise Failed(status.get_last_status_str())


if __name__ == "__main__":
    driver.main(AgentDriver())
