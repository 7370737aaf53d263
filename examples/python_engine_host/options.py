"""What a rank is told at its start: flags, and the few keys it reads from a cache_transceiver_config."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from config_file import ConfigFile, read_config_file
from console import parse_number
from cuda_driver import Placement
from failure import Failure, Kind
from geometry import Geometry, HeadRange

_DEFAULT_SENDER_THREADS = 2
_MOST_SENDER_THREADS = 64
_DEFAULT_PATIENCE_MS = 60000  # kv_transfer_timeout_ms of TensorRT-LLM

_DESCRIPTION = """\
Plays one rank of a serving engine as TensorRT-LLM's Python runtime has it: imports
tensorrt_llm.tensorrt_llm_transfer_agent_binding (PYTHONPATH says where), registers a KV pool and an AUX buffer with
its NixlTransferAgent, agrees with other ranks over ZMQ, and hands KV cache over in paged writes. Commands come on
stdin, events leave on stdout as JSON lines, logs on stderr."""

_EPILOG = """\
commands to a context rank      prepare REQUEST TOKENS CORRUPT(0|1)
commands to a generation rank   connect CONTEXT_RANK NAME HOST:PORT · receive REQUEST TOKENS · check REQUEST
commands to both                quit

Several requests may be under way at once, and a request may be asked for before it is prepared. By hand, in two
terminals (the second one's connect takes name and connection_info from the first one's "ready"):

  export PYTHONPATH=build/python/plain-open model='--layers 2 --kv-heads 2 --head-dim 64 --pool-blocks 8'
  target/python/bin/python examples/python_engine_host --role context $model
      prepare 1 100 0
  target/python/bin/python examples/python_engine_host --role generation $model
      connect 0 ctx0_4711 127.0.0.1:40123
      receive 1 100
      check 1

exit codes: 0 all bytes right, 1 some wrong, 2 usage, 3 library, 4 peer-lost, 5 transfer-failed, 6 timeout, 7 protocol,
8 device
"""


@dataclass(frozen=True)
class Options:
    """A rank's settings, checked."""

    is_context: bool
    rank: int
    geometry: Geometry
    pool_blocks: int
    seed: int
    vram: Placement | None  # None: the pool is DRAM
    patience_ms: int
    sender_threads: int

    @property
    def role(self) -> str:
        return "context" if self.is_context else "generation"

    @property
    def heads(self) -> HeadRange:
        """Heads that this rank holds."""
        of = self.geometry.context_heads if self.is_context else self.geometry.generation_heads
        return of(self.rank)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block of this rank's pool."""
        return self.geometry.block_bytes(self.heads.count)


def parse_options(arguments: Sequence[str]) -> Options:
    """Raises Failure(USAGE) that names the flag or key; prints the usage for --help, then exits with 0."""
    flags = _parser().parse_args(arguments)
    config = read_config_file(flags.config) if flags.config else ConfigFile()
    _require_this_runtime(flags.shape, flags.backend or config.backend, config.transceiver_runtime)
    options = Options(
        is_context=flags.role == "context",
        rank=flags.rank,
        geometry=Geometry(
            flags.layers,
            flags.kv_factor,
            flags.kv_heads,
            flags.head_dim,
            flags.element_bytes,
            flags.tokens_per_block,
            flags.tp,
            flags.gen_tp,
        ),
        pool_blocks=flags.pool_blocks,
        seed=flags.seed,
        vram=_vram(flags),
        patience_ms=flags.patience_ms or config.kv_transfer_timeout_ms or _DEFAULT_PATIENCE_MS,
        sender_threads=flags.sender_threads or _sender_threads_of_environment(),
    )
    _validate(options, flags.max_tokens_in_buffer or config.max_tokens_in_buffer or 0)
    return options


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Failure(Kind.USAGE, f"{message}; --help lists the flags")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python_engine_host",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--role", choices=("context", "generation"), default="context", help="which phase this rank serves (context)")
    add("--rank", type=_number, default=0, metavar="N", help="its tensor-parallel rank (0)")
    add("--shape", choices=("paged", "staged"), default="paged", help="paged; the Python runtime has no staging")
    add("--config", metavar="FILE", help="a cache_transceiver_config in YAML: backend, kv_transfer_timeout_ms, ...")
    add("--backend", metavar="NAME", default="", help="NIXL or DEFAULT, over what the file says (DEFAULT is NIXL)")
    add("--max-tokens-in-buffer", type=_number, metavar="N", help="checked as TensorRT-LLM does; sizes nothing here")
    for flag, default in (("layers", 0), ("kv-heads", 0), ("head-dim", 0), ("element-bytes", 2)):
        add(f"--{flag}", type=_number, default=default, metavar="N", help=f"of the model's KV cache ({default})")
    add("--kv-factor", type=_number, default=2, metavar="1|2", help="1: a latent without V (2)")
    add("--tokens-per-block", type=_number, default=32, metavar="N", help="tokens in one block (32)")
    add("--tp", type=_number, default=1, metavar="N", help="context tensor parallelism (1)")
    add("--gen-tp", type=_number, default=1, metavar="N", help="generation tensor parallelism (1)")
    add("--pool-blocks", type=_number, default=0, metavar="N", help="blocks of this rank's KV pool")
    add("--seed", type=_number, default=1, metavar="N", help="order in which the pool hands out blocks (1)")
    add("--memory", choices=("dram", "vram"), default="dram",
        help="where the pool lies (dram); vram opens libcuda.so.1, or the library that BATON_CUDA_LIBRARY names")  # fmt: skip
    add("--device", type=_number, default=0, metavar="N", help="the GPU of vram, as the CUDA driver counts (0)")
    add("--vmm", type=_number, default=0, metavar="CHUNK_BYTES",
        help="vram made of chunks mapped side by side, not by one cuMemAlloc")  # fmt: skip
    add("--vmm-private", type=_number, default=0, metavar="0|1",
        help="whether other processes can not be given those chunks (0)")  # fmt: skip
    add("--patience-ms", type=_number, metavar="N",
        help="longest time from asking for a request to its last byte (kv_transfer_timeout_ms of the file, else "
        f"{_DEFAULT_PATIENCE_MS})")  # fmt: skip
    add("--sender-threads", type=_number, metavar="N",
        help="threads of a context rank that write, each one request at a time "
        f"(TRTLLM_KV_TRANSFER_NUM_THREADS, else {_DEFAULT_SENDER_THREADS})")  # fmt: skip
    return parser


