//! The address space of device memory.
//!
//! ```text
//!   addresses handed out   |  PROT_NONE: whoever touches one faults   |   base .. base + SPAN
//!   the same bytes         |  read and written by the stand-in alone  |   each SPAN further on
//! ```
//!
//! Memory that lies side by side in the one lies side by side in the other, so a copy over several mapped chunks is one
//! copy. Addresses are given out round and round: one that was freed does not come back soon.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};

use crate::backing::{Handle, Physical};
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::launch::Piece;

const SPAN: u64 = 1 << 38;
/// What chunks are mapped in, and where allocations begin.
pub const GRANULARITY: u64 = 2 << 20;

/// Who has what where.
pub struct Space {
    base: u64,
    cursor: u64,
    next_id: u64,
    /// Address ranges given out, by where they begin, with their lengths.
    reserved: BTreeMap<u64, u64>,
    /// Device memory, by where it begins.
    ranges: BTreeMap<u64, Range>,
    /// Memory of the host that devices may use, by where it begins.
    pub host: BTreeMap<u64, HostRange>,
}

/// Device memory at an address.
pub struct Range {
    pub len: u64,
    pub memory: Arc<Physical>,
    /// The number of its device in this process.
    pub ordinal: u32,
    pub origin: Origin,
    /// Every memory that was ever mapped has its own.
    pub id: u64,
    pub has_sync_memops: bool,
}

/// Where a range comes from, which decides who may use it.
pub enum Origin {
    /// `cuMemAlloc`.
    Allocated,
    /// `cuIpcOpenMemHandle`, by the context of this device, so many times.
    Opened { handle: Handle, by: u32, times: u32 },
    /// `cuMemMap`, with the devices that `cuMemSetAccess` has let in: ordinal, and whether they may write.
    Virtual { access: BTreeMap<u32, bool> },
}

/// Memory of the host that devices may use.
pub struct HostRange {
    pub len: u64,
    pub kind: HostKind,
    pub flags: u32,
    pub context: u32,
    pub id: u64,
}

/// How the host got it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// `cuMemHostAlloc`.
    Allocated,
    /// `cuMemHostRegister`.
    Registered,
    /// `cuMemAllocManaged`.
    Managed,
}

/// What is done to memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

/// Who does it. A copy reaches other devices by itself; a kernel needs peer access.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agent {
    Copy,
    Kernel,
}

