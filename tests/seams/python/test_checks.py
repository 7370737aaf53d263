"""That the host's own checks can fail: each byte that is wrong, misplaced or beside its place is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scenarios
from memory import MARGIN, Layout, Memory

SHAPES = ["dense", "gaps", "reversed", "uneven"]


def copied(layout: Layout) -> Memory:
    """The destination after a good move of the pattern 7."""
    source, target = Memory(layout, is_destination=False), Memory(layout, is_destination=True)
    source.fill(7)
    for (from_, length), (to, _) in zip(source.pieces().tolist(), target.pieces().tolist(), strict=True):
        from_, to = from_ - source.base + MARGIN, to - target.base + MARGIN
        target.bytes[to : to + length] = source.bytes[from_ : from_ + length]
    return target


@pytest.mark.parametrize("shape", SHAPES)
def test_every_byte_counts(shape: str) -> None:
    target = copied(Layout(150, 4, shape))
    assert target.faults(7) == "" and target.faults(8) != "" and target.traces() != ""
    for at in range(MARGIN - 1, target.bytes.size - MARGIN + 1):
        target.bytes[at] ^= 1
        assert target.faults(7) != ""
        target.bytes[at] ^= 1
    assert target.faults(7) == ""


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("descriptors", [1, 2, 7, 65536])
def test_pieces_add_up_and_keep_apart(shape: str, descriptors: int) -> None:
    layout = Layout(1000003, descriptors, shape)
    pieces = layout.pieces(4096, is_destination=True)
    assert pieces[:, 1].sum() == layout.nbytes and (pieces[:, 1] > 0).all()
    placed = pieces[np.argsort(pieces[:, 0])]
    assert placed[0, 0] >= 4096 and placed[-1].sum() <= 4096 + layout.extent()
    assert (placed[:-1].sum(axis=1) <= placed[1:, 0]).all()


def test_places_count() -> None:
    memory = Memory(Layout(4096, 4, "gaps"), is_destination=False)
    memory.fill(3)
    assert (memory.words_of(3), memory.words_of(4)) == (512, 0)
    first, second = memory.bytes[MARGIN : MARGIN + 1024].copy(), memory.bytes[MARGIN + 1088 : MARGIN + 2112].copy()
    memory.bytes[MARGIN : MARGIN + 1024], memory.bytes[MARGIN + 1088 : MARGIN + 2112] = second, first
    assert memory.faults(3) != "" and memory.words_of(3) == 256


@pytest.mark.parametrize("store", ["vram", "vmm", "vmm-private"])
def test_a_byte_in_memory_of_a_gpu_counts(store: str) -> None:
    memory = Memory(Layout(5 << 20, 7, "uneven"), is_destination=False, store=store)
    memory.fill(3)
    assert memory.is_vram and memory.faults(3) == "" and memory.faults(4) != "" and memory.words_of(3) > 600_000
    for at in (MARGIN - 1, memory.bytes.size - MARGIN, 3 << 20):
        right = int(memory.bytes[at])
        memory._device.set(at, right ^ 1, 1)
        assert memory.faults(3) != ""
        memory._device.set(at, right, 1)
        assert memory.faults(3) == ""
    memory.clear()
    assert memory.traces() == "" and memory.words_of(3) == 0


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("a move bytes=2", "the name is used twice"),
        ("b fall bytes=2", "no kind 'fall' is declared"),
        ("b move byte=2", "a move has no parameter 'byte'"),
    ],
)
def test_a_list_that_cannot_be_followed_is_refused(tmp_path: Path, line: str, text: str) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"kind move bytes says\na move bytes=1\n{line}\n")
    with pytest.raises(ValueError, match=f":3: {text}"):
        scenarios.read(listed)


def test_both_hosts_read_one_list() -> None:
    listed = scenarios.read(Path(__file__).parent.parent / "scenarios.txt")
    assert len(listed) > 90
