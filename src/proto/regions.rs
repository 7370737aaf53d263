//! The registered regions of one agent, as one side of a transfer sees them: what may be read and written.
//!
//! Used twice: for our own regions and for those that a peer has announced. It answers one question, "which
//! region holds this span?", in a binary search with a single candidate, however many regions overlap. It
//! does not know rkeys and does not touch memory.
//!
//! Regions may overlap, and the same memory may be registered more than once: hosts do. Invariant of each
//! `Space`: `front` holds the regions that lie inside no other one, by address, so that addresses and ends both
//! ascend and the last region that starts at or before an address reaches farthest. Adding and removing cost a
//! logarithm as well: hosts register, and withdraw, a hundred thousand at a time.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use thiserror::Error;

use crate::desc::{MemoryKind, Region, RegionKey, Span};

/// Most regions one agent may have.
pub const MAX_REGIONS: usize = 1 << 20;

/// Something that knows which region holds a span.
pub trait RegionLookup {
    /// A region of this kind and device that holds all of `span`.
    fn containing(&self, kind: MemoryKind, device: u32, span: Span) -> Option<&Region>;

    /// Why no region holds `span`, for the error that says so.
    fn explain(&self, kind: MemoryKind, device: u32, span: Span) -> Miss;
}

/// Why no region holds a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No region touches it.
    Nowhere {
        /// Regions of the same kind and device there are.
        regions: usize,
    },
    /// It begins or ends inside this region but is not all in it.
    Straddles(Region),
    /// It is registered, but as memory of another kind or device.
    OtherMemory(Region),
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere { regions: 0 } => f.write_str("no such memory is registered at all"),
            Self::Nowhere { regions } => write!(f, "none of the {regions} registered regions touches it"),
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
    spaces: BTreeMap<(MemoryKind, u32), Space>,
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
            if space.get().all.is_empty() {
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
        self.spaces.values().find_map(|space| space.containing(span))
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

    fn space(&self, kind: MemoryKind, device: u32) -> Option<&Space> {
        self.spaces.get(&(kind, device))
    }
}

impl RegionLookup for RegionTable {
    fn containing(&self, kind: MemoryKind, device: u32, span: Span) -> Option<&Region> {
        self.space(kind, device)?.containing(span)
    }

    fn explain(&self, kind: MemoryKind, device: u32, span: Span) -> Miss {
        let other = self.spaces.iter().filter(|(key, _)| **key != (kind, device));
        if let Some(region) = other.filter_map(|(_, space)| space.containing(span)).next() {
            return Miss::OtherMemory(*region);
        }
        let Some(space) = self.space(kind, device) else { return Miss::Nowhere { regions: 0 } };
        match space.front.values().find(|region| touches(region.span, span)) {
            Some(region) => Miss::Straddles(*region),
            None => Miss::Nowhere { regions: space.all.len() },
        }
    }
}

/// The regions of one memory kind and device.
#[derive(Clone, Debug, Default)]
struct Space {
    all: BTreeMap<Place, Region>,
    front: BTreeMap<u64, Region>,
}

/// Orders regions by address, the longest first where addresses are equal.
type Place = (u64, std::cmp::Reverse<u64>, RegionKey);

impl Space {
    fn containing(&self, span: Span) -> Option<&Region> {
        let end = span.end()?;
        let (_, region) = self.front.range(..=span.addr).next_back()?;
        (end_of(region) >= end).then_some(region)
    }

    fn insert(&mut self, region: Region) {
        self.all.insert(place(&region), region);
        if self.containing(region.span).is_some() {
            return;
        }
        let from_here = self.front.range(region.span.addr..);
        let covered = from_here.take_while(|(_, known)| end_of(known) <= end_of(&region));
        let covered: Vec<u64> = covered.map(|(addr, _)| *addr).collect();
        covered.iter().for_each(|addr| _ = self.front.remove(addr));
        self.front.insert(region.span.addr, region);
    }

    /// Takes the region out; those that only it had covered step into the front in its place.
    fn remove(&mut self, region: &Region) {
        self.all.remove(&place(region));
        let addr = region.span.addr;
        if self.front.get(&addr).is_none_or(|known| known.key != region.key) {
            return;
        }
        self.front.remove(&addr);
        let mut reach = self.front.range(..addr).next_back().map_or(0, |(_, before)| end_of(before));
        let next = self.front.range(addr..).next().map_or(end_of(region), |(next, _)| *next);
        let first = (addr, std::cmp::Reverse(u64::MAX), RegionKey(0));
        for candidate in self.all.range(first..).map(|(_, candidate)| candidate) {
            if candidate.span.addr >= next {
                break;
            }
            if end_of(candidate) > reach {
                reach = end_of(candidate);
                self.front.insert(candidate.span.addr, *candidate);
            }
        }
    }
}

fn place(region: &Region) -> Place {
    (region.span.addr, std::cmp::Reverse(region.span.len), region.key)
}

/// One past the last byte; the table holds no region that wraps.
fn end_of(region: &Region) -> u64 {
    region.span.addr + region.span.len
}

fn touches(a: Span, b: Span) -> bool {
    a.addr < b.addr.saturating_add(b.len) && b.addr < a.addr.saturating_add(a.len)
}

#[cfg(test)]
mod tests;
