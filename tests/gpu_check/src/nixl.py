"""One side of a move by NIXL in GPU memory: orders by standard input, answers by standard output, a line of JSON each."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
import time
from typing import Any

import numpy as np

# What libraries print, at their import too, goes to the log, not among the answers.
ANSWERS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

try:
    from nixl_cu12._api import nixl_agent, nixl_agent_config
except ImportError:
    try:
        from nixl_cu13._api import nixl_agent, nixl_agent_config
    except ImportError:
        from nixl._api import nixl_agent, nixl_agent_config

CUDA = ctypes.CDLL("libcuda.so.1")


def call(name: str, *arguments: Any) -> None:
    code = getattr(CUDA, name)(*arguments)
    if code != 0:
        raise RuntimeError(f"{name}: error {code}")


def u64(value: int) -> ctypes.c_uint64:
    return ctypes.c_uint64(value)


class Side:
    """An agent with one buffer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = 0
        call("cuInit", 0)
        context = ctypes.c_void_p()
        call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        call("cuCtxSetCurrent", context)
        self.agent = nixl_agent(name, nixl_agent_config(backends=["UCX"]))

    def open(self, order: dict[str, Any]) -> dict[str, Any]:
        address = ctypes.c_uint64()
        call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(order["bytes"]))
        self.address = address.value
        call("cuMemsetD8_v2", u64(self.address), ctypes.c_ubyte(order["value"]), ctypes.c_size_t(order["bytes"]))
        call("cuCtxSynchronize")
        self.agent.register_memory([(self.address, order["bytes"], 0, "")], "VRAM")
        card = base64.b64encode(self.agent.get_agent_metadata()).decode()
        return {"card": card, "address": self.address}

    def measure(self, order: dict[str, Any]) -> dict[str, Any]:
        peer = self.agent.add_remote_agent(base64.b64decode(order["card"]))
        peer = peer.decode() if isinstance(peer, bytes) else peer
        pieces = np.fromfile(order["list"], dtype=np.uint64).reshape(-1, 3)
        devices = np.zeros(len(pieces), dtype=np.uint64)

        def descriptors(base: int, column: int) -> Any:
            rows = np.stack([pieces[:, column] + np.uint64(base), pieces[:, 2], devices], axis=1)
            return self.agent.get_xfer_descs(rows, "VRAM")

        ours = self.agent.prep_xfer_dlist("NIXL_INIT_AGENT", descriptors(self.address, 0), "VRAM")
        theirs = self.agent.prep_xfer_dlist(peer, descriptors(order["address"], 1), "VRAM")
        index = np.arange(len(pieces), dtype=np.int32)
        request = self.agent.make_prepped_xfer("WRITE", ours, index, theirs, index, b"")
        times: list[float] = []
        self.move(request)  # connects
        end = time.perf_counter() + order["seconds"]
        while not times or time.perf_counter() < end and len(times) < 400:
            begin = time.perf_counter_ns()
            self.move(request)
            times.append((time.perf_counter_ns() - begin) / 1000)
        return {"us": times}

    def move(self, request: Any) -> None:
        state = self.agent.transfer(request)
        while state not in ("DONE", "ERR"):
            state = self.agent.check_xfer_state(request)
        if state == "ERR":
            raise RuntimeError("the transfer failed")

    def check(self, order: dict[str, Any]) -> dict[str, Any]:
        pieces = np.fromfile(order["list"], dtype=np.uint64).reshape(-1, 3)
        wrong = 0
        for row in (pieces[0], pieces[len(pieces) // 2], pieces[-1]):
            found = np.zeros(int(row[2]), dtype=np.uint8)
            to, length = found.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(len(found))
            call("cuMemcpyDtoH_v2", to, u64(self.address + int(row[1])), length)
            wrong += int((found != order["value"]).sum())
        return {"wrong": wrong}


def main() -> None:
    side = Side(sys.argv[1])
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = getattr(side, order["do"])(order)
        except Exception as error:  # whatever it is, the other side is to hear of it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=ANSWERS, flush=True)


main()
