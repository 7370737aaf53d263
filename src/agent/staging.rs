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

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::Instant;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use crate::config::{EngineSettings, GATHER_BELOW_MAX};
use crate::desc::{Descriptor, MemoryKind, PeerKey, SessionId, Span};
use crate::device::DeviceBuffer;
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::registry::open_copier;
use crate::fabric::{Credentials, Fabric, Link};
use crate::proto::endpoint::StagingSpec;
use crate::proto::grant::SlotPhase;

use super::core::Core;
use super::gpus::Gpus;
use super::open::gathers_below;
use super::registration::add_own_region;
use super::{Agent, NotRunning};

/// Bytes of a slot: enough for a network card to be at its best, little enough for copies and writes to overlap.
const SLOT_BYTES: u64 = GATHER_BELOW_MAX;
/// Slots: half for peers to write into, which eight peers have some of at a time, half to gather in.
const SLOTS: u64 = 64;

/// Staging memory. Whoever drops it knows that nobody touches it any more.
pub(super) enum Stock {
    /// In the host's memory.
    Host(HostPages),
    /// In a device's.
    Device(DeviceBuffer),
}

impl Stock {
    fn span(&self) -> Span {
        match self {
            Self::Host(pages) => pages.span(),
            Self::Device(buffer) => buffer.span(),
        }
    }
}

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
        Span { addr: self.base.as_ptr().expose_provenance() as u64, len: self.len.get() as u64 }
    }
}

impl Drop for HostPages {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, unmapped once; whoever drops it answers for there being no user.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len.get()) };
    }
}

/// The copiers for lanes that gather, one for each kind of memory that those carry.
pub(super) fn copiers(
    lanes: &[Box<dyn Fabric>],
    settings: &EngineSettings,
    gpus: &Gpus,
) -> Vec<Box<dyn Fabric>> {
    let gathers = |kind: &MemoryKind| {
        let mut limits = lanes.iter().map(|lane| lane.limits());
        limits.any(|limits| gathers_below(&limits, settings) > 0 && limits.kinds.contains(kind))
    };
    let wanted = [MemoryKind::Dram, MemoryKind::Vram].into_iter().filter(gathers);
    let opened = wanted.filter_map(|kind| {
        let opened = open_copier(kind, gpus.cuda(), settings.copy_threads);
        opened.map_err(|error| tracing::warn!(%kind, %error, "small pieces are not gathered")).ok()
    });
    opened.collect()
}

/// The kind of memory that a copier copies.
pub(super) fn kind_of(copier: &dyn Fabric) -> MemoryKind {
    copier.limits().kinds.first().copied().unwrap_or(MemoryKind::Dram)
}

impl Agent {
    /// Makes ready for GPU memory of devices that is about to be registered: a note of each, that cards may write to it, and
    /// staging memory on the first of all, where a lane gathers it.
    pub(super) fn ready_gpus(&self, ordinals: BTreeSet<u32>) -> Result<(), NotRunning> {
        for ordinal in &ordinals {
            if let Ok(device) = self.shared.gpus.device(*ordinal) {
                self.running_core()?.note_gpu(&device);
            } // otherwise registering says so
        }
        ordinals.first().map_or(Ok(()), |first| self.stage_gpu(*first))
    }

    fn stage_gpu(&self, ordinal: u32) -> Result<(), NotRunning> {
        if !self.running_core()?.wants_staging(MemoryKind::Vram) {
            return Ok(());
        }
        let allocated =
            self.shared.gpus.device(ordinal).and_then(|device| device.alloc((SLOTS * SLOT_BYTES) as usize));
        let mut core = self.running_core()?;
        if !core.wants_staging(MemoryKind::Vram) {
            return Ok(()); // another thread was as quick
        }
        let added = match allocated {
            Ok(buffer) => core.add_stock(MemoryKind::Vram, ordinal, Stock::Device(buffer)),
            Err(error) => Err(FabricError::new(
                "staging",
                error.call,
                error.kind(),
                error.code as i32,
                error.to_string(),
            )),
        };
        if let Err(error) = added {
            core.has_no_staging(MemoryKind::Vram, &error);
        }
        Ok(())
    }
}

impl Core {
    /// Gives the endpoint staging memory of the host's, where a lane gathers it.
    pub(super) fn stage_host(&mut self) {
        if !self.wants_staging(MemoryKind::Dram) {
            return;
        }
        let pages = HostPages::map(SLOTS * SLOT_BYTES);
        if let Err(error) = pages.and_then(|pages| self.add_stock(MemoryKind::Dram, 0, Stock::Host(pages))) {
            self.has_no_staging(MemoryKind::Dram, &error);
        }
    }

    /// What copies memory of a kind within our process.
    fn copier(&self, kind: MemoryKind) -> Option<usize> {
        (self.endpoint.lanes().len()..self.fabrics.len())
            .find(|index| kind_of(&*self.fabrics[*index]) == kind)
    }

    /// Whether there is a copier for a kind of memory, and no staging memory yet.
    fn wants_staging(&self, kind: MemoryKind) -> bool {
        self.copier(kind).is_some() && !self.staging.contains_key(&kind)
    }

    /// Not to be tried again.
    fn has_no_staging(&mut self, kind: MemoryKind, error: &FabricError) {
        tracing::warn!(%kind, %error, "there is no staging memory: small pieces are not gathered");
        self.staging.insert(kind, None);
    }

    fn add_stock(&mut self, kind: MemoryKind, device: u32, stock: Stock) -> Result<(), FabricError> {
        let Some(copier) = self.copier(kind) else { return Ok(()) };
        let memory = stock.span();
        let descriptor = Descriptor { addr: memory.addr, len: memory.len, device };
        // SAFETY: it stays mapped until the fabrics are closed and no peer can reach it any more; nobody references it.
        unsafe { add_own_region(self, kind, descriptor) }?;
        self.staging.insert(kind, Some(stock));
        let segments_per_copy = self.fabrics[copier].limits().segments_per_batch;
        let slot_bytes = SLOT_BYTES;
        self.endpoint.add_staging(StagingSpec {
            kind,
            device,
            copier,
            memory,
            slot_bytes,
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
    pub(super) fn reclaim_slots(&mut self, now: Instant) {
        let quiet = |session: &SessionId| !self.ghosts.may_be_about(*session);
        let sessions: Vec<_> = self.endpoint.holding_sessions().filter(quiet).collect();
        sessions.into_iter().for_each(|session| self.endpoint.handle_let_go(session, now));
    }

    /// Gives staging memory back, once the fabrics are closed; what a peer may still write into is left as it is.
    pub(super) fn free_staging(&mut self, nobody_writes: bool) {
        let all = std::mem::take(&mut self.staging);
        for (kind, stock) in all.into_iter().filter_map(|(kind, stock)| Some((kind, stock?))) {
            let quarantined = self.endpoint.slots(kind).of(SlotPhase::Quarantined);
            if quarantined > 0 || !nobody_writes {
                tracing::warn!(
                    %kind,
                    quarantined,
                    "staging memory is not given back: peers that were given up may still write into it"
                );
                std::mem::forget(stock);
            }
        }
    }
}
