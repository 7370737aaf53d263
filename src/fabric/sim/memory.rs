//! Copies between the registered memories of simulated processes, which are all this process's: the only place of the
//! simulator that says `unsafe`.
//!
//! Every address is checked against its member's registered regions at the moment of the copy, and a deregister
//! takes the same lock as the copies do, so that none is under way when it returns. On a net that lands late, what was
//! registered counts as registered until its member is gone: `SimNet::landing_late` has asked for that promise.
#![allow(unsafe_code)]

use std::cell::Cell;

use crate::desc::{RegionKey, Span};
use crate::fabric::{Region, RegionSet};

/// An address that lies in no registered region of its member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outside(pub Span);

/// The registered regions of every member. An index without regions is a member that is gone.
#[derive(Debug, Default)]
pub(super) struct Memories {
    members: Vec<RegionSet>,
    /// On a net that lands late: what each member has deregistered.
    departed: Option<Vec<RegionSet>>,
    /// Pieces that have landed there.
    landed_late: Cell<u64>,
}

impl Memories {
    /// The memories of no member. `late` is whether deregistered memory is still written to, as the net's maker has
    /// promised that it may.
    pub fn new(late: bool) -> Self {
        Self { members: Vec::new(), departed: late.then(Vec::new), landed_late: Cell::new(0) }
    }

    /// Whether deregistered memory is still written to.
    pub fn land_late(&self) -> bool {
        self.departed.is_some()
    }

    /// Pieces that have landed in deregistered memory.
    pub fn landed_late(&self) -> u64 {
        self.landed_late.get()
    }

    /// Makes room for one more member.
    pub fn add_member(&mut self) {
        self.members.push(RegionSet::default());
        self.departed.iter_mut().for_each(|departed| departed.push(RegionSet::default()));
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
        let region = self.members[member].remove(key);
        if let (Some(departed), Some(region)) = (&mut self.departed, region) {
            departed[member].insert(region);
        }
    }

    /// Forgets all regions of a member.
    pub fn clear(&mut self, member: usize) {
        self.members[member] = RegionSet::default();
        self.departed.iter_mut().for_each(|departed| departed[member] = RegionSet::default());
    }

    /// Whether one region of the member holds all of `span`.
    pub fn covers(&self, member: usize, span: Span) -> bool {
        span.len > 0 && self.members[member].containing(span).is_some()
    }

    /// Copies `len` bytes from one member to another.
    pub fn copy(&self, from: (usize, u64), to: (usize, u64), len: u64) -> Result<(), Outside> {
        self.check_or_departed(from.0, Span { addr: from.1, len })?;
        if self.check_or_departed(to.0, Span { addr: to.1, len })? {
            self.landed_late.set(self.landed_late.get() + 1);
        }
        // SAFETY: both spans lie in registered regions or, where the net's maker has promised that those stay mapped and
        // free of references as well, in deregistered ones of a living member (checked above), which `register`'s
        // callers keep mapped and free of references; `copy` allows them to overlap. Two copies never run at once: `self` is behind the net's lock.
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

    /// Whether the span is in memory that is deregistered, on a net where that does not matter.
    fn check_or_departed(&self, member: usize, span: Span) -> Result<bool, Outside> {
        let departed = self.departed.as_ref().map(|departed| &departed[member]);
        match self.check(member, span) {
            Ok(()) => Ok(false),
            Err(_) if span.len > 0 && departed.is_some_and(|set| set.containing(span).is_some()) => Ok(true),
            Err(outside) => Err(outside),
        }
    }

    fn check(&self, member: usize, span: Span) -> Result<(), Outside> {
        if self.covers(member, span) { Ok(()) } else { Err(Outside(span)) }
    }
}
