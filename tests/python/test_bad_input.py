"""Bad input is an exception that says what is wrong and what to do, the same by either way to an agent."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable

import host
import numpy as np
import pytest
from host import Pair

binding = host.binding
Agent = binding.BaseTransferAgent
Mistake = Callable[[Agent, Pair], object]

FACTORY_NAME = host.unique("ctx-by-factory")
STRANGE = np.zeros(4096, dtype=np.uint8)  # registered by nobody


def _write(agent: Agent, src: binding.MemoryDescs, dst: binding.MemoryDescs, peer: str) -> object:
    return host.submit(agent, host.WRITE, src, dst, peer)


def _read_only() -> np.ndarray:
    file = tempfile.TemporaryFile()
    file.write(bytes(8192))
    file.flush()
    return np.frombuffer(mmap.mmap(file.fileno(), 8192, access=mmap.ACCESS_READ), np.uint8)


READ_ONLY = _read_only()

MISTAKES: dict[str, tuple[Mistake, str]] = {
    "no such peer": (
        lambda a, p: _write(a, host.descs(p.src), host.descs(p.dst), "nobody"),
        "peer 'nobody' is not loaded: call loadRemoteAgent first",
    ),
    "notify a stranger": (
        lambda a, p: a.notify_sync_message("nobody", "hello"),
        "peer 'nobody' is not loaded: call loadRemoteAgent first",
    ),
    "our array is not registered": (
        lambda a, p: _write(a, host.descs(STRANGE), host.descs(p.dst[:4096]), p.gen_name),
        "local descriptor 0 (DRAM {STRANGE}+4096) is not inside one registered region: no registered region "
        "touches it; register the memory with this agent first",
    ),
    "the peer's array is not registered": (
        lambda a, p: _write(a, host.descs(p.src[:4096]), host.descs(STRANGE), p.gen_name),
        "remote descriptor 0 (DRAM {STRANGE}+4096) is not inside one registered region: no registered region "
        "touches it; register the memory on the peer, then load the peer's metadata again",
    ),
    "lengths differ": (
        lambda a, p: _write(a, host.descs(p.src[:100]), host.descs(p.dst[:200]), p.gen_name),
        "differ in length: a pair is one copy",
    ),
    "counts differ": (
        lambda a, p: _write(a, host.descs(p.src), host.descs(p.dst[:9], p.dst[9:]), p.gen_name),
        "1 local descriptors but 2 remote ones: they are paired one to one",
    ),
    "no descriptors": (
        lambda a, p: _write(a, host.descs(), host.descs(), p.gen_name),
        "the transfer names no memory, both descriptor lists are empty",
    ),
    "GPU memory without CUDA": (
        lambda a, p: a.register_memory(host.descs(STRANGE, kind=host.VRAM)),
        "descriptor 0 (VRAM {STRANGE}+4096): GPU memory needs CUDA: ",
    ),
    "GPU memory in a transfer": (
        lambda a, p: _write(
            a, host.descs(p.src, kind=host.VRAM), host.descs(p.dst, kind=host.VRAM), p.gen_name
        ),
        " can WRITE from or to its VRAM with our VRAM (",
    ),
    "a read-only array": (
        lambda a, p: a.register_memory(host.descs(READ_ONLY)),
        "descriptor 0 ({READ_ONLY}+8192): the memory at {READ_ONLY} is mapped read-only and nothing could land there: "
        "register a buffer that may be written",
    ),
    "an array that is gone": (
        lambda a, p: a.register_memory(binding.MemoryDescs(host.DRAM, [(4096, 64, 0)])),
        "no memory is mapped at 0x1000: the buffer is gone, or the length is too large",
    ),
    "an array without bytes": (
        lambda a, p: a.register_memory(host.descs(STRANGE[:0])),
        "has zero length: leave it out",
    ),
    "an array that wraps": (
        lambda a, p: a.register_memory(binding.MemoryDescs(host.DRAM, [(2**64 - 8, 64, 0)])),
        "runs past the end of the address space",
    ),
    "an address that is none": (
        lambda a, p: a.load_remote_agent_by_connection("gen", "nonsense"),
        "cannot load agent 'gen': connection info \"nonsense\" has no port: write ip:port, or [ipv6]:port",
    ),
    "an address where nobody listens": (
        lambda a, p: a.load_remote_agent_by_connection("gen", "127.0.0.1:1"),
        "cannot load agent 'gen' from 127.0.0.1:1: Connection refused",
    ),
    "another agent's desc": (
        lambda a, p: a.load_remote_agent("gen", p.gen.get_local_agent_desc()),
        "cannot load agent 'gen': the blob is that of agent '{GEN}'",
    ),
    "a garbage desc": (
        lambda a, p: a.load_remote_agent("gen", binding.AgentDesc(b"garbage")),
        "cannot load agent 'gen': not a NIXL metadata document",
    ),
    "an empty desc": (
        lambda a, p: a.load_remote_agent("gen", binding.AgentDesc(b"")),
        "cannot load agent 'gen': not a NIXL metadata document",
    ),
    "a desc of a later age": (
        lambda a, p: a.load_remote_agent("gen", binding.AgentDesc(_as_serialised(p))),
        "it is a whole AgentDesc, serialised by TensorRT-LLM 1.3.0rc20 or later, where this side expects what is in "
        "it: run the same release of TensorRT-LLM on both sides",
    ),
}


def _as_serialised(pair: Pair) -> bytes:
    """What a host of P3 would send, spelled out: ages before it take it for the blob."""
    blob = pair.gen.get_local_agent_desc().backend_agent_desc
    return len(blob).to_bytes(8, "little") + blob + bytes(8)


@pytest.fixture(scope="module")
def pair() -> Pair:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRTLLM_NIXL_INTERFACE", "lo")
        return Pair()


@pytest.fixture(scope="module")
def by_factory(pair: Pair) -> Agent:
    """An agent as C++ code gets it, in the same position."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRTLLM_NIXL_INTERFACE", "lo")
        agent = binding.make_transfer_agent("nixl", host.config(FACTORY_NAME))
    agent.register_memory(host.descs(pair.src))
    host.load(agent, pair.gen_name, pair.gen)
    return agent