impl Space {
    pub fn new() -> Self {
        // SAFETY: a new mapping where the kernel finds room; nothing is at that place.
        let base = unsafe {
            let len = usize_of(2 * SPAN);
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::empty(), flags)
        };
        let base = base.expect("there is address space for device memory") as u64;
        let base = base.next_multiple_of(GRANULARITY);
        Self {
            base,
            cursor: base,
            next_id: 1,
            reserved: BTreeMap::new(),
            ranges: BTreeMap::new(),
            host: BTreeMap::new(),
        }
    }

    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Addresses that nothing is at yet.
    pub fn reserve(&mut self, len: u64, alignment: u64) -> Outcome<u64> {
        let align = alignment.max(GRANULARITY);
        if !align.is_power_of_two() || len == 0 || len > SPAN {
            return Err(Code::INVALID_VALUE);
        }
        // The last granule stays free: aligning the base has cost as much.
        let end = self.base + SPAN - GRANULARITY;
        for start in [self.cursor, self.base] {
            if let Some(found) = self.free_from(start, len, align).filter(|found| found + len <= end) {
                self.reserved.insert(found, len);
                // A granule between two allocations catches who runs past the end of one.
                self.cursor = (found + len).next_multiple_of(GRANULARITY) + GRANULARITY;
                return Ok(found);
            }
        }
        Err(Code::OUT_OF_MEMORY)
    }

    fn free_from(&self, start: u64, len: u64, align: u64) -> Option<u64> {
        let mut at = start.next_multiple_of(align);
        if let Some((before, len)) = self.reserved.range(..=at).next_back() {
            at = at.max((before + len).next_multiple_of(align));
        }
        for (next, next_len) in self.reserved.range(at..) {
            if at + len <= *next {
                break;
            }
            at = (next + next_len).next_multiple_of(align);
        }
        Some(at)
    }

    /// Gives up addresses at which nothing is.
    pub fn unreserve(&mut self, base: u64, len: u64) -> Outcome {
        let is_bare = self.ranges.range(base..base + len).next().is_none();
        if self.reserved.get(&base) != Some(&len) || !is_bare {
            return Err(Code::INVALID_VALUE);
        }
        self.reserved.remove(&base);
        Ok(())
    }

    /// Whether all of it was reserved at once.
    pub fn is_reserved(&self, address: u64, len: u64) -> bool {
        let found = self.reserved.range(..=address).next_back();
        found.is_some_and(|(base, whole)| address.checked_add(len).is_some_and(|end| end <= base + whole))
    }

    /// Puts memory at reserved addresses at which nothing is.
    pub fn map(&mut self, address: u64, memory: Arc<Physical>, ordinal: u32, origin: Origin) -> Outcome {
        let len = memory.len;
        let before = self.ranges.range(..address + len).next_back();
        if before.is_some_and(|(base, range)| base + range.len > address) {
            return Err(Code::ALREADY_MAPPED);
        }
        // SAFETY: the alias of addresses that are reserved and at which nothing is mapped: nobody uses what is replaced.
        let mapped = unsafe {
            let (protection, flags) =
                (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED);
            rustix::mm::mmap(alias(address), usize_of(len), protection, flags, memory.fd(), 0)
        };
        mapped.map_err(|_| Code::OUT_OF_MEMORY)?;
        let id = self.new_id();
        self.ranges.insert(address, Range { len, memory, ordinal, origin, id, has_sync_memops: false });
        Ok(())
    }

    /// Takes away what begins at that address.
    pub fn unmap(&mut self, address: u64) -> Outcome<Range> {
        let range = self.ranges.remove(&address).ok_or(Code::INVALID_VALUE)?;
        // SAFETY: replaces the alias of a range that was mapped here. Streams hold the space while they use it, and the
        // caller has it for itself.
        let replaced = unsafe {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            rustix::mm::mmap_anonymous(alias(address), usize_of(range.len), ProtFlags::empty(), flags)
        };
        replaced.map_err(|_| Code::OPERATING_SYSTEM)?;
        Ok(range)
    }

    /// The device memory that an address lies in, and where it begins.
    pub fn range(&self, address: u64) -> Option<(u64, &Range)> {
        let (base, range) = self.ranges.range(..=address).next_back()?;
        (address - base < range.len).then_some((*base, range))
    }

    pub fn range_mut(&mut self, address: u64) -> Option<&mut Range> {
        let (base, range) = self.ranges.range_mut(..=address).next_back()?;
        (address - base < range.len).then_some(range)
    }

    /// All ranges, with where they begin.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, &Range)> {
        self.ranges.iter().map(|(base, range)| (*base, range))
    }

    /// Where whole ranges begin that make up exactly these addresses.
    pub fn whole(&self, address: u64, len: u64) -> Outcome<Vec<u64>> {
        let end = address.checked_add(len).filter(|end| *end > address).ok_or(Code::INVALID_VALUE)?;
        let (mut at, mut found) = (address, Vec::new());
        while at < end {
            found.push(at);
            at += self.ranges.get(&at).ok_or(Code::INVALID_VALUE)?.len;
        }
        if at == end { Ok(found) } else { Err(Code::INVALID_VALUE) }
    }

    /// The host memory that devices may use and that an address lies in, and where it begins.
    pub fn host_range(&self, address: u64) -> Option<(u64, &HostRange)> {
        let (base, range) = self.host.range(..=address).next_back()?;
        (address - base < range.len).then_some((*base, range))
    }

    /// Where the bytes of all these addresses are, if a copy may do that to them.
    pub fn reach(&self, address: u64, len: u64, access: Access, context: &Context) -> Option<*mut c_void> {
        let end = address.checked_add(len)?;
        if let Some((base, range)) = self.host_range(address) {
            return (end <= base + range.len).then_some(address as *mut c_void);
        }
        let mut at = address;
        loop {
            let (base, range) = self.range(at)?;
            if !range.admits(access, Agent::Copy, context) {
                return None;
            }
            at = base + range.len;
            if at >= end {
                return Some(alias(address));
            }
        }
    }

    /// The piece of memory around an address that a kernel may read. What it reads cannot be told from what it writes.
    pub fn piece(&self, address: u64, context: &Context) -> Option<Piece> {
        if let Some((base, range)) = self.host_range(address) {
            return Some(Piece { begin: base, end: base + range.len, away: 0 });
        }
        let (base, range) = self.range(address)?;
        let may = range.admits(Access::Read, Agent::Kernel, context);
        may.then_some(Piece { begin: base, end: base + range.len, away: SPAN })
    }

    /// Drops all that the context of a device has allocated and opened.
    pub fn forget(&mut self, ordinal: u32) {
        let is_gone = |range: &Range| match range.origin {
            Origin::Allocated => range.ordinal == ordinal,
            Origin::Opened { by, .. } => by == ordinal,
            Origin::Virtual { .. } => false,
        };
        let gone: Vec<u64> =
            self.ranges().filter(|(_, range)| is_gone(range)).map(|(base, _)| base).collect();
        for base in gone {
            let unmapped = self.unmap(base);
            if let Ok(range) = unmapped {
                let _ = self.unreserve(base, range.len);
            }
        }
    }
}

impl Range {
    fn admits(&self, access: Access, agent: Agent, context: &Context) -> bool {
        match &self.origin {
            Origin::Virtual { access: admitted } => {
                admitted.get(&context.ordinal).is_some_and(|may_write| *may_write || access == Access::Read)
            }
            Origin::Opened { by, .. } => {
                agent == Agent::Copy || *by == context.ordinal || context.reaches(self.ordinal)
            }
            Origin::Allocated => agent == Agent::Copy || context.reaches(self.ordinal),
        }
    }
}

fn alias(address: u64) -> *mut c_void {
    (address + SPAN) as *mut c_void
}

fn usize_of(len: u64) -> usize {
    usize::try_from(len).expect("an address has 64 bits")
}
