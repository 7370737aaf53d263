//! Copies out of another process's memory: the only place of this fabric that says `unsafe`.
//!
//! [`Regions`] are what may be written to. A [`Call`] borrows them for reading while it is put together and done, so no
//! region is deregistered between the check of a vector and the copy into it: `deregister` waits for the calls under way
//! (each is one system call of a bounded size). Each call reads the peer's nonce last: the kernel copies vectors in
//! order, so an intact nonce proves that the bytes before it came from the process we think, with its fabric still open.
//! Nothing is allocated once a [`Puller`] is built. Copies within this process are calls like others, done by the processor.
#![allow(unsafe_code)]

use libc::{iovec, pid_t, process_vm_readv};
use parking_lot::{RwLock, RwLockReadGuard};
use rustix::io::Errno;

use crate::desc::{RegionKey, Segment, Span};
use crate::error::FabricError;
use crate::fabric::{Batch, LastHit, Region, RegionSet};

use super::nonce::{NONCE_BYTES, NonceAt};

/// Vectors on either side of one call (`UIO_MAXIOV`).
const VECTORS_MAX: usize = 1024;

/// `struct iovec` with an address instead of a pointer, so that it can cross threads while its puller is not in use.
#[derive(Clone, Copy)]
#[repr(C)]
struct Vector {
    addr: usize,
    len: usize,
}

const _: () =
    assert!(size_of::<Vector>() == size_of::<iovec>() && align_of::<Vector>() == align_of::<iovec>());

/// What one call brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pulled {
    /// Bytes of the pushed segments that were copied, from the front.
    pub bytes: u64,
    /// Whether the nonce came after them, intact.
    pub proven: bool,
}

/// Registered regions: possible destinations.
#[derive(Debug, Default)]
pub(super) struct Regions(RwLock<RegionSet>);

impl Regions {
    /// Makes a region a possible destination.
    ///
    /// # Safety
    /// Until [`Regions::deregister`] returns for its key, the region is mapped and writable, and nobody holds a Rust
    /// reference to it.
    pub unsafe fn register(&self, region: Region) {
        self.0.write().insert(region);
    }

    /// Forgets a region, once no call may be writing to it; unknown keys are ignored.
    pub fn deregister(&self, key: RegionKey) {
        self.0.write().remove(key);
    }

    /// Why a batch cannot be taken, by its own faults.
    pub fn check(&self, batch: &Batch, segments_max: usize) -> Result<(), FabricError> {
        self.0.read().check_pull("local", batch, segments_max)
    }
}

/// Room for the calls of one thread.
pub(super) struct Puller {
    local: Vec<Vector>,
    remote: Vec<Vector>,
    proof: Box<[u8; NONCE_BYTES]>,
}

impl Puller {
    /// Room for the largest call.
    pub fn new() -> Self {
        Self {
            local: Vec::with_capacity(VECTORS_MAX),
            remote: Vec::with_capacity(VECTORS_MAX),
            proof: Box::new([0; NONCE_BYTES]),
        }
    }

    /// A call with nothing in it.
    pub fn call<'a>(&'a mut self, regions: &'a Regions) -> Call<'a> {
        self.local.clear();
        self.remote.clear();
        let held = Held { regions: regions.0.read(), last_hit: LastHit::default() };
        Call { puller: self, held, bytes: 0 }
    }
}

/// A call that is being put together. While it lives, no region is deregistered.
pub(super) struct Call<'a> {
    puller: &'a mut Puller,
    held: Held<'a>,
    bytes: u64,
}

