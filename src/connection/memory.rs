//! The memory of a message, which the host names by address.
#![allow(unsafe_code)]

use crate::agent::{Agent, DescriptorList, RegisterError};
use crate::desc::{Descriptor, MemoryKind};

/// Memory that a host lends for the time of one call.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    addr: u64,
    len: u64,
}

/// A buffer that is registered with an agent until this is dropped.
#[derive(Debug)]
pub(super) struct Registered<'a> {
    agent: &'a Agent,
    list: DescriptorList,
}

impl Buffer {
    /// The `len` bytes at `addr`.
    ///
    /// # Safety
    /// Until the operation that the buffer is given to has returned they are mapped, readable and, for a
    /// receive, writable, and nobody holds a Rust reference to them.
    pub unsafe fn new(addr: u64, len: u64) -> Self {
        Self { addr, len }
    }

    /// Its first byte's address and its length.
    pub fn span(&self) -> (u64, u64) {
        (self.addr, self.len)
    }

    /// A copy of what is in it.
    pub(super) fn read(&self) -> Vec<u8> {
        if self.len == 0 {
            return Vec::new(); // its address may be null
        }
        // SAFETY: `new`'s contract: mapped and readable while the operation runs, and nobody holds a mutable
        // reference. A u8 has no alignment and no invalid value.
        unsafe { std::slice::from_raw_parts(self.addr as *const u8, self.len as usize) }.to_vec()
    }

    /// Fills it. The lengths are equal: matching has checked it.
    pub(super) fn write(&self, bytes: &[u8]) {
        let len = bytes.len().min(self.len as usize);
        if len == 0 {
            return;
        }
        // SAFETY: `new`'s contract: `self.len` bytes are mapped and writable while the operation runs, and no
        // reference to them exists, so they do not overlap `bytes`; `len` is within both.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.addr as *mut u8, len) };
    }

    /// Registers it for the time of the operation.
    pub(super) fn register(self, agent: &Agent) -> Result<Registered<'_>, RegisterError> {
        let list = self.list();
        // SAFETY: `new`'s contract covers the operation, and the registration ends with its guard, before the
        // operation returns.
        unsafe { agent.register(&list) }?;
        Ok(Registered { agent, list })
    }

    /// As a transfer names it.
    pub(super) fn list(&self) -> DescriptorList {
        let descriptor = Descriptor { addr: self.addr, len: self.len, device: 0 };
        DescriptorList { kind: MemoryKind::Dram, descs: vec![descriptor] }
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.agent.deregister(&self.list);
    }
}
