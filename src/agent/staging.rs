//! The agent's staging memory: what writes of many small pieces pass through on a lane that gathers them.
//!
//! ```text
//!   fabrics   local  ucx  stream | copiers: one for each kind of staging memory, linked to our own process
//!             lanes, known to peers   behind the lanes, known to the endpoint alone
//! ```
//!
//! The memory is registered with every fabric, as the host's is, and announced to all peers. What is gathered and scattered
//! is copied by a fabric of its own that pulls from our own process, so that it has its queue, its turns and its threads.
#![allow(unsafe_code)] // memory of our own, and the promise about it to the fabrics

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::config::EngineSettings;
use crate::desc::{Descriptor, MemoryKind, PeerKey, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::local::{LocalConfig, LocalFabric};
use crate::fabric::{Credentials, Fabric, Link};
use crate::proto::endpoint::StagingSpec;
use crate::proto::grant::SlotPhase;

use super::core::Core;
use super::registration::add_own_region;

/// Bytes of a slot: enough for a network card to be at its best, little enough for copies and writes to overlap.
const SLOT_BYTES: u64 = 512 << 10;
/// Slots: half for peers to write into, which eight peers have some of at a time, half to gather in.
const SLOTS: u64 = 64;

/// Host memory of whole pages. Whoever drops it knows that nobody touches it any more.
#[derive(Debug)]
pub(super) struct HostPages {
    base: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: it is an address and a length; nothing is read or written through it.
unsafe impl Send for HostPages {}

impl HostPages {
    /// So many bytes, all zero, which take no memory before they are touched.
    fn map(len: u64) -> Result<Self, FabricError> {
        let failed =
            |code, what: String| FabricError::new("staging", "mmap", FabricErrorKind::NoResource, code, what);
        let len = usize::try_from(len).ok().and_then(NonZeroUsize::new);
        let len = len.ok_or_else(|| failed(0, "no such length".into()))?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | MapFlags::NORESERVE);
        // SAFETY: a new mapping at an address that the kernel chooses takes nothing from anybody.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), len.get(), prot, flags) }
            .map_err(|errno| failed(errno.raw_os_error(), format!("{len} bytes")))?;
        let base = NonNull::new(base.cast()).ok_or_else(|| failed(0, "mapped at 0".into()))?;
        Ok(Self { base, len })
    }

    fn span(&self) -> Span {
        Span { addr: self.base.as_ptr().addr() as u64, len: self.len.get() as u64 }
    }
}

impl Drop for HostPages {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, unmapped once; whoever drops it answers for there being no user.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len.get()) };
    }
}

/// The copiers for lanes that gather, each with the kind of memory it is for; none where no lane does.
pub(super) fn copiers(lanes: &[Box<dyn Fabric>], settings: &EngineSettings) -> Vec<Box<dyn Fabric>> {
    let gathers = |kind| {
        lanes
            .iter()
            .map(|lane| lane.limits())
            .any(|limits| super::open::gathers_below(&limits, settings) > 0 && limits.kinds.contains(&kind))
    };
    if !gathers(MemoryKind::Dram) {
        return Vec::new();
    }
    match LocalFabric::open(LocalConfig { copiers: settings.copy_threads, ..LocalConfig::default() }) {
        Ok(fabric) => vec![Box::new(fabric)],
        Err(error) => {
            tracing::warn!(%error, "small pieces are not gathered");
            Vec::new()
        }
    }
}

impl Core {
    /// Gives the endpoint staging memory for each copier.
    pub(super) fn add_staging(&mut self) {
        for copier in self.endpoint.lanes().len()..self.fabrics.len() {
            if let Err(error) = self.add_staging_of(copier) {
                tracing::warn!(%error, "there is no staging memory: small pieces are not gathered");
            }
        }
    }

    fn add_staging_of(&mut self, copier: usize) -> Result<(), FabricError> {
        let limits = self.fabrics[copier].limits();
        let kind = MemoryKind::Dram;
        let pages = HostPages::map(SLOTS * SLOT_BYTES)?;
        let memory = pages.span();
        let descriptor = Descriptor { addr: memory.addr, len: memory.len, device: 0 };
        // SAFETY: it stays mapped until the fabrics are closed and no peer can reach it any more; nobody references it.
        unsafe { add_own_region(self, kind, descriptor) }?;
        self.staging.push(pages);
        let segments_per_copy = limits.segments_per_batch;
        self.endpoint.add_staging(StagingSpec {
            kind,
            copier,
            memory,
            slot_bytes: SLOT_BYTES,
            segments_per_copy,
        });
        Ok(())
    }

    /// Links the copiers to our own process, for the transfers with a peer: they end with its link.
    pub(super) fn link_copiers(&mut self, key: PeerKey, link_id: [u8; 16]) {
        let pid = rustix::process::getpid().as_raw_pid();
        let credentials = Some(Credentials { pid, uid: rustix::process::geteuid().as_raw() });
        let lanes = self.endpoint.lanes().len();
        for copier in &mut self.fabrics[lanes..] {
            let address = copier.address();
            copier.connect(key, Link { address, link_id, credentials, keys: None });
        }
    }

    /// Hands slots out again that peers held who have since been proven to have let go of us.
    pub(super) fn reclaim_slots(&mut self) {
        let quiet = |session: &_| !self.ghosts.may_be_about(*session);
        let sessions: Vec<_> = self.endpoint.holding_sessions().filter(quiet).collect();
        sessions.into_iter().for_each(|session| self.endpoint.handle_let_go(session));
    }

    /// Gives staging memory back, once the fabrics are closed; what a peer may still write into is left as it is.
    pub(super) fn free_staging(&mut self, nobody_writes: bool) {
        let quarantined = self.endpoint.slots(MemoryKind::Dram).of(SlotPhase::Quarantined);
        let staging = std::mem::take(&mut self.staging);
        if quarantined > 0 || !nobody_writes {
            tracing::warn!(
                quarantined,
                "staging memory is not given back: peers that were given up may still write into it"
            );
            staging.into_iter().for_each(std::mem::forget);
        }
    }
}
