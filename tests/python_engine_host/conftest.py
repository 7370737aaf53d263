"""Fixtures of all tests. PYTHONPATH names the package with the binding (tests/python/README.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ranks import Rank

MODEL = ("--layers", 2, "--kv-heads", 2, "--head-dim", 16, "--tokens-per-block", 16, "--pool-blocks", 64)

Start = Callable[..., Rank]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts ranks of a tiny model; flags may say otherwise. They end with the test."""
    ranks: list[Rank] = []

    def start_one(role: str, *flags: object, **environment: str | None) -> Rank:
        ranks.append(Rank(role, *MODEL, *flags, **environment))
        return ranks[-1]

    yield start_one
    for rank in ranks:
        rank.kill()
