"""The conformance host of seam S2: plays the scenarios of a list, each in a process of its own.

    python host.py --list scenarios.txt [--kinds move,break] [--only TEXT] [--verbose]
    python host.py --list scenarios.txt --play NAME     one, in this process
    python host.py --serve PARENT                       the receiver's process (receiver.py)

PYTHONPATH names the package of the host that is played (tests/python). Exit code 0: every scenario that the seam has
went well; 1: some did not; 77: the lanes of BATON_LANES cannot be had on this machine.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import breaks
import ends
import moves
import refusals
import scenarios
import side
from memory import STORES
from receiver import serve
from rig import Failed
from scenarios import Scenario
from cuda_driver import why_not  # found once memory has said where

LIMIT_S = 60
SKIPPED = 77

PLAYERS: dict[str, Callable[[Scenario], None]] = {
    "move": moves.play,
    "threads": moves.play_threads,
    "refusal": refusals.play,
    "break": breaks.play,
    "shutdown": ends.play_shutdown,
    "order": ends.play_order,
}


def main() -> int:
    """Does what the flags say."""
    parser = argparse.ArgumentParser(description="plays the conformance scenarios at seam S2")
    parser.add_argument("--list", type=Path, default=Path(__file__).parent.parent / "scenarios.txt")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(PLAYERS))
    parser.add_argument("--only", default="")
    parser.add_argument("--play")
    parser.add_argument("--serve", type=int)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("TRTLLM_NIXL_INTERFACE", "lo")
    if options.serve is not None:
        serve(options.serve)
        return 0
    listed = scenarios.read(options.list)
    if options.play is not None:
        return play_here(next(scenario for scenario in listed if scenario.name == options.play))
    wanted = [one for one in listed if options.only in one.name and one.kind in options.kinds]
    return play_all(options, wanted)


def play_here(scenario: Scenario) -> int:
    """One scenario, in this process."""
    faulthandler.dump_traceback_later(scenario.number("limit_s", LIMIT_S), exit=True)
    if silence := scenario.text("peer_timeout_ms"):
        os.environ["BATON_PEER_TIMEOUT_MS"] = silence
    try:
        PLAYERS[scenario.kind](scenario)
    except (Failed, RuntimeError, TimeoutError) as error:
        print(f"failed: {error!r}", file=sys.stderr)
        return 1
    return 0


def play_all(options: argparse.Namespace, wanted: list[Scenario]) -> int:
    """Each scenario in a process of its own, with a line that says how it went."""
    if reason := unavailable():
        print(f"seam s2: all left out, {reason}")
        return SKIPPED
    no_gpu = why_not()
    good = skipped = failed = 0
    for scenario in wanted:
        if reason := side.lacks(scenario):
            print(f"skip {scenario.name:34} not at seam s2: {reason}", flush=True)
            skipped += 1
        elif no_gpu and needs_gpu(scenario):
            print(f"skip {scenario.name:34} not on this machine: {no_gpu}", flush=True)
            skipped += 1
        elif play_apart(options, scenario):
            good += 1
        else:
            failed += 1
    print(f"seam s2: {good} scenarios went well, {skipped} do not exist there or on this machine, {failed} failed")
    return 1 if failed or not good else 0


def needs_gpu(scenario: Scenario) -> bool:
    """Whether a side has memory of a GPU."""
    return any(STORES[scenario.text(end, "dram")] is not None for end in ("source", "destination"))


def play_apart(options: argparse.Namespace, scenario: Scenario) -> bool:
    """Whether a scenario went well in a process of its own."""
    command = [sys.executable, __file__, "--list", str(options.list), "--play", scenario.name]
    limit, start = scenario.number("limit_s", LIMIT_S), time.monotonic()
    try:
        # Its own watchdog shows where it hangs; this one is for a process that even that cannot end.
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit + 15
        )
        output, bad = ended.stdout, ending(ended.returncode)
    except subprocess.TimeoutExpired as expired:
        output, bad = (expired.stdout or b"").decode(errors="replace"), "its watchdog could not end it"
    if "Timeout (" in output and bad:
        bad = f"watchdog: it does not end within {limit} s"
    verdict = "FAIL" if bad else "ok"
    print(f"{verdict:4} {scenario.name:34} {time.monotonic() - start:6.2f} s  {bad}", flush=True)
    if bad or options.verbose:
        print(output, flush=True)
    return not bad


def ending(returncode: int) -> str:
    """How a process ended, in words; empty when well."""
    if returncode < 0:
        return f"crashed: signal {-returncode}"
    return f"exit code {returncode}" if returncode else ""


def unavailable() -> str:
    """Why the lane that was asked for cannot be had on this machine; empty where it can."""
    try:
        side.Side("probe").destroy()
    except RuntimeError as error:
        return str(error) if "no lane can be had" in str(error) else ""
    return ""


if __name__ == "__main__":
    sys.exit(main())