def _number(word: str) -> int:
    """Small enough that no product of these leaves 64 bits unnoticed; argparse names the flag."""
    try:
        value = parse_number(word, "the value")
    except Failure as failure:
        raise argparse.ArgumentTypeError(failure.text) from failure
    return value


def _vram(flags: argparse.Namespace) -> Placement | None:
    placement = Placement(flags.device, flags.vmm, flags.vmm_private == 0)
    if flags.memory == "dram":
        _require(placement == Placement(), "--device, --vmm and --vmm-private are about --memory vram")
        return None
    is_private = not placement.chunks_shareable
    _require(not is_private or placement.chunk_bytes > 0, "--vmm-private is about the chunks of --vmm CHUNK_BYTES")
    return placement


def _require_this_runtime(shape: str, backend: str, runtime: str) -> None:
    if shape == "staged":
        raise Failure(
            Kind.USAGE,
            "--shape staged: the Python runtime writes pages straight from the pool and has no staging buffer; "
            "use --shape paged, or baton-engine-host, which plays the C++ runtime",
        )
    if backend.upper() not in ("", "NIXL", "DEFAULT"):
        raise Failure(Kind.USAGE, f"the Python transceiver supports the NIXL backend only, not {backend}")
    if runtime.upper() not in ("", "PYTHON", "AUTO"):
        raise Failure(
            Kind.USAGE,
            f"transceiver_runtime {runtime}: this host plays the Python runtime; use PYTHON or auto, or "
            "baton-engine-host for CPP",
        )


def _sender_threads_of_environment() -> int:
    word = os.environ.get("TRTLLM_KV_TRANSFER_NUM_THREADS", "")
    return parse_number(word, "TRTLLM_KV_TRANSFER_NUM_THREADS") if word else _DEFAULT_SENDER_THREADS


def _validate(options: Options, max_tokens_in_buffer: int) -> None:
    geometry = options.geometry
    for name, value in geometry.as_numbers().items():
        _require(value <= 1_000_000, f"{name} {value} is out of range")
    try:
        geometry.validate()
    except ValueError as error:
        raise Failure(Kind.USAGE, str(error)) from error
    ranks = geometry.context_tp if options.is_context else geometry.generation_tp
    _require(options.rank < ranks, f"--rank {options.rank} does not exist in {ranks} ranks")
    _require(0 < options.pool_blocks < 1 << 32, "--pool-blocks must be given, between 1 and 4294967295")
    _require(
        0 < options.sender_threads <= _MOST_SENDER_THREADS,
        f"--sender-threads is between 1 and {_MOST_SENDER_THREADS}, not {options.sender_threads}",
    )
    _require(
        max_tokens_in_buffer % geometry.tokens_per_block == 0,
        f"max_tokens_in_buffer {max_tokens_in_buffer} is not a multiple of tokens_per_block "
        f"{geometry.tokens_per_block}",
    )


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failure(Kind.USAGE, otherwise)