def _text(mistake: Mistake, agent: Agent, pair: Pair) -> str:
    with pytest.raises(RuntimeError) as caught:
        mistake(agent, pair)
    return str(caught.value)


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_named(pair: Pair, case: str) -> None:
    mistake, expected = MISTAKES[case]
    for name, value in (
        ("STRANGE", hex(STRANGE.ctypes.data)),
        ("READ_ONLY", hex(READ_ONLY.ctypes.data)),
        ("GEN", pair.gen_name),
    ):
        expected = expected.replace("{" + name + "}", value)
    text = _text(mistake, pair.ctx, pair)
    assert expected in text
    assert text.startswith("[baton] ")


@pytest.mark.parametrize("case", MISTAKES)
def test_the_text_is_that_of_the_cpp_seam(pair: Pair, by_factory: Agent, case: str) -> None:
    mistake, _ = MISTAKES[case]
    of_factory = _text(mistake, by_factory, pair).replace(FACTORY_NAME, pair.ctx_name)
    assert _text(mistake, pair.ctx, pair) == of_factory


def test_mistakes_leave_the_agents_in_use(pair: Pair) -> None:
    for mistake, _ in MISTAKES.values():
        _text(mistake, pair.ctx, pair)
    assert pair.write().wait() == host.SUCCESS
    assert (pair.dst == pair.src).all()


def test_every_truncation_of_a_desc_is_an_error(pair: Pair) -> None:
    blob = pair.gen.get_local_agent_desc().backend_agent_desc
    for length in range(len(blob)):
        with pytest.raises(RuntimeError, match=f"cannot load agent '{pair.gen_name}'"):
            pair.ctx.load_remote_agent(pair.gen_name, binding.AgentDesc(blob[:length]))


def test_every_damaged_byte_of_a_desc_is_an_error_or_harmless(pair: Pair) -> None:
    agent, blob = host.agent(host.unique("ctx")), pair.gen.get_local_agent_desc().backend_agent_desc
    for at in range(0, len(blob), 3):
        damaged = blob[:at] + bytes([blob[at] ^ 0xFF]) + blob[at + 1 :]
        try:
            agent.load_remote_agent(pair.gen_name, binding.AgentDesc(damaged))
            agent.invalidate_remote_agent(pair.gen_name)
        except RuntimeError as error:
            assert "cannot load agent" in str(error)


@pytest.mark.skipif(not host.HAS_SERIALIZE, reason="hosts before P3 pass the blob itself")
def test_a_truncated_serialised_desc_is_the_hosts_error(pair: Pair) -> None:
    data = pair.gen.get_local_agent_desc().serialize()
    for length in range(0, len(data), 5):
        with pytest.raises(RuntimeError, match="AgentDesc: ends too early"):
            binding.AgentDesc.deserialize(data[:length])


@pytest.mark.parametrize("name", ["", "x" * 1025])
def test_an_agent_needs_a_name(name: str) -> None:
    with pytest.raises(RuntimeError, match=f"an agent name of {len(name)} bytes: it must have 1 to 1024"):
        host.agent(name)


def test_a_flag_of_numpy_protects_nothing(pair: Pair) -> None:
    """`writeable` is Python's own: no seam shows it to the library, and the memory can be written."""
    flagged = np.zeros(4096, dtype=np.uint8)
    flagged.flags.writeable = False
    pair.gen.register_memory(host.descs(flagged))
    while not pair.ctx.check_remote_descs(pair.gen_name, host.descs(flagged)):
        pass  # the announcement is on its way; the test's timeout bounds it
    source = host.descs(pair.src[:4096])
    assert _write(pair.ctx, source, host.descs(flagged), pair.gen_name).wait() == host.SUCCESS
    assert (flagged == pair.src[:4096]).all()
    pair.gen.deregister_memory(host.descs(flagged))
