//! Copies between the registered memories of simulated processes, which are all this process's: the only place of the
//! simulator that says `unsafe`.
//!
//! Every address is checked against its member's registered regions at the moment of the copy, and a deregister
//! takes the same lock as the copies do, so that none is under way when it returns.
#![allow(unsafe_code)]

use crate::desc::{RegionKey, Span};
use crate::fabric::{Region, RegionSet};

/// An address that lies in no registered region of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outside(pub Span);

/// The registered regions of every member. An index without regions is a member that is gone.
#[derive(Debug, Default)]
pub(super) struct Memories {
    members: Vec<RegionSet>,
}

impl Memories {
    /// Makes room for one more member.
    pub fn add_member(&mut self) {
        self.members.push(RegionSet::default());
    }

    /// Makes a region usable.
    ///
    /// # Safety
    /// Until [`Memories::deregister`] or [`Memories::clear`] returns for it, the region is mapped, readable and writable,
    /// and nobody holds a Rust reference to it.
    pub unsafe fn register(&mut self, member: usize, region: Region) {
        self.members[member].insert(region);
    }

    /// Forgets a region; unknown keys are ignored.
    pub fn deregister(&mut self, member: usize, key: RegionKey) {
        self.members[member].remove(key);
    }

    /// Forgets all regions of a member.
    pub fn clear(&mut self, member: usize) {
        self.members[member] = RegionSet::default();
    }

    /// Whether one region of the member holds all of `span`.
    pub fn covers(&self, member: usize, span: Span) -> bool {
        span.len > 0 && self.members[member].containing(span).is_some()
    }

    /// Copies `len` bytes from one member to another.
    pub fn copy(&self, from: (usize, u64), to: (usize, u64), len: u64) -> Result<(), Outside> {
        self.check(from.0, Span { addr: from.1, len })?;
        self.check(to.0, Span { addr: to.1, len })?;
        // SAFETY: both spans lie in registered regions (checked above), which `register`'s callers keep mapped and free
        // of references; `copy` allows them to overlap. Two copies never run at once: `self` is behind the net's lock.
        unsafe { std::ptr::copy(from.1 as *const u8, to.1 as *mut u8, len as usize) };
        Ok(())
    }

    /// Appends a member's bytes to `out`.
    pub fn read(&self, member: usize, span: Span, out: &mut Vec<u8>) -> Result<(), Outside> {
        self.check(member, span)?;
        let len = span.len as usize;
        out.reserve(len);
        // SAFETY: the span lies in a registered region (checked above) and is readable; `reserve` has made room for
        // `len` bytes behind the vector's end, which no registered region contains, so they do not overlap; they
        // are initialised before the length takes them in.
        unsafe {
            std::ptr::copy_nonoverlapping(span.addr as *const u8, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
        Ok(())
    }

    /// Puts bytes into a member's memory.
    pub fn write(&self, member: usize, addr: u64, bytes: &[u8]) -> Result<(), Outside> {
        self.check(member, Span { addr, len: bytes.len() as u64 })?;
        // SAFETY: the span lies in a registered region (checked above) and is writable; `bytes` is referenced, hence
        // in no registered region.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), addr as *mut u8, bytes.len()) };
        Ok(())
    }

    fn check(&self, member: usize, span: Span) -> Result<(), Outside> {
        if self.covers(member, span) { Ok(()) } else { Err(Outside(span)) }
    }
}
