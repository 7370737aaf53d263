"""Memory of an engine rank, as numpy arrays: the block pool of its KV cache, and the slots of its AUX buffer.

Both are DRAM here; the first stands for what is VRAM in a serving engine. Handing out is done by one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from failure import Failure, Kind
from geometry import WORD_BYTES
from pattern import Words

AUX_SLOT_BYTES = 512
AUX_SLOTS = 256


class BlockPool:
    """A pool of equal blocks, handed out in a shuffled order, as a cache looks after hours of serving.

    All pages are there from the start, so that no transfer pays for page faults.
    """

    def __init__(self, blocks: int, block_bytes: int, seed: int, between: Callable[[], None] = lambda: None) -> None:
        """`between` is called again and again, as this may take seconds; what it raises ends it."""
        self._words: Words = np.empty((blocks, block_bytes // WORD_BYTES), dtype=np.uint64)
        for block in self._words:
            between()
            block.fill(0)
        self._free = deque(np.random.default_rng(seed).permutation(blocks).tolist())
        self.block_count = blocks

    @property
    def address(self) -> int:
        return _address(self._words)

    @property
    def length_bytes(self) -> int:
        return self._words.nbytes

    def block(self, block_id: int) -> Words:
        """The words of one block, to read or write."""
        words: Words = self._words[block_id]
        return words

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
