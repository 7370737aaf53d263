//! The set of registered local regions that every fabric checks local addresses against.

use crate::desc::{RegionKey, Span};

use super::Region;

/// Registered regions of one fabric, ordered by address. Regions may overlap: hosts register the same pool
/// more than once.
#[derive(Debug, Default)]
pub struct RegionSet {
    regions: Vec<Region>,
}

impl RegionSet {
    /// Adds a region.
    pub fn insert(&mut self, region: Region) {
        let at = self.regions.partition_point(|known| known.span.addr <= region.span.addr);
        self.regions.insert(at, region);
    }

    /// Removes the region with this key and returns it.
    pub fn remove(&mut self, key: RegionKey) -> Option<Region> {
        let at = self.regions.iter().position(|region| region.key == key)?;
        Some(self.regions.remove(at))
    }

    /// The region that holds all of `span`, if one does.
    pub fn containing(&self, span: Span) -> Option<&Region> {
        let end = span.addr.checked_add(span.len)?;
        let upto = self.regions.partition_point(|region| region.span.addr <= span.addr);
        self.regions[..upto].iter().rev().find(|region| end - region.span.addr <= region.span.len)
    }

    /// How many regions are registered.
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }
}
