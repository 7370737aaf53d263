"""The transfer agent behind TensorRT-LLM's Python binding, called in the order and manner of its Python runtime.

The only module that knows the binding. What the library throws becomes a Failure with the library's words. Works
with bindings of several ages: what an older one lacks is asked for by name first.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from failure import Failure, Kind
from mapper import Copies
from memory import Place

_MODULE = "tensorrt_llm.tensorrt_llm_transfer_agent_binding"

Result = TypeVar("Result")


class State(Enum):
    """Where a transfer stands."""

    IN_PROGRESS = 0
    SUCCESS = 1
    FAILURE = 2


@dataclass(frozen=True)
class Region:
    """Memory that is opened to peers."""

    place: Place
    address: int
    length_bytes: int


class Transfer:
    """A write under way."""

    def __init__(self, status: Any, binding: Any) -> None:
        self._status = status
        self._binding = binding

    def wait(self, timeout_ms: int) -> State:
        """Where it stands when it ends, or after that time. Other threads run meanwhile."""
        state = self._status.wait(timeout_ms)
        if state == self._binding.TransferState.SUCCESS:
            return State.SUCCESS
        return State.IN_PROGRESS if state == self._binding.TransferState.IN_PROGRESS else State.FAILURE

    @property
    def text(self) -> str:
        """The library's words on how it ended; empty where the binding has none."""
        last_words = getattr(self._status, "get_last_status_str", None)
        return "" if last_words is None else str(last_words())

    def cancel(self) -> None:
        """Ends it; nothing is written afterwards where the binding can cancel."""
        release = getattr(self._status, "release", None)
        if release is not None:
            release()


class Agent:
    """This rank's NixlTransferAgent. Any thread may call it."""

    def __init__(self, name: str) -> None:
        """Raises Failure(LIBRARY) where the binding cannot be imported or the library refuses to serve."""
        self.name = name
        self._binding = _import_binding()
        threads = os.environ.get("TRTLLM_NIXL_NUM_THREADS", "8")
        self._agent = _guarded(
            Kind.LIBRARY,
            "NixlTransferAgent",
            "",
            lambda: self._binding.NixlTransferAgent(
                self._binding.BaseAgentConfig(
                    name=name,
                    use_prog_thread=True,
                    multi_thread=False,
                    use_listen_thread=False,
                    enable_telemetry=False,
                    backend_params={"num_threads": threads},
                )
            ),
        )

    def register(self, regions: Sequence[Region]) -> None:
        """Opens regions to peers."""
        for region in regions:
            descs = self._descs(region)
            _guarded(Kind.LIBRARY, "register_memory", "", lambda descs=descs: self._agent.register_memory(descs))

    def descriptor(self) -> bytes:
        """What a peer needs to write here: the serialised AgentDesc."""
        desc = _guarded(Kind.LIBRARY, "get_local_agent_desc", "", self._agent.get_local_agent_desc)
        return bytes(desc.serialize() if hasattr(desc, "serialize") else desc.backend_agent_desc)

    def load(self, peer: str, descriptor: bytes) -> None:
        """Makes a peer one that can be written to. Raises Failure(PEER_LOST) with the library's reason."""

        def call() -> None:
            kind = self._binding.AgentDesc
            desc = kind.deserialize(descriptor) if hasattr(kind, "deserialize") else kind(descriptor)
            self._agent.load_remote_agent(peer, desc)

        _guarded(Kind.PEER_LOST, f"load_remote_agent {peer}", peer, call)

    def forget(self, peer: str) -> None:
        """Ends what load() began."""
        _guarded(
            Kind.LIBRARY, f"invalidate_remote_agent {peer}", peer, lambda: self._agent.invalidate_remote_agent(peer)
        )

    def write(self, peer: str, copies: Copies, ours: Place, theirs: Place) -> Transfer:
        """Submits a WRITE without a message. Raises Failure(TRANSFER_FAILED) where it is refused."""

        def call() -> Any:
            lists = self._binding.MemoryDescs.from_arrays_uniform_device
            request = self._binding.TransferRequest(
                self._binding.TransferOp.WRITE,
                lists(self._kind(ours), copies.sources, copies.sizes, ours.device),
                lists(self._kind(theirs), copies.destinations, copies.sizes, theirs.device),
                peer,
                None,
            )
            return self._agent.submit_transfer_requests(request)

        status = _guarded(Kind.TRANSFER_FAILED, f"submit_transfer_requests to {peer}", peer, call)
        return Transfer(status, self._binding)

    def close(self, regions: Sequence[Region]) -> None:
        """Closes the regions and shuts the agent down; it may not be used afterwards. Does not raise."""
        try:
            for region in regions:
                self._agent.deregister_memory(self._descs(region))
            if hasattr(self._agent, "shutdown"):
                self._agent.shutdown()
        except RuntimeError:
            pass  # the library has logged it, and this rank ends
        self._agent = None

    def _descs(self, region: Region) -> Any:
        tuples = [(region.address, region.length_bytes, region.place.device)]
        return self._binding.MemoryDescs(self._kind(region.place), tuples)

    def _kind(self, place: Place) -> Any:
        kinds = self._binding.MemoryType
        return kinds.VRAM if place.is_vram else kinds.DRAM


def _import_binding() -> Any:
    # The age of this host is that of its binding, whatever the environment says for others; the library finds it by
    # the package's version file.
    os.environ.pop("BATON_TRTLLM_ABI", None)
    try:
        return importlib.import_module(_MODULE)
    except ImportError as error:
        raise Failure(
            Kind.LIBRARY,
            f"{_MODULE} cannot be imported: {error}; PYTHONPATH must name the folder that holds tensorrt_llm "
            "(build/python/plain-open of a build with Python)",
        ) from error


def _guarded(kind: Kind, what: str, peer: str, call: Callable[[], Result]) -> Result:
    """Runs a call into the library; its exception becomes a failure of this kind, about this peer."""
    try:
        return call()
    except (RuntimeError, ValueError, TypeError) as error:
        raise Failure(kind, f"{what}: {error}", peer) from error
