"""Memory of one side: pieces that hold a pattern, and bytes around them that nobody may touch."""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# Behind everything else: both folders have modules of the same names.
sys.path.append(str(Path(__file__).parents[3] / "examples" / "python_engine_host"))
from cuda_driver import Allocation, Placement  # noqa: E402

MARGIN = 4096
BACKGROUND = 0xEE
WORD = 8
#: Words of the pattern that are made at a time, so that half a gibibyte does not take several.
STRIDE = 1 << 21

Spans = np.ndarray  # rows of (address, length)


@dataclass(frozen=True)
class Layout:
    """How a scenario's bytes are cut and placed. Both sides compute the same pieces from it."""

    nbytes: int
    descriptors: int
    shape: str  # dense, gaps, reversed (the destination lies in reverse), uneven (odd lengths and gaps)

    def lengths(self) -> np.ndarray:
        """Lengths of the pieces. Uneven ones come in pairs: what one has less the other has more."""
        count = self.descriptors
        lengths = np.full(count, self.nbytes // count, dtype=np.int64)
        if self.shape == "uneven":
            first = np.arange(0, count - 1, 2)
            moved = lengths[first] * (first % 11) // 12
            lengths[first] -= moved
            lengths[first + 1] += moved
        lengths[-1] += self.nbytes % count
        return lengths

    def gaps(self) -> np.ndarray:
        """Bytes between a piece and the next, by place."""
        places = np.arange(self.descriptors, dtype=np.int64)
        return {"dense": places * 0, "uneven": 1 + places % 13}.get(self.shape, places * 0 + 64)

    def pieces(self, base: int, is_destination: bool) -> Spans:
        """The pieces in memory that starts at `base`, in the order in which they are paired."""
        lengths = self.lengths()
        order = np.arange(self.descriptors)
        if self.shape == "reversed" and is_destination:
            order = order[::-1]
        placed = lengths[order]
        starts = base + np.concatenate([[0], np.cumsum(placed + self.gaps())[:-1]])
        pieces = np.empty((self.descriptors, 2), dtype=np.int64)
        pieces[order, 0], pieces[order, 1] = starts, placed
        return pieces

    def extent(self) -> int:
        """Bytes from the first piece's begin to the last one's end, gaps included."""
        return max(self.nbytes + int(self.gaps().sum()), WORD)


#: What a scenario may give a side, and how it is made; DRAM is not made by the driver.
STORES: dict[str, Placement | None] = {
    "dram": None,
    "vram": Placement(),
    "vmm": Placement(chunk_bytes=2 << 20),
    "vmm-private": Placement(chunk_bytes=2 << 20, chunks_shareable=False),
}


class Memory:
    """Memory that holds a layout's pieces, with a margin before and behind. Background at first.

    What lies on a GPU is looked at and changed in a copy here.
    """

    def __init__(self, layout: Layout, is_destination: bool, store: str = "dram") -> None:
        self.layout, self._is_destination = layout, is_destination
        self._mapping = mmap.mmap(-1, layout.extent() + 2 * MARGIN)
        self.bytes = np.frombuffer(self._mapping, dtype=np.uint8)
        placement = STORES[store]
        self._device = Allocation(self.bytes.nbytes, placement) if placement is not None else None
        address = self._device.address if self._device is not None else self.bytes.ctypes.data
        self.base = address + MARGIN
        self.clear()

    @property
    def is_vram(self) -> bool:
        """Whether it lies on a GPU."""
        return self._device is not None

    def __del__(self) -> None:
        if getattr(self, "_device", None) is not None:
            self._device.free()

    def _pull(self) -> None:
        if self._device is not None:
            self._device.read(0, self.bytes.ctypes.data, self.bytes.nbytes)

    def _push(self) -> None:
        if self._device is not None:
            self._device.write(0, self.bytes.ctypes.data, self.bytes.nbytes)

    def pieces(self) -> Spans:
        """The pieces, in the order in which they are paired."""
        return self.layout.pieces(self.base, self._is_destination)

    def regions(self, each: bool) -> Spans:
        """What is registered: each piece, or all of them with the gaps; the margins are outside."""
        return self.pieces() if each else np.array([[self.base, self.layout.extent()]], dtype=np.int64)

    def clear(self) -> None:
        """Makes everything background."""
        self.bytes[:] = BACKGROUND
        self._push()

    def fill(self, seed: int) -> None:
        """Gives the pieces the pattern of `seed`, and all else background."""
        self.bytes[:] = self._image(seed)
        self._push()

    def faults(self, seed: int) -> str:
        """What is wrong if it should be as after fill(seed): empty, or how much and where first."""
        self._pull()
        wrong = np.flatnonzero(self.bytes != self._image(seed))
        return "" if wrong.size == 0 else f"{wrong.size} bytes differ, the first at offset {wrong[0] - MARGIN}"

    def traces(self) -> str:
        """Whether it is background everywhere: empty, or what is not."""
        self._pull()
        written = np.flatnonzero(self.bytes != BACKGROUND)
        return "" if written.size == 0 else f"something was written, at offset {written[0] - MARGIN}"

    def words_of(self, seed: int) -> int:
        """How many whole words of the pieces hold the pattern of `seed` at their place."""
        self._pull()
        wanted = pattern(self.layout.nbytes, seed)
        found = position = 0
        for at, length in self._offsets():
            head = -position % WORD
            count = max(length - head, 0) // WORD
            here = slice(at + head, at + head + count * WORD)
            there = slice(position + head, position + head + count * WORD)
            found += int((self.bytes[here].view(np.uint64) == wanted[there].view(np.uint64)).sum())
            position += length
        return found

    def _offsets(self) -> list[list[int]]:
        pieces = self.pieces()
        pieces[:, 0] -= self.base - MARGIN
        return pieces.tolist()

    def _image(self, seed: int) -> np.ndarray:
        image = np.full(self.bytes.shape, BACKGROUND, dtype=np.uint8)
        wanted = pattern(self.layout.nbytes, seed)
        position = 0
        for at, length in self._offsets():
            image[at : at + length] = wanted[position : position + length]
            position += length
        return image


def pattern(nbytes: int, seed: int) -> np.ndarray:
    """Bytes that differ from place to place and from seed to seed."""
    words = np.empty(nbytes // WORD + 1, dtype=np.uint64)
    offset = np.uint64(seed * 0xD1B54A32D192ED03 % (1 << 64))
    for begin in range(0, words.size, STRIDE):
        part = words[begin : begin + STRIDE]
        part[:] = np.arange(begin + 1, begin + 1 + part.size, dtype=np.uint64)
        part *= np.uint64(0x9E3779B97F4A7C15)
        part += offset
        part ^= part >> np.uint64(29)
    return words.view(np.uint8)[:nbytes]
