//! Memory that is moved: in the host's or a GPU's, with a guard on either side of what peers are told of.
//!
//! ```text
//!   [ guard | registered ................ | guard and rest of the chunk ]
//! ```
#![allow(unsafe_code)]

use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::raw::raw;
use crate::orders::{Held, Place};
use crate::random;

/// See the [module](self). Freed when it is dropped.
pub struct Buffer {
    place: Place,
    device: u32,
    base: u64,
    /// Length of all of it.
    whole: u64,
    /// Length of what is registered.
    len: u64,
    /// Chunks that back it: their length and number.
    chunks: (u64, u64),
}

impl Buffer {
    /// Memory for `len` bytes and their guards, whatever it holds.
    pub fn new(place: Place, device: u32, len: u64) -> Result<Self, String> {
        let whole = len + 2 * GUARD;
        let buffer = |base, whole, chunks| Self { place, device, base, whole, len, chunks };
        match place {
            Place::Dram => {
                let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
                // SAFETY: a new mapping, wherever the system likes.
                let mapped = unsafe { mmap_anonymous(ptr::null_mut(), whole as usize, protection, flags) };
                let base = mapped.map_err(|error| format!("{whole} bytes of host memory: {error}"))?;
                Ok(buffer(base.expose_provenance() as u64, whole, (0, 0)))
            }
            Place::Alloc => {
                raw()?.enter(device)?;
                Ok(buffer(raw()?.alloc(whole)?, whole, (0, 0)))
            }
            Place::VmmFd | Place::VmmPrivate => {
                let shareable = place == Place::VmmFd;
                raw()?.enter(device)?;
                let chunk = raw()?.granularity(device, shareable)?;
                let chunks = (chunk, whole.div_ceil(chunk));
                let base = raw()?.map_chunks(device, shareable, chunks)?;
                Ok(buffer(base, chunks.0 * chunks.1, chunks))
            }
        }
    }

    /// What the peer has to know, under this number.
    pub fn held(&self, buffer: usize) -> Held {
        let Self { place, device, .. } = *self;
        let device = if place.is_vram() { device } else { 0 };
        Held { buffer, addr: self.base + GUARD, place, device, chunk: self.chunks.0, guard: GUARD }
    }

    /// Length of what is registered.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Length of all of it.
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// Writes bytes at an offset in all of it. Within it, and no transfer touches it.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), String> {
        self.check(at, bytes.len())?;
        if self.place.is_vram() {
            return raw()?.write(self.base + at, bytes);
        }
        // SAFETY: within the mapping, which nobody holds a reference to; no transfer writes to it meanwhile.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.host(at), bytes.len()) };
        Ok(())
    }

    /// Reads bytes at an offset in all of it.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), String> {
        self.check(at, bytes.len())?;
        if self.place.is_vram() {
            return raw()?.read(self.base + at, bytes);
        }
        // SAFETY: as above.
        unsafe { ptr::copy_nonoverlapping(self.host(at), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// Fills all of it, guards too, with a pattern.
    pub fn fill(&self, seed: u64) -> Result<(), String> {
        self.each_part(|at, bytes| {
            random::fill(seed, at, bytes);
            self.write(at, bytes)
        })
    }

    /// Calls for each part of it, on a few threads, with its offset and room for its bytes.
    pub fn each_part(
        &self,
        work: impl Fn(u64, &mut [u8]) -> Result<(), String> + Sync,
    ) -> Result<(), String> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX) as u64;
        let parts = self.whole.div_ceil(PART);
        let run = |first: u64| {
            if self.place.is_vram() {
                raw()?.enter(self.device)?;
            }
            let mut bytes = vec![0; PART.min(self.whole) as usize];
            (first..parts).step_by(threads as usize).try_for_each(|part| {
                let at = part * PART;
                work(at, &mut bytes[..PART.min(self.whole - at) as usize])
            })
        };
        if parts == 1 {
            return run(0);
        }
        std::thread::scope(|scope| {
            let running: Vec<_> =
                (0..threads.min(parts)).map(|first| scope.spawn(move || run(first))).collect();
            let ended = running.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err("a thread of the comparison has panicked".to_owned()))
            });
            ended.fold(Ok(()), Result::and)
        })
    }

    fn check(&self, at: u64, len: usize) -> Result<(), String> {
        match at.checked_add(len as u64) {
            Some(end) if end <= self.whole => Ok(()),
            _ => Err(format!("{len} bytes at {at} of a buffer of {}", self.whole)),
        }
    }

    fn host(&self, at: u64) -> *mut u8 {
        ptr::with_exposed_provenance_mut((self.base + at) as usize)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let freed = match self.place {
            Place::Dram => {
                // SAFETY: our mapping, not used after.
                let unmapped = unsafe { munmap(self.host(0).cast(), self.whole as usize) };
                unmapped.map_err(|error| error.to_string())
            }
            Place::Alloc => raw().and_then(|raw| raw.enter(self.device).and_then(|()| raw.free(self.base))),
            Place::VmmFd | Place::VmmPrivate => {
                raw().and_then(|raw| raw.unmap_chunks(self.base, self.chunks))
            }
        };
        if let Err(error) = freed {
            eprintln!("memory cannot be given back: {error}");
        }
    }
}

/// Ahead of what is registered, and behind it. Pieces that begin at multiples of it lie as in a fresh allocation.
const GUARD: u64 = 4096;
/// What is filled and compared at a time.
const PART: u64 = 4 << 20;
/// Filling and comparing more of them at once brings little.
const THREADS_MAX: usize = 8;
