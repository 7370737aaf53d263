"""The fixtures of a mixed pair: agents of Baton in this process, stock ones in theirs."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stock import Stock

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents advertise the loopback interface."""
    monkeypatch.setenv("TRTLLM_NIXL_INTERFACE", "lo")


@pytest.fixture
def make_stock(tmp_path: Path) -> Iterator[Callable[..., Stock]]:
    """Makes stock agents, which end with the test."""
    if not os.environ.get("NIXL_HOME"):
        pytest.skip("no real NIXL here: scripts/install-nixl.sh fetches one")
    made: list[Stock] = []

    def make(name: str = "") -> Stock:
        made.append(Stock(name or f"stock-{next(_numbers)}", tmp_path))
        return made[-1]

    yield make
    for stock in made:
        stock.end()


@pytest.fixture
def stock(make_stock: Callable[..., Stock]) -> Stock:
    """One stock agent."""
    return make_stock()
