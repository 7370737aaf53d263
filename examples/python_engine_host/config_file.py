"""The keys that a rank reads from a cache_transceiver_config in YAML: flat `key: value` lines are enough for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from console import parse_number
from failure import Failure, Kind

_SECTION = "cache_transceiver_config"

# Known to TensorRT-LLM and without meaning here.
_OTHER_KEYS = frozenset(
    {
        "kv_transfer_sender_future_timeout_ms",
        "kv_transfer_poll_interval_ms",
        "kv_cache_bounce_size_mb",
        "enable_pipelined_transfer",
        "agent_bounce_buffer_enable",
        "agent_bounce_params",
    }
)


@dataclass
class ConfigFile:
    """What the file says; None or empty where it says nothing."""

    backend: str = ""
    transceiver_runtime: str = ""
    max_tokens_in_buffer: int | None = None
    kv_transfer_timeout_ms: int | None = None


@dataclass(frozen=True)
class _Line:
    number: int
    indent: int
    key: str
    value: str


def read_config_file(path: str) -> ConfigFile:
    """Raises Failure(USAGE) that names file, line and key."""
    section = _section_of(_read_lines(path))
    config = ConfigFile()
    for line in section:
        if line.indent == section[0].indent:  # deeper lines belong to agent_bounce_params
            _apply(config, path, line)
    return config


def _apply(config: ConfigFile, path: str, line: _Line) -> None:
    absent = line.value in ("", "null", "~")
    match line.key:
        case "backend" if absent:
            _refuse(path, line.number, "backend is empty: the cache transceiver is disabled, there is nothing to run")
        case "backend":
            config.backend = line.value
        case "transceiver_runtime":
            config.transceiver_runtime = "" if absent else line.value
        case "max_tokens_in_buffer" | "kv_transfer_timeout_ms" if not absent:
            setattr(config, line.key, parse_number(line.value, f"{path}: {line.key}"))
        case "max_tokens_in_buffer" | "kv_transfer_timeout_ms":
            pass
        case key if key not in _OTHER_KEYS:
            _refuse(path, line.number, f'unknown field "{key}" in {_SECTION}')


def _read_lines(path: str) -> list[_Line]:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise Failure(Kind.USAGE, f"cannot open {path}: {error.strerror}") from error
    lines = []
    for number, raw in enumerate(text.splitlines(), 1):
        bare = raw.split("#", 1)[0].rstrip()
        body = bare.strip()
        if body in ("", "---"):
            continue
        key, colon, value = body.partition(":")
        if not colon:
            _refuse(path, number, f'expected "key: value", found "{body}"')
        lines.append(_Line(number, len(bare) - len(bare.lstrip()), _unquote(key), _unquote(value)))
    return lines


def _section_of(lines: list[_Line]) -> list[_Line]:
    """The lines of the section, or all of them in a file that has no such section."""
    for at, line in enumerate(lines):
        if line.key == _SECTION:
            section = []
            for inner in lines[at + 1 :]:
                if inner.indent <= line.indent:
                    break
                section.append(inner)
            return section
    return lines


def _unquote(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) >= 2 and text[0] in "\"'" and text[-1] == text[0] else text


def _refuse(path: str, number: int, why: str) -> None:
    raise Failure(Kind.USAGE, f"{path}:{number}: {why}")
