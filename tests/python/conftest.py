"""Fixtures of all tests. Each run is one host: PYTHONPATH names its package (CMakeLists.txt)."""

from __future__ import annotations

import pytest

from host import Pair


@pytest.fixture(autouse=True)
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents advertise the loopback interface, and log what is wrong only."""
    monkeypatch.setenv("TRTLLM_NIXL_INTERFACE", "lo")


@pytest.fixture(params=["local", "stream"])
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A lane that every machine has; agents made in the test use no other."""
    monkeypatch.setenv("BATON_LANES", request.param)
    return request.param


@pytest.fixture
def pair(lane: str) -> Pair:
    """Two agents, over each lane."""
    return Pair()
