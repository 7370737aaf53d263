"""The arithmetic and the codec, each on its own."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from geometry import Geometry, HeadRange
from mapper import Copies, PagedSide, map_piece
from messages import (
    AuxAgentResult,
    InstanceInfo,
    KvAgentResult,
    Malformed,
    Message,
    Refused,
    RegisterRankInfo,
    RequestData,
    RequestInstanceInfo,
    Termination,
    decode,
    encode,
)
from pattern import Pattern, aux_words, first_difference

Bytes = npt.NDArray[np.uint8]

LAYOUTS = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 8), (8, 2), (4, 8), (8, 4), (8, 8), (1, 8)]


def geometry(tp: int, gen_tp: int) -> Geometry:
    shape = Geometry(3, 2, 4, 8, 2, 4, tp, gen_tp)
    shape.validate()
    return shape


def carry_out(copies: Copies, source: Bytes, destination: Bytes) -> None:
    """The copies as if both pools began at address 0."""
    for begin, to, length in zip(copies.sources, copies.destinations, copies.sizes, strict=True):
        destination[to : to + length] = source[begin : begin + length]


@pytest.mark.parametrize(("tp", "gen_tp"), LAYOUTS)
def test_every_generation_rank_gets_each_byte_of_its_heads_once(tp: int, gen_tp: int) -> None:
    shape = geometry(tp, gen_tp)
    ours, theirs = np.array([2, 0]), np.array([1, 3])
    for rank in range(gen_tp):
        wanted = shape.generation_heads(rank)
        block_bytes = shape.block_bytes(wanted.count)
        landed = np.zeros(4 * block_bytes, dtype=np.uint8)
        carried = 0
        for piece in (piece for piece in shape.pieces() if piece.generation_rank == rank):
            held = shape.context_heads(piece.context_rank)
            pool = np.zeros((3, shape.block_bytes(held.count) // 8), dtype=np.uint64)
            for logical, block in enumerate(ours):
                Pattern(shape, held).fill(pool[block], 9, logical)
            copies = map_piece(shape, piece, PagedSide(0, ours), PagedSide(0, theirs))
            assert copies.descriptors == 2 * (1 if held == wanted else shape.planes)
            carried += copies.length_bytes
            carry_out(copies, pool.reshape(-1).view(np.uint8), landed)
        assert carried == 2 * block_bytes
        words = landed.view(np.uint64).reshape(4, -1)
        pattern = Pattern(shape, wanted)
        assert [pattern.first_wrong_byte(words[block], 9, n) for n, block in enumerate(theirs)] == [None, None]
        assert not words[[0, 2]].any()


def test_published_shapes() -> None:
    # Llama-3.1-8B in bf16, TP1->TP2: 16384 descriptors of 32 KiB for 8192 tokens; 1 GiB and 256 blocks TP1->TP1.
    split = Geometry(32, 2, 8, 128, 2, 32, 1, 2)
    blocks = np.arange(split.blocks_for(8192))
    copies = map_piece(split, split.pieces()[0], PagedSide(0, blocks), PagedSide(0, blocks))
    assert (copies.descriptors, set(copies.sizes.tolist())) == (16384, {32 << 10})
    same = Geometry(32, 2, 8, 128, 2, 32, 1, 1)
    copies = map_piece(same, same.pieces()[0], PagedSide(0, blocks), PagedSide(0, blocks))
    assert (copies.descriptors, copies.length_bytes) == (256, 1 << 30)


def test_any_wrong_byte_is_found_where_it_is() -> None:
    shape = geometry(2, 2)
    pattern = Pattern(shape, HeadRange(2, 4))
    block = np.zeros(shape.block_bytes(2) // 8, dtype=np.uint64)
    pattern.fill(block, 5, 1)
    assert pattern.first_wrong_byte(block, 5, 1) is None
    assert pattern.first_wrong_byte(block, 6, 1) is not None  # of another request
    assert pattern.first_wrong_byte(block, 5, 0) is not None  # another block's
    for at in range(0, block.nbytes, 37):
        block.view(np.uint8)[at] ^= 0x40
        assert pattern.first_wrong_byte(block, 5, 1) == at
        block.view(np.uint8)[at] ^= 0x40


def test_aux_slots_differ_between_requests() -> None:
    assert first_difference(aux_words(1, 64), aux_words(1, 64)) is None
    assert first_difference(aux_words(1, 64), aux_words(2, 64)) is not None


MESSAGES: list[Message] = [
    RequestInstanceInfo(),
    InstanceInfo("ctx0_1", 0, {"layers": 2}),
    RegisterRankInfo("t", "gen0_2", 0, "127.0.0.1:1", {"layers": 2}, 1, 3, 1 << 47, 8, 4096, 256, b"\x00\xff"),
    RequestData("t", (1 << 64) - 1, 3, np.array([1, -1], dtype=np.int64).tobytes()),
    KvAgentResult("t", 1, "SUCCESS", 12, 34, 5, ""),
    AuxAgentResult("t", 1, "FAILED", 'weil "es" \n nicht ging'),
    Termination("t"),
    Refused("", "why"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.NAME)
def test_messages_survive_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.NAME)
def test_damaged_messages_are_malformed_or_messages(message: Message) -> None:
    random = np.random.default_rng(len(message.NAME))
    refused = 0
    for _ in range(3000):
        frames = [bytearray(frame) for frame in encode(message)]
        frame = frames[random.integers(len(frames))]
        for _ in range(random.integers(1, 4)):
            if frame:
                frame[random.integers(len(frame))] = random.integers(256)
        if random.random() < 0.2:
            frames = frames[: random.integers(len(frames))]
        try:
            decode([bytes(frame) for frame in frames])
        except Malformed:
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize("value", ["true", "-1", "1.5", "null", '"1"', str(1 << 64), "[1]", "1e3"])
def test_numbers_are_whole_and_of_64_bits(value: str) -> None:
    fields = f'{{"token": "t", "request": {value}, "status": "SUCCESS", "text": ""}}'
    with pytest.raises(Malformed, match="whose request is no int"):
        decode([b"AUX_AGENT_RESULT", fields.encode()])
