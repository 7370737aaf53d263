//! The suite on streams that carry GPU memory, at one end or at both.

use baton::desc::MemoryKind;
use baton::fabric::stream::StreamFabric;
use baton::fabric::{Fabric, Link};

use super::{Configured, Sealed, Tcp4, Unix};
use crate::gpu;
use crate::harness::{Harness, Skip};

/// `INNER`'s streams, with GPU memory at nodes of an even number, of an odd one.
struct Vram<INNER, const EVEN: bool, const ODD: bool>(INNER);

impl<INNER: Harness + Configured, const EVEN: bool, const ODD: bool> Harness for Vram<INNER, EVEN, ODD> {
    const KINDS: [MemoryKind; 2] = [kind(EVEN), kind(ODD)];

    fn set_up() -> Result<Self, Skip> {
        gpu::cuda()?;
        INNER::set_up().map(Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        let cuda = gpu::cuda().ok().expect("the set-up has seen that there is a driver");
        Box::new(StreamFabric::open(INNER::config(), Some(cuda)).expect("a stream opens on loopback"))
    }

    fn link(&self, target: &dyn Fabric, link_id: [u8; 16]) -> Link {
        self.0.link(target, link_id)
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        self.0.bad_links(good)
    }
}

const fn kind(is_vram: bool) -> MemoryKind {
    if is_vram { MemoryKind::Vram } else { MemoryKind::Dram }
}

conformance!(unix, Vram<Unix, true, true>);
conformance!(unix_to_dram, Vram<Unix, true, false>);
conformance!(unix_from_dram, Vram<Unix, false, true>);
conformance!(unix_dram, Vram<Unix, false, false>);
conformance!(tcp, Vram<Tcp4, true, true>);
conformance!(tcp_to_dram, Vram<Tcp4, true, false>);
conformance!(sealed_unix, Sealed<Vram<Unix, true, true>>);
conformance!(sealed_tcp_from_dram, Sealed<Vram<Tcp4, false, true>>);
