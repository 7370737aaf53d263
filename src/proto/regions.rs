//! The registered regions of one agent, as one side of a transfer sees them: what may be read and written.
//!
//! Used twice: for our own regions and for those that a peer has announced. It answers one question, "which
//! region holds this span?", in a logarithm, however many regions overlap. It does not know rkeys and does not touch
//! memory.
//!
//! Regions may overlap, and the same memory may be registered more than once: hosts do. Adding and removing cost a
//! logarithm as well, whatever lies in what: hosts register, and withdraw, a hundred thousand at a time, and a peer
//! chooses its own.

mod reach;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use thiserror::Error;

use crate::desc::{MemoryKind, Region, RegionKey, Span};

use self::reach::{Reach, end_of};

/// Most regions one agent may have.
pub const MAX_REGIONS: usize = 1 << 20;

/// Something that knows which region holds a span.
pub trait RegionLookup {
    /// A region of this kind and device that holds all of `span`.
    fn containing(&self, kind: MemoryKind, device: u32, span: Span) -> Option<&Region>;

    /// Of the regions of this kind and device that hold the byte at `addr`, the one that ends last.
    fn reaching(&self, kind: MemoryKind, device: u32, addr: u64) -> Option<&Region>;

    /// Whether regions of this kind and device, one or several side by side, hold all of `span`.
    fn covers(&self, kind: MemoryKind, device: u32, span: Span) -> bool {
        let Some(end) = span.end() else { return false };
        let mut at = span.addr;
        while at < end {
            let Some(region) = self.reaching(kind, device, at) else { return false };
            at = region.span.end().unwrap_or(end);
        }
        true
    }

    /// Why no region holds `span`, for the error that says so.
    fn explain(&self, kind: MemoryKind, device: u32, span: Span) -> Miss;
}

/// Why no region holds a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// There is no region of this kind and device.
    Nothing,
    /// No region touches it.
    Nowhere,
    /// It begins or ends inside this region but is not all in it.
    Straddles(Region),
    /// It is registered, but as memory of another kind or device.
    OtherMemory(Region),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no such memory is registered at all"),
            Self::Nowhere => f.write_str("no registered region touches it"),
            Self::Straddles(region) => write!(f, "it crosses the edge of region {}", region.span),
            Self::OtherMemory(region) => {
                write!(f, "that memory is registered as {} of device {}", region.kind, region.device)
            }
        }
    }
}

/// Why a region was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegionError {
    /// It has no bytes.
    #[error("region {key} at {span} has zero length: leave it out")]
    Empty {
        /// Its key.
        key: RegionKey,
        /// Where it is.
        span: Span,
    },
    /// It runs past the end of the address space.
    #[error("region {key} at {span} runs past the end of the address space: check its length")]
    Wraps {
        /// Its key.
        key: RegionKey,
        /// Where it is.
        span: Span,
    },
    /// Its key is in use.
    #[error("region key {key} is already in use: withdraw that region first")]
    KeyInUse {
        /// The key.
        key: RegionKey,
    },
    /// The table is full.
    #[error("more than {MAX_REGIONS} regions: register fewer, larger ones")]
    Full,
}

/// Whether this can be a region at all: it has bytes and does not wrap.
pub fn check_region(region: &Region) -> Result<(), RegionError> {
    let Region { key, span, .. } = *region;
    if span.len == 0 {
        return Err(RegionError::Empty { key, span });
    }
    if span.end().is_none() {
        return Err(RegionError::Wraps { key, span });
    }
    Ok(())
}

/// The registered regions of one agent.
#[derive(Clone, Debug, Default)]
pub struct RegionTable {
    /// Those with regions in them: a peer may name any number of devices, one after the other.
    spaces: BTreeMap<(MemoryKind, u32), Reach>,
    by_key: BTreeMap<RegionKey, Region>,
}

impl RegionTable {
    /// Adds a region, or says why it cannot be one.
    pub fn insert(&mut self, region: Region) -> Result<(), RegionError> {
        let key = region.key;
        check_region(&region)?;
        if self.by_key.contains_key(&key) {
            return Err(RegionError::KeyInUse { key });
        }
        if self.by_key.len() >= MAX_REGIONS {
            return Err(RegionError::Full);
        }
        self.by_key.insert(key, region);
        self.spaces.entry((region.kind, region.device)).or_default().insert(region);
        Ok(())
    }

    /// Removes the region with this key and returns it.
    pub fn remove(&mut self, key: RegionKey) -> Option<Region> {
        let region = self.by_key.remove(&key)?;
        if let Entry::Occupied(mut space) = self.spaces.entry((region.kind, region.device)) {
            space.get_mut().remove(&region);
            if space.get().is_empty() {
                space.remove();
            }
        }
        Some(region)
    }

    /// The region with this key.
    pub fn by_key(&self, key: RegionKey) -> Option<&Region> {
        self.by_key.get(&key)
    }

    /// A region that holds all of `span`, whatever its kind: host and device memory of one process share one
    /// address space, so an address alone says what it is.
    pub fn holding(&self, span: Span) -> Option<&Region> {
        self.spaces.values().find_map(|space| containing(space, span))
    }

    /// All regions, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Region> {
        self.by_key.values()
    }

    /// How many regions there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    fn space(&self, kind: MemoryKind, device: u32) -> Option<&Reach> {
        self.spaces.get(&(kind, device))
    }
}

impl RegionLookup for RegionTable {
    fn containing(&self, kind: MemoryKind, device: u32, span: Span) -> Option<&Region> {
        containing(self.space(kind, device)?, span)
    }

    fn reaching(&self, kind: MemoryKind, device: u32, addr: u64) -> Option<&Region> {
        self.space(kind, device)?.farthest(addr).filter(|region| end_of(region) > addr)
    }

    fn explain(&self, kind: MemoryKind, device: u32, span: Span) -> Miss {
        let other = self.spaces.iter().filter(|(key, _)| **key != (kind, device));
        if let Some(region) = other.filter_map(|(_, space)| containing(space, span)).next() {
            return Miss::OtherMemory(*region);
        }
        let Some(space) = self.space(kind, device) else { return Miss::Nothing };
        match space.touching(span) {
            Some(region) => Miss::Straddles(*region),
            None => Miss::Nowhere,
        }
    }
}

/// A region that holds all of a span: whichever does, the one that reaches farthest from its start does, too.
fn containing(space: &Reach, span: Span) -> Option<&Region> {
    let end = span.end()?;
    space.farthest(span.addr).filter(|region| end_of(region) >= end)
}

#[cfg(test)]
mod tests;
