//! Memory of one process in the hands of another: exported by its owner, mapped by the peer that copies.
//!
//! What is shared is always a whole allocation. Memory of `cuMemAlloc` has a legacy handle. Chunks of virtual memory
//! management have none; they have the handles that their allocator asked for: a fabric handle, which goes first,
//! because it needs no file descriptor to be taken over, or a POSIX file descriptor.
#![allow(unsafe_code)]

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

use cudarc::driver::sys::{CUipcMem_flags, CUipcMemHandle};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::handle::{HandleKind, SharedHandle};
use super::vmm::{self, Chunk, Mapped};
use super::{Allocation, Device, DeviceError, NotShareable};
use crate::desc::Span;

/// An allocation offered to peers. Dropping it withdraws what can be withdrawn, the file descriptor; what peers have
/// mapped they keep until they unmap it.
#[derive(Debug)]
pub struct Shared {
    handle: SharedHandle,
    /// What the handle's number stands for.
    _file: Option<OwnedFd>,
}

impl Shared {
    /// What the peer needs.
    pub fn handle(&self) -> &SharedHandle {
        &self.handle
    }
}

/// A peer's allocation, mapped into this process for one device. Unmapped when it is dropped: no copy may use it any
/// more.
pub struct Mapping {
    base: u64,
    len: u64,
    by: MappedBy,
}

enum MappedBy {
    Ipc(Arc<Device>),
    Vmm(Mapped),
}

impl Device {
    /// Offers an allocation of this device to peers. What cannot be shared is said with its reason: it goes another way.
    pub fn share(&self, allocation: &Allocation) -> Result<Shared, NotShareable> {
        if allocation.device != self.ordinal() {
            return Err(NotShareable(format!("it lies on device {}", allocation.device)));
        }
        let (kind, file) = match allocation.is_vmm {
            true => self.export_chunk(allocation.whole.addr)?,
            false => (HandleKind::Ipc(self.export_legacy(allocation.whole.addr)?), None),
        };
        let handle = SharedHandle { kind, uuid: self.uuid(), whole: allocation.whole };
        Ok(Shared { handle, _file: file })
    }

    fn export_legacy(&self, addr: u64) -> Result<[u8; 64], NotShareable> {
        let _current = self.enter()?;
        let mut handle = CUipcMemHandle { reserved: [0; 64] };
        // SAFETY: a valid place to write to; our context is current. Of an address that cannot be shared it says so.
        let code = unsafe { (self.driver().ipc_handle)(&mut handle, addr) };
        self.check("cuIpcGetMemHandle", code).map_err(|error| {
            NotShareable(format!(
                "{error}; memory of a pool (cudaMallocAsync) has no handle that peers can open"
            ))
        })?;
        Ok(handle.reserved.map(|byte| byte as u8))
    }

    fn export_chunk(&self, addr: u64) -> Result<(HandleKind, Option<OwnedFd>), NotShareable> {
        let chunk = Chunk::at(self.driver(), addr)?;
        let types = chunk.handle_types()?;
        let mut why =
            "its allocator has asked for no handle (CUmemAllocationProp::requestedHandleTypes)".to_owned();
        if types & vmm::FABRIC != 0 {
            match chunk.export_fabric() {
                Ok(handle) => return Ok((HandleKind::Fabric(handle), None)),
                Err(error) => why = error.to_string(),
            }
        }
        if types & vmm::POSIX_FD != 0 {
            match chunk.export_fd() {
                Ok(file) => return Ok((HandleKind::Fd(file.as_raw_fd()), Some(file))),
                Err(error) => why = error.to_string(),
            }
        }
        Err(NotShareable(format!("VMM memory that cannot be exported: {why}")))
    }

    /// Maps a peer's allocation for copies on this device. `owner` is the process whose memory it is, and another one
    /// than this: nobody opens a legacy handle of its own.
    ///
    /// That the peer's uuid is that of a device within reach ([`super::Cuda::can_reach`]) is for the caller to see first; the
    /// driver refuses what it cannot map.
    pub fn map(
        self: &Arc<Self>,
        handle: &SharedHandle,
        owner: BorrowedFd<'_>,
    ) -> Result<Mapping, DeviceError> {
        let len = handle.whole.len;
        let mapped = match handle.kind {
            HandleKind::Ipc(bytes) => self.open_legacy(bytes, len),
            HandleKind::Fd(number) => self
                .take_over(number, owner)
                .and_then(|file| self.map_chunk(Chunk::import_fd(self.driver(), file.as_fd())?, len)),
            HandleKind::Fabric(bytes) => {
                Chunk::import_fabric(self.driver(), &bytes).and_then(|chunk| self.map_chunk(chunk, len))
            }
        };
        mapped.map_err(|error| {
            let what = format!("{} of {} bytes", handle.kind.name(), len);
            let detail = if error.detail.is_empty() { what } else { format!("{what}: {}", error.detail) };
            error.with(detail)
        })
    }

    fn open_legacy(self: &Arc<Self>, bytes: [u8; 64], len: u64) -> Result<Mapping, DeviceError> {
        let _current = self.enter()?;
        let handle = CUipcMemHandle { reserved: bytes.map(|byte| byte as _) };
        let flags = CUipcMem_flags::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as u32;
        let mut base = 0;
        // SAFETY: a valid place to write to; our context is current. What the handle is, the driver checks.
        let code = unsafe { (self.driver().ipc_open)(&mut base, handle, flags) };
        self.check("cuIpcOpenMemHandle", code)?;
        let mapping = Mapping { base, len, by: MappedBy::Ipc(Arc::clone(self)) };
        // The length is the peer's word, and a copy past the real end would cost this process its context. A driver that
        // knows no range leaves it at that word.
        let (range, claimed) = (self.driver().pointer_facts(base)?.range, Span { addr: base, len });
        if range.len != 0 && !range.holds(claimed) {
            let detail = format!("the peer speaks of {claimed}, and the driver has mapped {range}");
            return Err(DeviceError::ours("cuIpcOpenMemHandle", Some(self.ordinal()), detail));
        }
        Ok(mapping)
    }

    fn take_over(&self, number: i32, owner: BorrowedFd<'_>) -> Result<OwnedFd, DeviceError> {
        pidfd_getfd(owner, number, PidfdGetfdFlags::empty()).map_err(|error| {
            let detail = format!("file descriptor {number} of the peer: {error}");
            DeviceError::ours("pidfd_getfd", Some(self.ordinal()), detail)
        })
    }

    fn map_chunk(self: &Arc<Self>, chunk: Chunk<'_>, len: u64) -> Result<Mapping, DeviceError> {
        let _current = self.enter()?;
        let mapped = Mapped::new(self, &chunk, len as usize)?;
        Ok(Mapping { base: mapped.addr, len, by: MappedBy::Vmm(mapped) })
    }
}

impl Mapping {
    /// Where the allocation starts in this process, for the device that it was mapped for.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: what is mapped has a length.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device it was mapped for.
    pub fn device(&self) -> &Arc<Device> {
        match &self.by {
            MappedBy::Ipc(device) => device,
            MappedBy::Vmm(mapped) => mapped.device(),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A chunk undoes itself.
        let MappedBy::Ipc(device) = &self.by else { return };
        let Ok(_current) = device.enter() else { return };
        // SAFETY: opened by us; no copy uses it any more, which whoever held it has seen to.
        let code = unsafe { (device.driver().ipc_close)(self.base) };
        device.log_failure("cuIpcCloseMemHandle", code);
    }
}
