"""The host finds what it looks for, and its memory is written only where it may be."""

from __future__ import annotations

import host
import pytest
import tensorrt_llm.tensorrt_llm_transfer_agent_binding as binding
from host import Pair

# cpp/nixl_classes.h: our own extent, and the pointer of a P4 host beyond it.
OWN_BYTES = 24
COUNTER = range(8, 16)
BOUNCE_POINTER = range(488, 496)


def test_the_module_has_what_the_host_asks_for() -> None:
    wanted = (
        "MemoryType MemoryDesc MemoryDescs TransferOp TransferRequest TransferStatus TransferState "
        "BaseTransferAgent AgentDesc BaseAgentConfig NixlTransferAgent"
    )
    assert [name for name in wanted.split() if not hasattr(binding, name)] == []


def test_a_status_is_of_the_hosts_class(pair: Pair) -> None:
    status = pair.write()
    assert type(status) is binding.NixlTransferStatus
    assert status.wait() == host.SUCCESS


@pytest.mark.skipif(not host.HAS_BOUNCE, reason="hosts before P4 have no bounce transport")
def test_the_bounce_transport_reads_as_off(pair: Pair) -> None:
    assert pair.ctx.bounce_enabled is False
    assert pair.write().wait() == host.SUCCESS
    assert pair.ctx.bounce_submit_count == 0


def test_only_our_own_bytes_of_the_hosts_memory_are_written() -> None:
    storage = binding.storage
    for memory in storage.life_in_poisoned_memory(host.config(host.unique("probe"))):
        written = {at - storage.MARGIN_BYTES for at, byte in enumerate(memory) if byte != storage.POISON}
        allowed = set(range(OWN_BYTES)) | (set(BOUNCE_POINTER) if host.HAS_BOUNCE else set())
        assert written <= allowed
        assert set(COUNTER) <= written


@pytest.mark.skipif(not host.HAS_BOUNCE, reason="read by hosts of P4 alone")
def test_what_inline_functions_of_the_host_read_is_zero() -> None:
    storage = binding.storage
    constructed, _ = storage.life_in_poisoned_memory(host.config(host.unique("probe")))
    for span in (COUNTER, BOUNCE_POINTER):
        assert all(constructed[storage.MARGIN_BYTES + at] == 0 for at in span)


def test_an_agent_may_live_on_the_hosts_heap() -> None:
    binding.storage.life_on_the_heap(host.config(host.unique("heap")))


def test_both_ways_to_an_agent_share_one_engine(lane: str) -> None:
    name = host.unique("factory")
    made = binding.make_transfer_agent("nixl", host.config(name))
    by_class = host.agent(host.unique("class"))
    source, target = host.pattern(4096, seed=3), host.pattern(4096, seed=4)
    by_class.register_memory(host.descs(source))
    made.register_memory(host.descs(target))
    host.load(by_class, name, made)
    status = host.submit(by_class, host.WRITE, host.descs(source), host.descs(target), name)
    assert status.wait() == host.SUCCESS
    assert (source == target).all()
    libraries = [line.split()[-1] for line in open("/proc/self/maps") if "nixl_wrapper" in line]
    assert len(set(libraries)) == 1
