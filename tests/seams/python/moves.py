"""Moves, one after another or from several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from rig import Rig
from scenarios import Scenario


def play(scenario: Scenario) -> None:
    """One after another."""
    rig = Rig(scenario)
    rig.start()
    for _ in range(scenario.number("repeat", 1)):
        rig.move()


def play_threads(scenario: Scenario) -> None:
    """Each thread has a slot of its own on both sides; all share the two sides."""
    threads = scenario.number("threads", 4)
    rig = Rig(scenario)
    rig.start(threads)

    def work(slot: int) -> None:
        for _ in range(scenario.number("repeat", 1)):
            rig.move(slot)

    with ThreadPoolExecutor(threads) as pool:
        for worker in [pool.submit(work, slot) for slot in range(threads)]:
            worker.result()
