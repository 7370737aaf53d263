"""A small host: agents, numpy buffers as descriptors, transfers that are waited for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import tensorrt_llm.tensorrt_llm_transfer_agent_binding as binding

DRAM = binding.MemoryType.DRAM
VRAM = binding.MemoryType.VRAM
READ = binding.TransferOp.READ
WRITE = binding.TransferOp.WRITE
SUCCESS = binding.TransferState.SUCCESS
FAILURE = binding.TransferState.FAILURE
IN_PROGRESS = binding.TransferState.IN_PROGRESS

HAS_SERIALIZE = hasattr(binding.AgentDesc, "serialize")
HAS_SHUTDOWN = hasattr(binding.NixlTransferAgent, "shutdown")
HAS_BOUNCE = hasattr(binding.NixlTransferAgent, "bounce_enabled")

_numbers = itertools.count()


def unique(name: str) -> str:
    """A name that no other agent of this process has."""
    return f"{name}-{next(_numbers)}"


def config(name: str) -> binding.BaseAgentConfig:
    """As the Python runtime fills it."""
    return binding.BaseAgentConfig(
        name,
        True,
        multi_thread=False,
        use_listen_thread=False,
        enable_telemetry=False,
        backend_params={"num_threads": "8"},
    )


def agent(name: str) -> binding.NixlTransferAgent:
    """An agent as the Python runtime makes it: by the class."""
    return binding.NixlTransferAgent(config(name))


def descs(*arrays: np.ndarray, kind: binding.MemoryType = DRAM) -> binding.MemoryDescs:
    """One descriptor over each array."""
    return binding.MemoryDescs(kind, [(a.ctypes.data, a.nbytes, 0) for a in arrays])


def pages(pool: np.ndarray, page_bytes: int, order: Iterable[int]) -> binding.MemoryDescs:
    """The pages of a pool in this order, as the Python runtime builds them: from arrays of numbers."""
    addrs = pool.ctypes.data + np.fromiter(order, dtype=np.int64) * page_bytes
    sizes = np.full(addrs.shape, page_bytes, dtype=np.int64)
    return binding.MemoryDescs.from_arrays_uniform_device(DRAM, addrs, sizes, 0)


def pattern(nbytes: int, seed: int) -> np.ndarray:
    """Bytes that differ from place to place and from seed to seed."""
    return np.random.default_rng(seed).integers(0, 256, nbytes, dtype=np.uint8)


def load(local: binding.BaseTransferAgent, name: str, remote: binding.BaseTransferAgent) -> None:
    """Loads a peer by its AgentDesc, through bytes where the host has them."""
    local.load_remote_agent(name, travelled(remote.get_local_agent_desc()))


def travelled(desc: binding.AgentDesc) -> binding.AgentDesc:
    """The desc as the other side gets it, after the way over the host's own wire."""
    if HAS_SERIALIZE:
        return binding.AgentDesc.deserialize(desc.serialize())
    return binding.AgentDesc(desc.backend_agent_desc)


def submit(
    local: binding.BaseTransferAgent,
    op: binding.TransferOp,
    src: binding.MemoryDescs,
    dst: binding.MemoryDescs,
    peer: str,
    message: str | None = None,
) -> binding.TransferStatus:
    """Submits a transfer: `src` is always this side's memory, `dst` the peer's."""
    return local.submit_transfer_requests(binding.TransferRequest(op, src, dst, peer, message))


class Pair:
    """A context agent that has loaded a generation agent, with a registered buffer each."""

    def __init__(self, nbytes: int = 1 << 20) -> None:
        self.ctx_name, self.gen_name = unique("ctx"), unique("gen")
        self.ctx, self.gen = agent(self.ctx_name), agent(self.gen_name)
        self.src, self.dst = pattern(nbytes, seed=1), np.zeros(nbytes, dtype=np.uint8)
        self.ctx.register_memory(descs(self.src))
        self.gen.register_memory(descs(self.dst))
        load(self.ctx, self.gen_name, self.gen)

    def write(self, message: str | None = None) -> binding.TransferStatus:
        """All of the source to all of the destination."""
        return submit(self.ctx, WRITE, descs(self.src), descs(self.dst), self.gen_name, message)
