"""What the KV cache holds: every byte is a function of (request, logical block, offset in the model's block).

The offset counts through all heads of the model, not those of one rank, so that a generation rank can check what it
holds whatever rank it came from. The request's id is part of the function: bytes left over from an earlier request
in a reused block fail the check, as do zeros. One pass over memory each way: filling and checking must not be what
takes the time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from geometry import WORD_BYTES, Geometry, HeadRange

Words = npt.NDArray[np.uint64]

_STEP = 0x9E3779B97F4A7C15
_MULTIPLIER = 0xD6E8FEB86659FD93
_MASK = (1 << 64) - 1


class Pattern:
    """The pattern as a rank that holds `heads` lays it out: word n of a block is `noise[n] ^ key(request, block)`."""

    def __init__(self, geometry: Geometry, heads: HeadRange) -> None:
        self._noise = _noise(_model_words(geometry, heads))
        self._scratch = np.empty_like(self._noise)

    def fill(self, block: Words, request: int, logical_block: int) -> None:
        """Writes one logical block of a request into `block`."""
        np.bitwise_xor(self._noise, _key(request, logical_block), out=block)

    def first_wrong_byte(self, block: Words, request: int, logical_block: int) -> int | None:
        """Where the first wrong byte lies within this rank's block; None if all are right."""
        np.bitwise_xor(self._noise, _key(request, logical_block), out=self._scratch)
        if np.array_equal(block, self._scratch):
            return None
        return first_difference(block, self._scratch)


def aux_words(request: int, words: int) -> Words:
    """What the AUX slot of a request holds: it stands for the first token and its draft tokens."""
    return _noise(np.arange(words, dtype=np.uint64)) ^ _key(request, -1)


def first_difference(found: Words, expected: Words) -> int | None:
    """The first byte in which two equally long runs of words differ."""
    wrong = np.flatnonzero(found.view(np.uint8) != expected.view(np.uint8))
    return int(wrong[0]) if wrong.size else None


def _model_words(geometry: Geometry, heads: HeadRange) -> Words:
    """For every word of the rank's block, its place in the model's block."""
    head_words = geometry.head_bytes // WORD_BYTES
    within = np.arange(heads.count * head_words, dtype=np.uint64) + np.uint64(heads.begin * head_words)
    planes = np.arange(geometry.planes, dtype=np.uint64) * np.uint64(geometry.kv_heads * head_words)
    return (planes[:, np.newaxis] + within).ravel()


def _noise(words: Words) -> Words:
    mixed = words * np.uint64(_STEP)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(_MULTIPLIER)
    return mixed ^ (mixed >> np.uint64(29))


def _key(request: int, logical_block: int) -> np.uint64:
    """64 bits that no other block of any request has, but by an unlikely chance; logical block -1 is the AUX slot."""
    return np.uint64(_mix(_mix(request + 1) + (logical_block + 2) * _STEP))


def _mix(value: int) -> int:
    value &= _MASK
    value ^= value >> 32
    value = (value * _MULTIPLIER) & _MASK
    return value ^ (value >> 29)
