//! Local memory that UCX may touch: registered regions, and the small areas that prove a link.
//!
//! [`Vouched`] is the proof that somebody answers for a span: it comes only from here, so the engine can take
//! it and needs no check of its own.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{HashMap, HashSet};
use std::ptr::NonNull;
use std::sync::Arc;

use parking_lot::Mutex;

use super::NAME;
use super::engine::{Context, Mapping};
use super::kinds::Kinds;
use crate::desc::{MemoryKind, Region, RegionKey, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Pinning, RegionSet};

/// A span of local memory that is mapped, readable and writable while UCX uses it, and that no Rust reference
/// points into: the one who registered it, or a [`Scratch`], says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vouched(Span, MemoryKind);

impl Vouched {
    pub fn addr(self) -> u64 {
        self.0.addr
    }

    pub fn len(self) -> u64 {
        self.0.len
    }

    pub fn kind(self) -> MemoryKind {
        self.1
    }

    /// Cut into pieces of at most `most` bytes, each with its offset.
    pub fn pieces(self, most: u64) -> impl Iterator<Item = (u64, Self)> {
        let Self(Span { addr, len }, kind) = self;
        let piece = move |offset| Self(Span { addr: addr + offset, len: most.min(len - offset) }, kind);
        (0..len).step_by(most as usize).map(move |offset| (offset, piece(offset)))
    }
}

/// The regions that UCX knows, registered or about to be: what registering threads share with the fabric.
pub(super) struct Pins {
    context: Arc<Context>,
    kinds: Kinds,
    mappings: Mutex<HashMap<RegionKey, Mapping>>,
}

impl Pins {
    pub fn new(context: Arc<Context>, kinds: Kinds) -> Self {
        Self { context, kinds, mappings: Mutex::default() }
    }

    /// The key bytes of a pinned region; `None` where it is not pinned.
    fn pack(&self, key: RegionKey) -> Option<Result<Vec<u8>, FabricError>> {
        self.mappings.lock().get(&key).map(Mapping::pack)
    }
}

impl Pinning for Pins {
    unsafe fn pin(&self, region: &Region) -> Result<(), FabricError> {
        let refuse = |kind, detail: String| Err(FabricError::new(NAME, "register", kind, 0, detail));
        let taken = || format!("region {} is registered already", region.key);
        self.kinds.check(region)?;
        if region.span.len == 0 || region.span.end().is_none() {
            return refuse(FabricErrorKind::InvalidRegion, format!("{} is no memory", region.span));
        }
        if self.mappings.lock().contains_key(&region.key) {
            return refuse(FabricErrorKind::InvalidRegion, taken());
        }
        // Not under the lock: this is what takes long.
        let mapping = self.context.map(region.span, region.kind);
        let mapping = mapping.map_err(|error| Kinds::unmapped(region, error))?;
        match self.mappings.lock().entry(region.key) {
            std::collections::hash_map::Entry::Occupied(_) => {}
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(mapping);
                return Ok(());
            }
        }
        refuse(FabricErrorKind::InvalidRegion, taken())
    }

    fn unpin(&self, key: RegionKey) {
        let mapping = self.mappings.lock().remove(&key);
        drop(mapping); // not under the lock: this may take long as well
    }
}

/// The registered regions.
pub(super) struct Local {
    set: RegionSet,
    pins: Arc<Pins>,
    /// Those that nobody had pinned before they were registered.
    pinned_here: HashSet<RegionKey>,
}

impl Local {
    pub fn new(context: Arc<Context>, kinds: Kinds) -> Self {
        let pins = Arc::new(Pins::new(context, kinds));
        Self { set: RegionSet::default(), pins, pinned_here: HashSet::new() }
    }

    pub fn pins(&self) -> Arc<Pins> {
        Arc::clone(&self.pins)
    }

