//! Copies out of another process's memory: the only place of this fabric that says `unsafe`.
//!
//! A [`Puller`] owns the registered regions and the vectors of the call that is being put together. Every vector it
//! holds lies inside a registered region, which is what makes [`Puller::pull`] safe to call. Each call reads the
//! peer's nonce last: the kernel copies vectors in order, so an intact nonce proves that the bytes before it
//! came from the process we think, with its fabric still open. Nothing is allocated once it is built.
#![allow(unsafe_code)]

use libc::{iovec, pid_t, process_vm_readv};
use rustix::io::Errno;

use crate::desc::{RegionKey, Segment, Span};
use crate::fabric::{Region, RegionSet};

use super::nonce::{NONCE_BYTES, NonceAt};

/// Vectors on either side of one call (`UIO_MAXIOV`).
const VECTORS_MAX: usize = 1024;

/// `struct iovec` with an address instead of a pointer, so that it can cross threads with its fabric.
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

/// Registered regions and the next call.
pub(super) struct Puller {
    regions: RegionSet,
    last_hit: Span,
    local: Vec<Vector>,
    remote: Vec<Vector>,
    bytes: u64,
    proof: Box<[u8; NONCE_BYTES]>,
}

impl Puller {
    /// No regions, no vectors.
    pub fn new() -> Self {
        Self {
            regions: RegionSet::default(),
            last_hit: NOWHERE,
            local: Vec::with_capacity(VECTORS_MAX),
            remote: Vec::with_capacity(VECTORS_MAX),
            bytes: 0,
            proof: Box::new([0; NONCE_BYTES]),
        }
    }

    /// Makes a region a possible destination.
    ///
    /// # Safety
    /// Until [`Puller::deregister`] returns for its key, the region is mapped and writable, and nobody holds a Rust
    /// reference to it.
    pub unsafe fn register(&mut self, region: Region) {
        self.regions.insert(region);
    }

    /// Forgets a region; unknown keys are ignored. Vectors that were pushed and not pulled are dropped.
    pub fn deregister(&mut self, key: RegionKey) {
        self.regions.remove(key);
        self.last_hit = NOWHERE;
        self.clear();
    }

    /// Whether one region holds all of `span`. Looks first where the last span was.
    pub fn covers(&mut self, span: Span) -> bool {
        if within(span, self.last_hit) {
            return true;
        }
        let hit = self.regions.containing(span).map(|region| region.span);
        self.last_hit = hit.unwrap_or(self.last_hit);
        hit.is_some()
    }

    /// Drops what was pushed and not pulled.
    pub fn clear(&mut self) {
        self.local.clear();
        self.remote.clear();
        self.bytes = 0;
    }

    /// Whether no further segment fits into this call.
    pub fn is_full(&self) -> bool {
        self.local.len() == VECTORS_MAX - 1 // one is the nonce's
    }

    /// Adds a copy to the call; false, and nothing added, where its destination is in no region or the call is full.
    pub fn push(&mut self, segment: Segment) -> bool {
        if self.is_full() || !self.covers(Span { addr: segment.dst, len: segment.len }) {
            return false;
        }
        let len = segment.len as usize;
        self.local.push(Vector { addr: segment.dst as usize, len });
        self.remote.push(Vector { addr: segment.src as usize, len });
        self.bytes += segment.len;
        true
    }

    /// Performs the call on what was pushed, with `nonce` last, and clears it. One system call, whatever it brings.
    pub fn pull(&mut self, pid: pid_t, nonce: &NonceAt) -> Result<Pulled, Errno> {
        *self.proof = [0; NONCE_BYTES];
        self.local.push(Vector { addr: self.proof.as_mut_ptr() as usize, len: NONCE_BYTES });
        self.remote.push(Vector { addr: nonce.addr as usize, len: NONCE_BYTES });
        // SAFETY: both pointers are to as many `iovec`s as their counts say (`Vector` has its layout, asserted above),
        // and outlive the call. Every local vector is writable memory without a Rust reference to it: all but
        // the last passed `covers` since the regions last changed (`deregister` clears them), for which `register`'s
        // caller vouches, and the last is `self.proof`, which is borrowed mutably here and used by nothing else. Remote
        // vectors are only read, in the other process, where the kernel checks them.
        let copied = unsafe {
            process_vm_readv(
                pid,
                self.local.as_ptr().cast(),
                self.local.len() as libc::c_ulong,
                self.remote.as_ptr().cast(),
                self.remote.len() as libc::c_ulong,
                0,
            )
        };
        let wanted = self.bytes;
        self.clear();
        let copied = u64::try_from(copied).map_err(|_| last_errno())?;
        let proven = copied == wanted + NONCE_BYTES as u64 && *self.proof == nonce.value;
        Ok(Pulled { bytes: copied.min(wanted), proven })
    }
}

/// A span that no other lies in.
const NOWHERE: Span = Span { addr: 0, len: 0 };

fn within(span: Span, outer: Span) -> bool {
    span.addr >= outer.addr
        && span.len <= outer.len
        && span.addr - outer.addr <= outer.len - span.len
        && outer.len > 0
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::MemoryKind;

    fn region(addr: u64, len: u64) -> Region {
        Region { key: crate::desc::RegionKey(1), kind: MemoryKind::Dram, device: 0, span: Span { addr, len } }
    }

    #[test]
    fn pushes_only_what_a_region_covers() {
        let mut puller = Puller::new();
        // SAFETY: nothing is pulled in this test.
        unsafe { puller.register(region(0x1000, 0x1000)) };
        let push = |puller: &mut Puller, dst, len| puller.push(Segment { src: 0, dst, len });
        assert!(push(&mut puller, 0x1000, 0x1000));
        assert!(push(&mut puller, 0x1fff, 1));
        for (dst, len) in [(0xfff, 1), (0x1000, 0x1001), (0x2000, 1), (u64::MAX, 1), (0x1800, u64::MAX)] {
            assert!(!push(&mut puller, dst, len), "{dst:#x}+{len}");
        }
        puller.deregister(crate::desc::RegionKey(1));
        assert!(!push(&mut puller, 0x1000, 1), "the last hit outlives its region");
    }

    #[test]
    fn keeps_room_for_the_nonce() {
        let mut puller = Puller::new();
        // SAFETY: nothing is pulled in this test.
        unsafe { puller.register(region(0x1000, 0x1000)) };
        let taken = (0..2000).filter(|_| puller.push(Segment { src: 0, dst: 0x1000, len: 1 })).count();
        assert_eq!(taken, VECTORS_MAX - 1);
        assert!(puller.is_full());
    }
}
