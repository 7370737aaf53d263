//! Memory that fabrics read and write behind Rust's back, with a guard on either side that nobody may touch.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use baton::desc::{MemoryKind, Span};
use baton::device::DeviceBuffer;

use crate::gpu;

/// Bytes before and after the part that is registered.
pub const GUARD_BYTES: usize = 4096;

/// Bytes between two guards. Never referenced by Rust, only copied in and out.
pub struct Memory(Place);

enum Place {
    Host(HostMemory),
    Device(DeviceBuffer),
}

impl Memory {
    /// `len` bytes, page aligned: host memory, or memory of the first GPU.
    pub fn new(kind: MemoryKind, len: usize) -> Self {
        let guarded = len + 2 * GUARD_BYTES;
        Self(match kind {
            MemoryKind::Dram => Place::Host(HostMemory::new(guarded)),
            MemoryKind::Vram => Place::Device(gpu::memory(guarded)),
            other => panic!("there is no {other} here"),
        })
    }

    /// The part to register.
    pub fn span(&self) -> Span {
        let Span { addr, len } = self.whole();
        Span { addr: addr + GUARD_BYTES as u64, len: len - 2 * GUARD_BYTES as u64 }
    }

    fn whole(&self) -> Span {
        match &self.0 {
            Place::Host(host) => host.span(),
            Place::Device(buffer) => buffer.span(),
        }
    }

    /// Sets every byte, guards included.
    pub fn fill(&mut self, byte: impl FnMut(usize) -> u8) {
        let bytes: Vec<u8> = (0..self.whole().len as usize).map(byte).collect();
        match &mut self.0 {
            Place::Host(host) => host.write(&bytes),
            Place::Device(buffer) => buffer.write(0, &bytes).expect("device memory is written"),
        }
    }

    /// A copy of everything, guards included.
    pub fn snapshot(&self) -> Snapshot {
        let whole = self.whole();
        let mut bytes = vec![0; whole.len as usize];
        match &self.0 {
            Place::Host(host) => host.read(&mut bytes),
            Place::Device(buffer) => buffer.read(0, &mut bytes).expect("device memory is read"),
        }
        Snapshot { addr: whole.addr, bytes }
    }
}

/// Host memory, named by address.
struct HostMemory {
    base: NonNull<u8>,
    layout: Layout,
}

impl HostMemory {
    /// Zeroed memory.
    fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len, 4096).expect("a sane length");
        // SAFETY: the layout's size is not zero: there are guards.
        let base = unsafe { alloc_zeroed(layout) };
        Self { base: NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout)), layout }
    }

    fn span(&self) -> Span {
        Span { addr: self.base.as_ptr() as u64, len: self.layout.size() as u64 }
    }

    fn write(&self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.layout.size());
        // SAFETY: both are `size` bytes long and do not overlap: no reference to this memory exists.
        unsafe { self.base.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    fn read(&self, bytes: &mut [u8]) {
        assert_eq!(bytes.len(), self.layout.size());
        // SAFETY: both are `size` bytes long and do not overlap: no reference to this memory exists.
        unsafe { self.base.as_ptr().copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// What memory held, addressed as it was.
#[derive(Clone, PartialEq, Eq)]
pub struct Snapshot {
    addr: u64,
    bytes: Vec<u8>,
}

impl Snapshot {
    /// The bytes at a span that lies within.
    pub fn at(&self, span: Span) -> &[u8] {
        let start = (span.addr - self.addr) as usize;
        &self.bytes[start..start + span.len as usize]
    }

    /// Replaces the bytes at an address.
    pub fn put(&mut self, addr: u64, bytes: &[u8]) {
        let start = (addr - self.addr) as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// A number that changes with the bytes.
    pub fn digest(&self) -> u64 {
        self.bytes.iter().fold(0, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
    }

    /// How many bytes differ.
    pub fn differences(&self, other: &Snapshot) -> usize {
        self.bytes.iter().zip(&other.bytes).filter(|(a, b)| a != b).count()
    }

    /// Panics with the first difference, unless equal.
    #[track_caller]
    pub fn assert_same(&self, wanted: &Snapshot, what: &str) {
        assert_eq!(self.addr, wanted.addr, "{what}: snapshots of different memory");
        let differ = || self.bytes.iter().zip(&wanted.bytes).enumerate().filter(|(_, (a, b))| a != b);
        if let Some((at, (found, wanted))) = differ().next() {
            let offset = at as i64 - GUARD_BYTES as i64;
            panic!(
                "{what}: {} bytes differ, first at offset {offset}: {found:#x}, not {wanted:#x}",
                differ().count()
            );
        }
    }
}
