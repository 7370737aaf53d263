//! The memory of a message, which the host names by address.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::{fmt, io};

use crate::agent::{Agent, DescriptorList};
use crate::desc::{Descriptor, MemoryKind};

use super::error::Cause;

/// Memory that a host lends for the time of one call.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    addr: u64,
    len: u64,
    /// What it is, as far as has been looked: the seam passes a pointer without saying.
    kind: MemoryKind,
    device: u32,
}

/// What is done to a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its bytes are sent.
    Read,
    /// Bytes are received into it.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "written",
        })
    }
}

/// A buffer that is registered with an agent until this is dropped.
#[derive(Debug)]
pub(super) struct Registered<'a> {
    agent: &'a Agent,
    list: DescriptorList<'static>,
}

impl Buffer {
    /// The `len` bytes at `addr`.
    ///
    /// # Safety
    /// Until the operation that the buffer is given to has returned they are mapped, readable and, for a
    /// receive, writable, and nobody holds a Rust reference to them.
    pub unsafe fn new(addr: u64, len: u64) -> Self {
        Self { addr, len, kind: MemoryKind::Dram, device: 0 }
    }

    /// The same, with its kind found out.
    pub(super) fn located(self, agent: &Agent) -> Self {
        let (kind, device) = agent.memory_at(self.addr);
        Self { kind, device, ..self }
    }

    /// Its first byte's address and its length.
    pub fn span(&self) -> (u64, u64) {
        (self.addr, self.len)
    }

    /// A copy of what is in it.
    pub(super) fn read(&self, agent: &Agent) -> Result<Vec<u8>, Cause> {
        let mut bytes = vec![0; self.len as usize];
        self.copy(agent, 0, &mut bytes, Access::Read)?;
        Ok(bytes)
    }

    /// Fills it. The lengths are equal: matching has checked it.
    pub(super) fn write(&self, agent: &Agent, bytes: &mut [u8]) -> Result<(), Cause> {
        let len = bytes.len().min(self.len as usize);
        self.copy(agent, 0, &mut bytes[..len], Access::Write)
    }

    /// Whether it is memory that can be reached, by its ends. Of a GPU's, registering it says that.
    pub(super) fn probe(&self, access: Access) -> Result<(), Cause> {
        if self.kind == MemoryKind::Vram {
            return Ok(());
        }
        let ends = [0, self.len.saturating_sub(1)];
        for at in ends.into_iter().filter(|at| *at < self.len) {
            let mut byte = [0];
            self.copy_host(at, &mut byte, Access::Read)?;
            if access == Access::Write {
                self.copy_host(at, &mut byte, Access::Write)?;
            }
        }
        Ok(())
    }

    /// Registers it for the time of the operation with this peer, of which no other hears.
    pub(super) fn register<'a>(self, agent: &'a Agent, peer: &str) -> Result<Registered<'a>, Cause> {
        let list = self.list();
        // SAFETY: `new`'s contract covers the operation, and the registration ends with its guard, before the
        // operation returns.
        unsafe { agent.register_for(&list, peer) }.map_err(|error| Cause::Memory(error.to_string()))?;
        Ok(Registered { agent, list })
    }

    /// Copies between the buffer, from `at`, and bytes of ours.
    fn copy(&self, agent: &Agent, at: u64, ours: &mut [u8], access: Access) -> Result<(), Cause> {
        if self.kind != MemoryKind::Vram {
            return self.copy_host(at, ours, access);
        }
        let addr = self.addr + at;
        // SAFETY: `new`'s contract lends the memory to the operation, which this is a part of. Where a store has not ended
        // in time, the operation fails, and the host is told that its device hangs.
        unsafe {
            match access {
                Access::Read => agent.fetch_gpu(self.device, addr, ours),
                Access::Write => agent.store_gpu(self.device, addr, ours),
            }
        }
        .map_err(|fault| Cause::Memory(fault.to_string()))
    }

    /// Copies between host memory, from `at`, and bytes of ours, by the kernel: what the processor cannot reach must be an
    /// error, not a signal.
    fn copy_host(&self, at: u64, ours: &mut [u8], access: Access) -> Result<(), Cause> {
        if ours.is_empty() {
            return Ok(());
        }
        let theirs = (self.addr + at) as *mut c_void;
        let here = libc::iovec { iov_base: ours.as_mut_ptr().cast(), iov_len: ours.len() };
        let there = libc::iovec { iov_base: theirs, iov_len: ours.len() };
        // SAFETY: both vectors are one entry that lives on the stack. `here` names `ours`, which is borrowed
        // mutably; `there` lies in memory that `new`'s contract lends to the operation, and where it is not
        // mapped, or not writable, the kernel says EFAULT instead of touching it.
        let copied = unsafe {
            match access {
                Access::Read => {
                    libc::process_vm_readv(libc::getpid(), &raw const here, 1, &raw const there, 1, 0)
                }
                Access::Write => {
                    libc::process_vm_writev(libc::getpid(), &raw const here, 1, &raw const there, 1, 0)
                }
            }
        };
        if usize::try_from(copied) == Ok(ours.len()) {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if copied < 0 && error.raw_os_error() != Some(libc::EFAULT) {
            // A filter forbids the call: the contract has to do.
            // SAFETY: as above; mapped for this access by `new`'s contract, and `ours` is no part of it.
            unsafe {
                match access {
                    Access::Read => {
                        std::ptr::copy_nonoverlapping(theirs.cast(), ours.as_mut_ptr(), ours.len());
                    }
                    Access::Write => {
                        std::ptr::copy_nonoverlapping(ours.as_ptr(), theirs.cast(), ours.len());
                    }
                }
            }
            return Ok(());
        }
        Err(Cause::Unreachable { addr: self.addr + at, access })
    }

    /// As a transfer names it.
    pub(super) fn list(&self) -> DescriptorList<'static> {
        let descriptor = Descriptor { addr: self.addr, len: self.len, device: self.device };
        DescriptorList { kind: self.kind, descs: vec![descriptor].into() }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.agent.deregister(&self.list);
    }
}
