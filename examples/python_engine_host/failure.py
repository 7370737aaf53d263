"""How a rank ends badly: a kind for programs, a text for people, an exit code for both.

The same kinds and codes as the C++ engine host's, so that one driver understands both.
"""

from __future__ import annotations

from enum import Enum


class Kind(Enum):
    """What went wrong; the value is its name in an error event."""

    USAGE = "usage"  # the command line, the config or a command cannot be followed
    LIBRARY = "library"  # the binding could not be imported, or the library refused to serve
    PEER_LOST = "peer-lost"  # the other side is gone
    TRANSFER_FAILED = "transfer-failed"  # a transfer ended in failure
    TIMEOUT = "timeout"  # something took longer than --patience-ms
    PROTOCOL = "protocol"  # the other side said something that makes no sense
    DEVICE = "device"  # the GPU or its driver does not do what this rank was told to use it for

    @property
    def exit_code(self) -> int:
        """2 for usage, 3 for library, and so on; 1 is kept for "corrupt bytes found"."""
        return 2 + list(Kind).index(self)


class Failure(Exception):
    """The rank cannot go on. `peer` is the agent it is about, empty where it is about none."""

    def __init__(self, kind: Kind, text: str, peer: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.peer = peer


class Stopped(Exception):
    """Not a failure: whoever drives this rank has closed its standard input, or reads no more."""