    /// Adds a region and returns its key bytes; pins it if that has not been done.
    ///
    /// # Safety
    /// The contract of [`Fabric::register`](crate::fabric::Fabric::register) holds for it.
    pub unsafe fn insert(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        let packed = match self.pins.pack(region.key) {
            Some(packed) => packed?,
            None => {
                // SAFETY: the caller's promise is the callee's.
                unsafe { self.pins.pin(region) }?;
                self.pinned_here.insert(region.key);
                let packed = self.pins.pack(region.key).unwrap_or_else(|| Ok(Vec::new()));
                packed.inspect_err(|_| self.remove(region.key))?
            }
        };
        self.set.insert(*region);
        Ok(packed)
    }

    /// Forgets a region; it stays pinned where somebody else has pinned it.
    pub fn remove(&mut self, key: RegionKey) {
        self.set.remove(key);
        if self.pinned_here.remove(&key) {
            self.pins.unpin(key);
        }
    }

    /// The span, if one region holds all of it.
    pub fn vouch(&self, span: Span) -> Option<Vouched> {
        self.set.containing(span).map(|region| Vouched(span, region.kind))
    }
}

/// Heap memory that UCX, and for the published one any peer, may write at any time. No reference to its bytes
/// is ever made; they are copied in and out.
pub(super) struct Scratch {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a Scratch owns its memory, which is not tied to a thread.
unsafe impl Send for Scratch {}

impl Scratch {
    /// Zeroed memory of `len` bytes; `None` when there is no more.
    pub fn new(len: usize) -> Option<Self> {
        let layout = Self::layout(len)?;
        // SAFETY: the layout's size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { start, len })
    }

    /// All of it.
    pub fn span(&self) -> Span {
        Span { addr: self.start.as_ptr().expose_provenance() as u64, len: self.len as u64 }
    }

    /// The `len` bytes at `offset`, for UCX; `None` outside the area.
    pub fn vouch(&self, offset: usize, len: usize) -> Option<Vouched> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        inside.then(|| {
            Vouched(Span { addr: self.span().addr + offset as u64, len: len as u64 }, MemoryKind::Dram)
        })
    }

    /// Copies `bytes` to the start.
    pub fn write(&self, bytes: &[u8]) {
        let len = bytes.len().min(self.len);
        // SAFETY: `len` bytes are readable at one and writable at the other, and a fresh heap area does not
        // overlap a slice; no Rust reference to the area exists, so a peer's writes race with no Rust access
        // that the compiler may assume alone.
        unsafe { self.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), len) };
    }

    /// The first `N` bytes; zeros beyond the area.
    pub fn read<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        for (offset, byte) in out.iter_mut().enumerate().take(self.len) {
            // SAFETY: `offset` is inside the area; volatile because others write there.
            *byte = unsafe { self.start.as_ptr().add(offset).read_volatile() };
        }
        out
    }

    fn layout(len: usize) -> Option<Layout> {
        if len == 0 { None } else { Layout::from_size_align(len, 64).ok() }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(layout) = Self::layout(self.len) {
            // SAFETY: allocated in `new` with the same layout; the fabric drops it only when no operation of
            // UCX uses it any more, and leaks it where it cannot know.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_vouches_only_for_what_is_inside() {
        let scratch = Scratch::new(100).expect("memory");
        scratch.write(b"nonce");
        assert_eq!(&scratch.read::<6>(), b"nonce\0");
        assert_eq!(scratch.vouch(90, 10).map(Vouched::len), Some(10));
        assert!(scratch.vouch(91, 10).is_none());
        assert!(scratch.vouch(usize::MAX, 2).is_none());
        assert!(Scratch::new(0).is_none());
    }

    #[test]
    fn pieces_cover_the_span_once() {
        let whole = Vouched(Span { addr: 1000, len: 25 }, MemoryKind::Vram);
        let pieces: Vec<_> =
            whole.pieces(10).map(|(offset, piece)| (offset, piece.addr(), piece.len())).collect();
        assert_eq!(pieces, [(0, 1000, 10), (10, 1010, 10), (20, 1020, 5)]);
        assert!(whole.pieces(10).all(|(_, piece)| piece.kind() == MemoryKind::Vram));
    }
}
