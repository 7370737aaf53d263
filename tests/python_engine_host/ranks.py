"""Ranks as processes: started with a few flags, driven line by line, ended however a test ends.

Every wait has a deadline; nothing sleeps.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HOST = Path(__file__).parents[2] / "examples" / "python_engine_host"
LIMIT_S = 20.0

Event = dict[str, Any]


class Rank:
    """One engine host process."""

    def __init__(self, role: str, *flags: object, **environment: str | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HOST), "--role", role, *map(str, flags)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(environment),
            text=True,
            bufsize=1,
        )
        self.ready: Event = {}
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._log: list[str] = []
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read_events, self._read_log)]
        for thread in self._threads:
            thread.start()

    @property
    def log(self) -> str:
        return "".join(self._log)

    def tell(self, *lines: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{line}\n" for line in lines))
        self._process.stdin.flush()

    def next(self, limit_s: float = LIMIT_S) -> Event:
        """The next event, whatever it is; an empty one once there are no more."""
        try:
            return self._events.get(timeout=limit_s) or {}
        except queue.Empty:
            raise AssertionError(f"no event within {limit_s:g} s; log:\n{self.log}") from None

    def expect(self, name: str, limit_s: float = LIMIT_S) -> Event:
        """The next event, which must be of this name."""
        event = self.next(limit_s)
        assert event.get("event") == name, f"{name} was expected, not {event}; log:\n{self.log}"
        if name == "ready":
            self.ready = event
        return event

    def expect_error(self, kind: str, exit_code: int, limit_s: float = LIMIT_S) -> str:
        """The text of the error that ends this rank; other events before it do not count."""
        deadline = time.monotonic() + limit_s
        event = self.next(limit_s)
        while event and event["event"] != "error":
            event = self.next(max(0.0, deadline - time.monotonic()))
        assert event.get("kind") == kind, f"{kind} was expected, not {event}; log:\n{self.log}"
        assert self.wait() == exit_code
        return str(event["text"])

    def finish(self) -> Event:
        """Ends it in order and returns its summary; events before it that nobody has asked for do not count."""
        self.tell("quit")
        event = self.next()
        while event and event["event"] not in ("summary", "error"):
            event = self.next()
        assert event.get("event") == "summary", f"summary was expected, not {event}; log:\n{self.log}"
        self.close()
        return event

    def close(self) -> None:
        """Ends its stdin."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(LIMIT_S)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._process.kill()
        self._process.wait(LIMIT_S)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.append(line)


def connect(generation: Rank, contexts: list[Rank]) -> None:
    """Tells a generation rank where the context ranks are; all of them must be ready."""
    for ready in (context.ready for context in contexts):
        generation.tell(f"connect {ready['rank']} {ready['name']} {ready['connection_info']}")


def _environment(changes: dict[str, str | None]) -> dict[str, str]:
    base = {"TRTLLM_NIXL_INTERFACE": "lo", "BATON_LOG": "warn"}
    merged = {**os.environ, **base, **changes}
    return {name: value for name, value in merged.items() if value is not None}
