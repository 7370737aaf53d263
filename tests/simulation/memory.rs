//! Memory that fabrics read and write behind Rust's back, with a guard on either side that nobody may touch.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use baton::desc::Span;

const GUARD_BYTES: usize = 64;
const GUARD: u8 = 0xC5;

/// So many bytes between two guards. Never referenced by Rust, only copied in and out.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    /// Memory that holds these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let layout = Layout::from_size_align(bytes.len() + 2 * GUARD_BYTES, 64).expect("a sane length");
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let memory = Self { base: NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout)), layout };
        memory.write_at(0, &vec![GUARD; layout.size()]);
        memory.write_at(GUARD_BYTES, bytes);
        memory
    }

    /// The part to register.
    pub fn span(&self) -> Span {
        let len = self.layout.size() - 2 * GUARD_BYTES;
        Span { addr: self.base.as_ptr() as u64 + GUARD_BYTES as u64, len: len as u64 }
    }

    /// Puts bytes at an offset into the part to register.
    pub fn put(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.span().len as usize);
        self.write_at(GUARD_BYTES + offset, bytes);
    }

    /// A copy of the part to register, after a look at the guards.
    #[track_caller]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.layout.size()];
        // SAFETY: both are `size` bytes long, the vector is new, so they do not overlap; no reference exists.
        unsafe { self.base.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) }
        let after = bytes.split_off(bytes.len() - GUARD_BYTES);
        let inner = bytes.split_off(GUARD_BYTES);
        assert!(bytes.iter().chain(&after).all(|byte| *byte == GUARD), "a guard was written to");
        inner
    }

    /// Copies the part to register out, after a look at the guards.
    #[track_caller]
    pub fn copy_to(&self, out: &mut [u8]) {
        assert_eq!(out.len() as u64, self.span().len);
        let mut guards = [0; 2 * GUARD_BYTES];
        let (before, after) = guards.split_at_mut(GUARD_BYTES);
        let end = GUARD_BYTES + out.len();
        for (at, out) in [(0, before), (GUARD_BYTES, out), (end, after)] {
            // SAFETY: the source is within the allocation (the three add up to its size), `out` is referenced, hence
            // not part of it.
            unsafe { self.base.as_ptr().add(at).copy_to_nonoverlapping(out.as_mut_ptr(), out.len()) }
        }
        assert!(guards.iter().all(|byte| *byte == GUARD), "a guard was written to");
    }

    fn write_at(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.layout.size());
        // SAFETY: the target is within the allocation (asserted), `bytes` is referenced, hence not part of it.
        unsafe { self.base.as_ptr().add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}
