//! Memory that Baton asks CUDA for: page-locked host memory, and a device's own.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use cudarc::driver::sys::{CU_MEMHOSTALLOC_DEVICEMAP, CU_MEMHOSTALLOC_PORTABLE};

use super::kernels::{Block, Entry};
use super::{Device, DeviceError};
use crate::desc::Span;

/// Page-locked host memory, zeroed at first, that every device of this process can touch. Freed when it is dropped,
/// which waits for what the device does.
pub struct Pinned {
    device: Arc<Device>,
    start: NonNull<u8>,
    len: usize,
    device_addr: u64,
}

// SAFETY: plain memory that belongs to this value alone; CUDA lets any thread free it.
unsafe impl Send for Pinned {}
// SAFETY: behind a shared reference it is only read.
unsafe impl Sync for Pinned {}

/// Memory of a device, freed when it is dropped. For probes and tests: what transfers move is the host's.
pub struct DeviceBuffer {
    device: Arc<Device>,
    span: Span,
}

impl Device {
    /// `len` bytes of page-locked host memory. Takes long: not for the path of a transfer.
    pub fn pinned(self: &Arc<Self>, len: usize) -> Result<Pinned, DeviceError> {
        let _current = self.enter()?;
        let mut start: *mut c_void = ptr::null_mut();
        let flags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: a valid place to write to; our context is current. CUDA gives nothing for a length of 0.
        let code = unsafe { (self.driver().host_alloc)(&mut start, len.max(1), flags) };
        self.check("cuMemHostAlloc", code).map_err(|error| error.with(format!("{len} bytes")))?;
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| DeviceError::ours("cuMemHostAlloc", Some(self.ordinal()), "it gave nothing"))?;
        let mut pinned = Pinned { device: Arc::clone(self), start, len, device_addr: 0 };
        // SAFETY: the memory was allocated for devices to map; a valid place to write to, and no flags.
        let code =
            unsafe { (self.driver().host_device_pointer)(&mut pinned.device_addr, start.as_ptr().cast(), 0) };
        self.check("cuMemHostGetDevicePointer", code)?;
        // SAFETY: `len` bytes at `start` are ours, and nobody else knows of them.
        unsafe { ptr::write_bytes(start.as_ptr(), 0, len) };
        Ok(pinned)
    }

    /// `len` bytes of this device's memory, whatever they hold.
    pub fn alloc(self: &Arc<Self>, len: usize) -> Result<DeviceBuffer, DeviceError> {
        let _current = self.enter()?;
        let mut addr = 0;
        // SAFETY: a valid place to write to; our context is current.
        let code = unsafe { (self.driver().memory_alloc)(&mut addr, len.max(1)) };
        self.check("cuMemAlloc", code).map_err(|error| error.with(format!("{len} bytes")))?;
        Ok(DeviceBuffer { device: Arc::clone(self), span: Span { addr, len: len as u64 } })
    }
}

impl Pinned {
    /// Its first byte, for the host.
    pub fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Its first byte, for devices.
    pub fn device_addr(&self) -> u64 {
        self.device_addr
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its bytes. Whoever starts a copy into it promises that nobody has this then ([`super::CopyQueue::start`]).
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes that live as long as `self`; no device writes them meanwhile, see above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// Its bytes, to be written. Whoever starts a copy from or into it promises that nobody has this then.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and borrowed from the only one who has it.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// Room for blocks of a transform, at the place of the work item with this index. Otherwise as `entries`.
    pub(super) fn blocks(&mut self, first: usize, count: usize) -> &mut [Block] {
        let begin = first.saturating_mul(size_of::<Entry>());
        if begin > self.len || count > (self.len - begin) / size_of::<Block>() {
            return &mut [];
        }
        // SAFETY: as in `entries`; an entry's place is aligned for a block, too.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(begin).cast::<Block>(), count) }
    }

    /// Room for work items of a copy kernel: so many from the one with this index on. Others may be in a kernel's hands
    /// meanwhile. Empty where it does not lie within.
    pub(super) fn entries(&mut self, first: usize, count: usize) -> &mut [Entry] {
        let whole = self.len / size_of::<Entry>();
        if first > whole || count > whole - first {
            return &mut [];
        }
        // SAFETY: within the memory, which CUDA gives aligned to pages; an entry is plain numbers, for which every
        // pattern is valid. Whoever borrows this has no other entries, and a kernel reads only others.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast::<Entry>().add(first), count) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let Ok(_current) = self.device.enter() else { return };
        // SAFETY: came from cuMemHostAlloc and is not used after; what a device still does with it, CUDA waits for.
        let code = unsafe { (self.device.driver().host_free)(self.start.as_ptr().cast()) };
        self.device.log_failure("cuMemFreeHost", code);
    }
}

impl DeviceBuffer {
    /// Where it is, in the device's memory.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Copies bytes into it, from its byte `at` on. Blocks until they are there.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let to = self.part(at, bytes.len())?;
        let _current = self.device.enter()?;
        let driver = self.device.driver();
        // SAFETY: both ends are as long as is said; our context is current.
        let code = unsafe { (driver.copy_to_device)(to, bytes.as_ptr().cast(), bytes.len()) };
        self.device.check("cuMemcpyHtoD", code)?;
        // SAFETY: the default stream. The copy has left the host's memory, but need not have arrived.
        let code = unsafe { (driver.stream_synchronize)(ptr::null_mut()) };
        self.device.check("cuStreamSynchronize", code)
    }

    /// Copies its bytes out, from its byte `at` on. Blocks until they are there.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        let from = self.part(at, bytes.len())?;
        let _current = self.device.enter()?;
        // SAFETY: both ends are as long as is said; our context is current.
        let code =
            unsafe { (self.device.driver().copy_to_host)(bytes.as_mut_ptr().cast(), from, bytes.len()) };
        self.device.check("cuMemcpyDtoH", code)
    }

    fn part(&self, at: u64, len: usize) -> Result<u64, DeviceError> {
        let outside = || {
            let detail = format!("{len} bytes at byte {at} of {}", self.span.len);
            DeviceError::ours("cuMemcpy", Some(self.device.ordinal()), detail)
        };
        let addr = self.span.addr.checked_add(at).ok_or_else(outside)?;
        let within = self.span.holds(Span { addr, len: len as u64 });
        within.then_some(addr).ok_or_else(outside)
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        let Ok(_current) = self.device.enter() else { return };
        // SAFETY: came from cuMemAlloc and is not used after; copies to and from it are not in flight any more, or
        // CUDA waits for them.
        let code = unsafe { (self.device.driver().memory_free)(self.span.addr) };
        self.device.log_failure("cuMemFree", code);
    }
}