impl Call<'_> {
    /// Whether no further segment fits into it.
    pub fn is_full(&self) -> bool {
        self.puller.local.len() == VECTORS_MAX - 1 // one is the nonce's
    }

    /// Adds a copy; false, and nothing added, where its destination is in no region or the call is full.
    pub fn push(&mut self, segment: Segment) -> bool {
        if self.is_full() || !self.held.covers(Span { addr: segment.dst, len: segment.len }) {
            return false;
        }
        let len = segment.len as usize;
        self.puller.local.push(Vector { addr: segment.dst as usize, len });
        self.puller.remote.push(Vector { addr: segment.src as usize, len });
        self.bytes += segment.len;
        true
    }

    /// Performs it with sources in our own memory, by the processor. Nothing is copied, and the span told, where a source lies
    /// in no region.
    pub fn copy_within(mut self) -> Result<(), Span> {
        let Self { puller, held, .. } = &mut self;
        let span = |vector: &Vector| Span { addr: vector.addr as u64, len: vector.len as u64 };
        if let Some(stray) = puller.remote.iter().map(span).find(|source| !held.covers(*source)) {
            return Err(stray);
        }
        for (to, from) in puller.local.iter().zip(&puller.remote) {
            let src: *const u8 = std::ptr::with_exposed_provenance(from.addr);
            let dst: *mut u8 = std::ptr::with_exposed_provenance_mut(to.addr);
            // SAFETY: both are as long, and lie in registered regions, which `held` keeps registered: mapped, readable
            // and writable, without a Rust reference, as `register`'s caller vouches. They may overlap.
            unsafe { src.copy_to(dst, from.len) }
        }
        Ok(())
    }

    /// Performs it, with `nonce` last. One system call, whatever it brings.
    pub fn pull(self, pid: pid_t, nonce: &NonceAt) -> Result<Pulled, Errno> {
        let Puller { local, remote, proof } = self.puller;
        **proof = [0; NONCE_BYTES];
        local.push(Vector { addr: proof.as_mut_ptr() as usize, len: NONCE_BYTES });
        remote.push(Vector { addr: nonce.addr as usize, len: NONCE_BYTES });
        // SAFETY: both pointers are to as many `iovec`s as their counts say (`Vector` has its layout, asserted above),
        // and outlive the call. Every local vector is writable memory without a Rust reference to it: all but the last
        // passed `covers` against the regions that `self.held` still borrows, for which `register`'s caller vouches, and
        // the last is `proof`, which is borrowed mutably here and used by nothing else. Remote vectors are only read, in
        // the other process, where the kernel checks them.
        let copied = unsafe {
            process_vm_readv(
                pid,
                local.as_ptr().cast(),
                local.len() as libc::c_ulong,
                remote.as_ptr().cast(),
                remote.len() as libc::c_ulong,
                0,
            )
        };
        let copied = u64::try_from(copied).map_err(|_| last_errno())?;
        let proven = copied == self.bytes + NONCE_BYTES as u64 && **proof == nonce.value;
        Ok(Pulled { bytes: copied.min(self.bytes), proven })
    }
}

/// The regions as they are for the life of this, and where the last span was.
struct Held<'a> {
    regions: RwLockReadGuard<'a, RegionSet>,
    last_hit: LastHit,
}

impl Held<'_> {
    /// Whether one region holds all of `span`.
    fn covers(&mut self, span: Span) -> bool {
        self.regions.covers(span, &mut self.last_hit)
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::MemoryKind;

    fn regions() -> Regions {
        let span = Span { addr: 0x1000, len: 0x1000 };
        let regions = Regions::default();
        let region = Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span };
        // SAFETY: nothing is pulled in these tests.
        unsafe { regions.register(region) };
        regions
    }

    #[test]
    fn pushes_only_what_a_region_covers() {
        let (regions, mut puller) = (regions(), Puller::new());
        let mut call = puller.call(&regions);
        let mut push = |dst, len| call.push(Segment { src: 0, dst, len });
        assert!(push(0x1000, 0x1000));
        assert!(push(0x1fff, 1));
        for (dst, len) in [(0xfff, 1), (0x1000, 0x1001), (0x2000, 1), (u64::MAX, 1), (0x1800, u64::MAX)] {
            assert!(!push(dst, len), "{dst:#x}+{len}");
        }
        drop(call);
        regions.deregister(RegionKey(1));
        assert!(!puller.call(&regions).push(Segment { src: 0, dst: 0x1000, len: 1 }));
    }

    #[test]
    fn within_a_process_sources_are_registered_too() {
        let mut memory = [1_u8, 2, 3, 4, 0, 0, 0, 0];
        let (start, regions) = (memory.as_mut_ptr().expose_provenance() as u64, Regions::default());
        let span = Span { addr: start, len: 8 };
        // SAFETY: it is mapped and writable until it is deregistered, and not looked at before.
        unsafe { regions.register(Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span }) };
        let mut puller = Puller::new();
        let mut copied = |src, dst, len| {
            let mut call = puller.call(&regions);
            assert!(call.push(Segment { src, dst, len }));
            call.copy_within()
        };
        assert_eq!(copied(start, start + 4, 3), Ok(()));
        assert_eq!(copied(start + 6, start + 4, 3), Err(Span { addr: start + 6, len: 3 }));
        regions.deregister(RegionKey(1));
        assert_eq!(memory, [1, 2, 3, 4, 1, 2, 3, 0]);
    }

    #[test]
    fn keeps_room_for_the_nonce() {
        let (regions, mut puller) = (regions(), Puller::new());
        let mut call = puller.call(&regions);
        let taken = (0..2000).filter(|_| call.push(Segment { src: 0, dst: 0x1000, len: 1 })).count();
        assert_eq!(taken, VECTORS_MAX - 1);
        assert!(call.is_full());
    }
}
