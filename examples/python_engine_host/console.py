"""What a rank and its driver say to each other: commands as lines on stdin, events as JSON lines on stdout."""

from __future__ import annotations

import json
import os
import select
import threading

from failure import Failure, Kind, Stopped

_STDIN = 0
_STDOUT = 1
_STDERR = 2
_CHUNK_BYTES = 4096


class Events:
    """Writes events, each whole, from any thread."""

    def __init__(self) -> None:
        self._fd = _STDOUT
        self._lock = threading.Lock()

    def reserve_stdout(self) -> None:
        """Keeps stdout for events: whatever else this process prints goes to stderr from now on."""
        self._fd = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)

    def emit(self, event: str, **fields: int | str) -> None:
        """Raises Stopped where nobody listens any more."""
        line = json.dumps({"event": event, **fields}, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError as error:
                raise Stopped from error


class Console:
    """Reads commands. Not thread-safe."""

    def __init__(self) -> None:
        self._pending = b""
        self._ended = False

    @property
    def fd(self) -> int:
        """What to poll for commands."""
        return _STDIN

    def commands(self) -> list[list[str]]:
        """The words of every whole line that is there, without waiting.

        Raises Stopped once stdin has ended and all lines before its end have been returned.
        """
        while self._read_more():
            pass
        *lines, self._pending = self._pending.split(b"\n")
        if not lines and self._ended:
            raise Stopped
        words = (line.decode(errors="replace").split() for line in lines)
        return [command for command in words if command]

    def check_stopped(self) -> None:
        """Raises Stopped where the driver has gone; lines that it sent before are kept."""
        while self._read_more():
            pass
        if self._ended:
            raise Stopped

    def _read_more(self) -> bool:
        if self._ended or not select.select([_STDIN], [], [], 0)[0]:
            return False
        chunk = os.read(_STDIN, _CHUNK_BYTES)
        self._pending += chunk
        self._ended = not chunk
        return bool(chunk)


def parse_number(word: str, what: str) -> int:
    """A whole number of 64 bits. Raises Failure(USAGE) that names `what`."""
    if not (word.isascii() and word.isdigit()) or len(word) > 20 or int(word) >= 1 << 64:
        raise Failure(Kind.USAGE, f'{what} must be a whole number, not "{word}"')
    return int(word)
