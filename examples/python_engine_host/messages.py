"""What ranks say to each other over ZMQ, under the names of TensorRT-LLM's Python runtime.

| message | from, to | says |
|---|---|---|
| REQUEST_INSTANCE_INFO | generation, context | who are you, and how is your cache laid out? |
| INSTANCE_INFO | context, generation | that; the answer on the same connection |
| REGISTER_RANK_INFO | generation, context | where I can be reached and written to, with my AgentDesc |
| REQUEST_DATA | generation, context | put this request's KV into these blocks, and its first token into this AUX slot |
| KV_AGENT_RESULT, AUX_AGENT_RESULT | context, generation | all of it has been written, or why not |
| TERMINATION | either | I leave in order |
| REFUSED | either | what you said makes no sense, for this reason; the answer on the same connection |

A message is two or three frames: its name, its fields as JSON, its raw bytes if it has any. The encoding is this
example's own. `token` is made by the generation rank for one context rank: later messages between the two carry it,
so that nobody else can speak for either. Decoding takes whatever comes: it either returns a message whose fields
have their types or raises Malformed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import numpy as np

from mapper import Int64s
from memory import Place

LARGEST_FRAME_BYTES = 16 << 20
_LARGEST_JSON_BYTES = 64 << 10


class Malformed(ValueError):
    """These frames are no message."""


@dataclass(frozen=True)
class Message:
    """The fields of a message; `raw` is its third frame."""

    NAME: ClassVar[str] = ""
    HAS_RAW: ClassVar[bool] = False


@dataclass(frozen=True)
class RequestInstanceInfo(Message):
    NAME = "REQUEST_INSTANCE_INFO"


@dataclass(frozen=True)
class InstanceInfo(Message):
    NAME = "INSTANCE_INFO"
    name: str
    rank: int
    geometry: dict[str, int]


@dataclass(frozen=True)
class RegisterRankInfo(Message):
    NAME = "REGISTER_RANK_INFO"
    HAS_RAW = True
    token: str
    name: str
    rank: int
    endpoint: str
    geometry: dict[str, int]
    pool_is_vram: int  # 0 or 1
    pool_device: int
    pool_address: int
    pool_blocks: int
    aux_address: int
    aux_slots: int
    raw: bytes = field(repr=False)  # the AgentDesc

    @property
    def pool_place(self) -> Place:
        """Where the pool lies."""
        return Place(self.pool_is_vram != 0, self.pool_device)


@dataclass(frozen=True)
class RequestData(Message):
    NAME = "REQUEST_DATA"
    HAS_RAW = True
    token: str
    request: int
    aux_slot: int
    raw: bytes = field(repr=False)  # the blocks, as int64

    @property
    def blocks(self) -> Int64s:
        """Raises Malformed where the bytes are no list of int64."""
        if len(self.raw) % 8 != 0:
            raise Malformed(f"{len(self.raw)} bytes of block ids are no list of int64")
        return np.frombuffer(self.raw, dtype=np.int64)


@dataclass(frozen=True)
class KvAgentResult(Message):
    NAME = "KV_AGENT_RESULT"
    token: str
    request: int
    status: str  # SUCCESS or FAILED
    submitted_ns: int  # CLOCK_MONOTONIC, which processes on one machine share
    length_bytes: int
    descriptors: int
    text: str


@dataclass(frozen=True)
class AuxAgentResult(Message):
    NAME = "AUX_AGENT_RESULT"
    token: str
    request: int
    status: str
    text: str


@dataclass(frozen=True)
class Termination(Message):
    NAME = "TERMINATION"
    token: str


@dataclass(frozen=True)
class Refused(Message):
    NAME = "REFUSED"
    token: str  # of the message that is refused; empty where it had none
    text: str


SUCCESS = "SUCCESS"
FAILED = "FAILED"


def encode(message: Message) -> list[bytes]:
    """The frames of a message."""
    values = {f.name: getattr(message, f.name) for f in fields(message)}
    raw = values.pop("raw", None)
    frames = [message.NAME.encode(), json.dumps(values).encode()]
    return frames if raw is None else [*frames, raw]


def decode(frames: Sequence[bytes]) -> Message:
    """Raises Malformed for anything that encode() does not make."""
    kind = _KINDS.get(bytes(frames[0])) if frames else None
    if kind is None:
        raise Malformed("it begins with no known name")
    if len(frames) != 2 + kind.HAS_RAW:
        raise Malformed(f"{kind.NAME} in {len(frames)} frames")
    values = _fields_in(kind, bytes(frames[1]))
    if kind.HAS_RAW:
        values["raw"] = bytes(frames[2])
    return kind(**values)


def _fields_in(kind: type[Message], text: bytes) -> dict[str, Any]:
    if len(text) > _LARGEST_JSON_BYTES:
        raise Malformed(f"{kind.NAME} with {len(text)} bytes of fields")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{kind.NAME} whose fields are no JSON") from error
    wanted = {f.name: str(f.type) for f in fields(kind) if f.name != "raw"}
    if not isinstance(values, dict) or values.keys() != wanted.keys():
        raise Malformed(f"{kind.NAME} with other fields than {', '.join(wanted)}")
    for name, type_name in wanted.items():
        if not _CHECKS[type_name](values[name]):
            raise Malformed(f"{kind.NAME} whose {name} is no {type_name}")
    return values


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": _is_number,
    "str": lambda value: isinstance(value, str),
    "dict[str, int]": lambda value: isinstance(value, dict) and all(_is_number(v) for v in value.values()),
}

_KINDS: dict[bytes, type[Message]] = {
    kind.NAME.encode(): kind
    for kind in (
        RequestInstanceInfo,
        InstanceInfo,
        RegisterRankInfo,
        RequestData,
        KvAgentResult,
        AuxAgentResult,
        Termination,
        Refused,
    )
}
