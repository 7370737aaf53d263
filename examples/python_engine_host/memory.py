"""Memory of an engine rank: the block pool of its KV cache, in DRAM or on a GPU, and the slots of its AUX buffer.

The AUX buffer is DRAM, as a serving engine has it. The CPU sees all of it as numpy arrays; of what lies on a GPU it sees
copies. Handing out is done by one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cuda_driver import Allocation, CudaError, Placement
from failure import Failure, Kind
from geometry import WORD_BYTES
from pattern import Words

AUX_SLOT_BYTES = 512
AUX_SLOTS = 256


@dataclass(frozen=True)
class Place:
    """What the library is told of where memory lies."""

    is_vram: bool = False
    device: int = 0


DRAM = Place()


class _Blocks(Protocol):
    """Equal blocks, side by side."""

    place: Place
    address: int
    length_bytes: int

    def load(self, block_id: int) -> Words:
        """The words of a block: themselves, or a copy."""

    def store(self, block_id: int, words: Words) -> None:
        """Makes what load() has returned, changed, the block's words."""

    def free(self) -> None:
        """Gives the memory back."""


class _HostBlocks:
    """Blocks in DRAM. All pages are there from the start, so that no transfer pays for page faults."""

    place = DRAM

    def __init__(self, blocks: int, block_bytes: int, between: Callable[[], None]) -> None:
        self._words: Words = np.empty((blocks, block_bytes // WORD_BYTES), dtype=np.uint64)
        for block in self._words:
            between()
            block.fill(0)
        self.address = _address(self._words)
        self.length_bytes = self._words.nbytes

    def load(self, block_id: int) -> Words:
        words: Words = self._words[block_id]
        return words

    def store(self, block_id: int, words: Words) -> None:
        pass  # they are the block's own

    def free(self) -> None:
        pass  # with the array


class _DeviceBlocks:
    """Blocks on a GPU."""

    def __init__(self, blocks: int, block_bytes: int, placement: Placement) -> None:
        self.place = Place(True, placement.device)
        self._block_bytes = block_bytes
        try:
            self._allocation = Allocation(blocks * block_bytes, placement)
            self._allocation.set(0, 0, blocks * block_bytes)
        except CudaError as error:
            raise Failure(Kind.DEVICE, str(error)) from error
        self.address = self._allocation.address
        self.length_bytes = self._allocation.length_bytes

    def load(self, block_id: int) -> Words:
        words = np.empty(self._block_bytes // WORD_BYTES, dtype=np.uint64)
        try:
            self._allocation.read(block_id * self._block_bytes, _address(words), self._block_bytes)
        except CudaError as error:
            raise Failure(Kind.DEVICE, str(error)) from error
        return words

    def store(self, block_id: int, words: Words) -> None:
        try:
            self._allocation.write(block_id * self._block_bytes, _address(words), self._block_bytes)
        except CudaError as error:
            raise Failure(Kind.DEVICE, str(error)) from error

    def free(self) -> None:
        self._allocation.free()


class BlockPool:
    """A pool of equal blocks, handed out in a shuffled order, as a cache looks after hours of serving."""

    def __init__(
        self,
        blocks: int,
        block_bytes: int,
        seed: int,
        between: Callable[[], None] = lambda: None,
        vram: Placement | None = None,
    ) -> None:
        """In DRAM unless `vram` says where else. `between` is called again and again, as this may take seconds; what it
        raises ends it. Raises Failure(DEVICE)."""
        self._blocks: _Blocks = (
            _HostBlocks(blocks, block_bytes, between) if vram is None else _DeviceBlocks(blocks, block_bytes, vram)
        )
        self._free = deque(np.random.default_rng(seed).permutation(blocks).tolist())
        self.block_count = blocks

    @property
    def place(self) -> Place:
        return self._blocks.place

    @property
    def address(self) -> int:
        return self._blocks.address

    @property
    def length_bytes(self) -> int:
        return self._blocks.length_bytes

    def block(self, block_id: int) -> Words:
        """The words of one block, to read."""
        return self._blocks.load(block_id)

    @contextmanager
    def changed(self, block_id: int) -> Iterator[Words]:
        """The words of one block, to read and write until the end of the `with`."""
        words = self._blocks.load(block_id)
        yield words
        self._blocks.store(block_id, words)

    def close(self) -> None:
        """Gives the memory back; nobody may use it any more."""
        self._blocks.free()

    def allocate(self, count: int) -> npt.NDArray[np.int64]:
        """The ids of blocks nobody has. Raises Failure(USAGE) when fewer are free."""
        if count > len(self._free):
            raise Failure(
                Kind.USAGE,
                f"the request needs {count} blocks, {len(self._free)} of {self.block_count} are free",
            )
        return np.array([self._free.popleft() for _ in range(count)], dtype=np.int64)

    def release(self, blocks: Sequence[int] | npt.NDArray[np.int64]) -> None:
        """Takes blocks back, to be handed out last: every block gets its turn."""
        self._free.extend(int(block) for block in blocks)


class AuxBuffer:
    """Small slots beside the pool, one per request under way."""

    def __init__(self) -> None:
        self._words: Words = np.zeros((AUX_SLOTS, AUX_SLOT_BYTES // WORD_BYTES), dtype=np.uint64)
        self._free = deque(range(AUX_SLOTS))

    @property
    def address(self) -> int:
        return _address(self._words)

    @property
    def length_bytes(self) -> int:
        return self._words.nbytes

    def slot(self, index: int) -> Words:
        """The words of one slot, to read or write."""
        words: Words = self._words[index]
        return words

    def allocate(self) -> int:
        """A slot nobody has. Raises Failure(USAGE) when all are taken."""
        if not self._free:
            raise Failure(Kind.USAGE, f"all {AUX_SLOTS} AUX slots are taken: that many requests are under way")
        return self._free.popleft()

    def release(self, index: int) -> None:
        self._free.append(index)


def slot_address(buffer_address: int, index: int) -> int:
    """Where a slot lies in an AUX buffer, ours or a peer's."""
    return buffer_address + index * AUX_SLOT_BYTES


def _address(words: Words) -> int:
    return int(words.__array_interface__["data"][0])
