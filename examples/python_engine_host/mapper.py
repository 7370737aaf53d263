"""The lists of a paged write: which bytes of our pool go where in the peer's, as int64 arrays.

The mappers of TensorRT-LLM's Python runtime, in one formula: an identity (both ranks lay out a block alike) is one
descriptor per block, a head mismatch one per block, layer and K/V. Merging what is adjacent is the agent's business.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geometry import Geometry, Piece
from memory import DRAM, Place

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Copies:
    """Equally long lists: `sizes[i]` bytes from `sources[i]` to `destinations[i]`."""

    sources: Int64s
    destinations: Int64s
    sizes: Int64s

    @property
    def length_bytes(self) -> int:
        return int(self.sizes.sum())

    @property
    def descriptors(self) -> int:
        return int(self.sizes.size)


@dataclass(frozen=True)
class PagedSide:
    """One rank's end of a piece: where its pool begins, the request's blocks in it, and what memory that is."""

    pool_address: int
    blocks: Int64s
    place: Place = DRAM


def map_piece(geometry: Geometry, piece: Piece, ours: PagedSide, theirs: PagedSide) -> Copies:
    """The copies that carry a piece; both sides must have the same number of blocks."""
    whole = geometry.same_layout(piece)
    held = geometry.context_heads(piece.context_rank)
    wanted = geometry.generation_heads(piece.generation_rank)
    source = geometry.runs(held, piece.heads, whole)
    destination = geometry.runs(wanted, piece.heads, whole)
    sources = _addresses(ours, geometry.block_bytes(held.count), source.offsets)
    destinations = _addresses(theirs, geometry.block_bytes(wanted.count), destination.offsets)
    return Copies(sources, destinations, np.full(sources.size, source.length_bytes, dtype=np.int64))


def _addresses(side: PagedSide, block_bytes: int, offsets: list[int]) -> Int64s:
    firsts = side.pool_address + side.blocks * block_bytes
    return (firsts[:, np.newaxis] + np.array(offsets, dtype=np.int64)).ravel()
