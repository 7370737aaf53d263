"""What a rank refuses before it serves, and commands that it cannot follow: an error event and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Start
from ranks import HOST


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--shape", "staged"], "the Python runtime writes pages straight from the pool and has no staging buffer"),
        (["--backend", "UCX"], "the Python transceiver supports the NIXL backend only, not UCX"),
        (["--bakend", "NIXL"], "unrecognized arguments: --bakend NIXL; --help lists the flags"),
        (["--rank", "one"], '--rank: the value must be a whole number, not "one"'),
        (["--rank", 2], "--rank 2 does not exist in 1 ranks"),
        (["--tp", 3], "--tp 3 does not split 2 KV heads evenly"),
        (["--kv-factor", 3], "--kv-factor is 2 (K and V) or 1 (a latent), not 3"),
        (["--layers", 0], "--layers, --kv-heads, --head-dim and --tokens-per-block must be given and not 0"),
        (["--layers", 2_000_000], "layers 2000000 is out of range"),
        (["--pool-blocks", 0], "--pool-blocks must be given"),
        (["--sender-threads", 65], "--sender-threads is between 1 and 64, not 65"),
        (["--max-tokens-in-buffer", 33], "max_tokens_in_buffer 33 is not a multiple of tokens_per_block 16"),
        (["--config", "nowhere.yaml"], "cannot open nowhere.yaml"),
    ],
    ids=lambda value: "_".join(map(str, value)) if isinstance(value, list) else "",
)
def test_flags_that_cannot_be_followed(start: Start, flags: list[object], text: str) -> None:
    assert text in start("context", *flags).expect_error("usage", 2)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["backend: MPI"], "the Python transceiver supports the NIXL backend only, not MPI"),
        (["transceiver_runtime: CPP"], "transceiver_runtime CPP: this host plays the Python runtime"),
        (["backend:"], "config.yaml:2: backend is empty"),
        (["max_tokens_in_bufer: 64"], 'config.yaml:2: unknown field "max_tokens_in_bufer"'),
        (["max_tokens_in_buffer: many"], 'max_tokens_in_buffer must be a whole number, not "many"'),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_configurations_that_cannot_be_followed(start: Start, tmp_path: Path, lines: list[str], text: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("\n  ".join(["cache_transceiver_config:", *lines]) + "\n")
    assert text in start("context", "--config", config).expect_error("usage", 2)


def test_packages_that_the_python_lacks_are_named_with_what_to_do() -> None:
    flags = ["--role", "context", "--layers", "1", "--kv-heads", "1", "--head-dim", "64", "--pool-blocks", "1"]
    # Without the site-packages there is neither of them.
    host = subprocess.run(
        [sys.executable, "-S", HOST, *flags], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    assert host.returncode == 2, host.stderr
    assert '"kind":"usage"' in host.stdout
    assert "needs the packages numpy and pyzmq" in host.stdout and "--python FILE" in host.stdout


def test_a_configuration_of_the_python_runtime_is_taken(start: Start, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    lines = ("backend: NIXL # the default", "transceiver_runtime: PYTHON", 'kv_transfer_timeout_ms: "300"')
    config.write_text("\n  ".join(["cache_transceiver_config:", *lines, "agent_bounce_params:", "  odd: 1"]) + "\n")
    generation = start("generation", "--config", config)
    context = start("context")
    ready = context.expect("ready")
    generation.expect("ready")
    generation.tell(f"connect 0 {ready['name']} {ready['connection_info']}", "receive 1 100")
    assert "after 300 ms" in generation.expect_error("timeout", 6)


def test_a_number_of_threads_that_is_none(start: Start) -> None:
    text = start("context", TRTLLM_KV_TRANSFER_NUM_THREADS="some").expect_error("usage", 2)
    assert text == 'TRTLLM_KV_TRANSFER_NUM_THREADS must be a whole number, not "some"'


@pytest.mark.parametrize(
    ("role", "commands", "text"),
    [
        ("context", ["receive 1 100"], 'a context rank does not know the command "receive" with 2 words'),
        ("context", ["prepare 1 100"], 'a context rank does not know the command "prepare" with 2 words'),
        ("context", ["prepare 1 1025 0"], "the request needs 65 blocks, 64 of 64 are free"),
        ("context", ["prepare 1 -5 0"], 'TOKENS must be a whole number, not "-5"'),
        ("context", ["prepare 1 5 0", "prepare 1 5 0"], "request 1 has not been sent yet"),
        ("context", ["prepare 1 0 1"], "this rank sends nothing that could be corrupted"),
        ("generation", ["prepare 1 100 0"], 'a generation rank does not know the command "prepare" with 3 words'),
        ("generation", ["receive 1 100"], "no connect command has named context rank 0"),
        ("generation", ["check 1"], "request 1 has not been received"),
        ("generation", ["connect 0 a b:1", "receive 1 5", "receive 1 5"], "request 1 has not been checked yet"),
    ],
)
def test_commands_that_cannot_be_followed(start: Start, role: str, commands: list[str], text: str) -> None:
    rank = start(role)
    rank.tell(*commands)
    assert rank.expect_error("usage", 2) == text


def test_an_endpoint_that_is_none(start: Start) -> None:
    generation = start("generation")
    generation.tell("connect 0 ctx0_1 nowhere", "receive 1 5")
    assert '"nowhere" is no endpoint; expected host:port' in generation.expect_error("protocol", 7)


def test_without_the_binding_it_says_what_is_missing(start: Start, tmp_path: Path) -> None:
    text = start("context", PYTHONPATH=str(tmp_path)).expect_error("library", 3)
    assert "cannot be imported: No module named 'tensorrt_llm'" in text
    assert "PYTHONPATH" in text


def test_a_library_that_refuses_is_quoted(start: Start) -> None:
    text = start("context", BATON_LANES="no-such-lane").expect_error("library", 3)
    assert text.startswith("NixlTransferAgent: ")
    assert "BATON_LANES" in text


def test_help_teaches() -> None:
    command = [sys.executable, str(HOST), "--help"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    text = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=True).stdout
    for part in ("prepare REQUEST TOKENS CORRUPT", "connect CONTEXT_RANK NAME HOST:PORT", "exit codes", "PYTHONPATH="):
        assert part in text
