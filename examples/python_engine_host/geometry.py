"""The shape of a paged KV cache, and which rank sends which heads to which.

A block holds tokens_per_block tokens as [layer][K/V][head][token][dim]. Tensor parallelism gives every rank a
contiguous range of heads; with more ranks than heads several ranks hold the same head. Plain arithmetic: no memory,
no agent. The C++ engine host and `baton demo` do the same arithmetic, apart from this; the driver compares counts.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

WORD_BYTES = 8


@dataclass(frozen=True)
class HeadRange:
    """Heads [begin, end) of the whole model."""

    begin: int
    end: int

    @property
    def count(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Piece:
    """What one context rank sends to one generation rank."""

    context_rank: int
    generation_rank: int
    heads: HeadRange


@dataclass(frozen=True)
class Runs:
    """Bytes within one block, the same length at every offset."""

    offsets: list[int]
    length_bytes: int


@dataclass(frozen=True)
class Geometry:
    """A model's KV cache between two tensor-parallel layouts."""

    layers: int = 0
    kv_factor: int = 2  # 1 for a K-only latent (MLA)
    kv_heads: int = 0
    head_dim: int = 0
    element_bytes: int = 2
    tokens_per_block: int = 32
    context_tp: int = 1
    generation_tp: int = 1

    def validate(self) -> None:
        """Raises ValueError that names the value that cannot be."""
        if 0 in (self.layers, self.kv_heads, self.head_dim, self.tokens_per_block):
            raise ValueError("--layers, --kv-heads, --head-dim and --tokens-per-block must be given and not 0")
        if self.kv_factor not in (1, 2):
            raise ValueError(f"--kv-factor is 2 (K and V) or 1 (a latent), not {self.kv_factor}")
        for flag, tp in (("--tp", self.context_tp), ("--gen-tp", self.generation_tp)):
            if tp == 0 or (self.kv_heads % tp != 0 and tp % self.kv_heads != 0):
                raise ValueError(f"{flag} {tp} does not split {self.kv_heads} KV heads evenly")
        if self.head_bytes == 0 or self.head_bytes % WORD_BYTES != 0:
            raise ValueError(f"one head of one block must be a multiple of 8 bytes, not {self.head_bytes}")

    def context_heads(self, rank: int) -> HeadRange:
        return self._heads_of(rank, self.context_tp)

    def generation_heads(self, rank: int) -> HeadRange:
        return self._heads_of(rank, self.generation_tp)

    @property
    def head_bytes(self) -> int:
        """Bytes of one head in one layer's K or V of one block."""
        return self.tokens_per_block * self.head_dim * self.element_bytes

    @property
    def planes(self) -> int:
        """Layers times K and V: the runs of a block in which a range of heads is contiguous."""
        return self.layers * self.kv_factor

    def block_bytes(self, heads: int) -> int:
        """Bytes of one block on a rank that holds this many heads."""
        return self.planes * heads * self.head_bytes

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.tokens_per_block)

    def pieces(self) -> list[Piece]:
        """Every piece that travels, ordered by generation rank, then head.

        Where several context ranks hold the same heads one of them sends; generation ranks take turns.
        """
        replicas = self.context_tp // self.kv_heads if self.context_tp > self.kv_heads else 1
        found = []
        for generation in range(self.generation_tp):
            wanted = self.generation_heads(generation)
            for context in range(generation % replicas, self.context_tp, replicas):
                held = self.context_heads(context)
                common = HeadRange(max(held.begin, wanted.begin), min(held.end, wanted.end))
                if common.begin < common.end:
                    found.append(Piece(context, generation, common))
        return found

    def same_layout(self, piece: Piece) -> bool:
        """Whether both ranks of the piece lay out a block alike, so that a block travels whole."""
        return self.context_heads(piece.context_rank) == self.generation_heads(piece.generation_rank)

    def runs(self, held: HeadRange, wanted: HeadRange, whole_block: bool) -> Runs:
        """Where `wanted` lies in a block of a rank that holds `held`: the whole block, or one run per plane."""
        if whole_block:
            return Runs([0], self.block_bytes(held.count))
        stride = held.count * self.head_bytes
        first = (wanted.begin - held.begin) * self.head_bytes
        return Runs([plane * stride + first for plane in range(self.planes)], wanted.count * self.head_bytes)

    def as_numbers(self) -> dict[str, int]:
        """Every number, by name: what two ranks must agree on."""
        return asdict(self)

    def _heads_of(self, rank: int, tp: int) -> HeadRange:
        if tp <= self.kv_heads:
            each = self.kv_heads // tp
            return HeadRange(rank * each, (rank + 1) * each)
        head = rank // (tp // self.kv_heads)
        return HeadRange(head, head + 1)
