//! The set of registered local regions that every fabric checks local addresses against.

use std::collections::{BTreeMap, HashMap};

use crate::desc::{MemoryKind, RegionKey, Segment, Span, TransferOp};
use crate::error::{FabricError, FabricErrorKind};

use super::{Batch, Region};

/// Registered regions of one fabric, ordered by address. Regions may overlap: hosts register the same pool
/// more than once. Every call costs a logarithm, unless many regions overlap at the place that it is about.
#[derive(Debug, Default)]
pub struct RegionSet {
    regions: BTreeMap<(u64, RegionKey), Region>,
    addrs: HashMap<RegionKey, u64>,
    /// Length of the longest region there has been since the set was empty: none that starts farther than this
    /// before the end of a span can hold it.
    longest: u64,
    /// How many are not host memory.
    beyond_host: usize,
}

impl RegionSet {
    /// Adds a region, in the place of the one with the same key if there is one.
    pub fn insert(&mut self, region: Region) {
        self.remove(region.key);
        self.longest = self.longest.max(region.span.len);
        self.beyond_host += usize::from(region.kind != MemoryKind::Dram);
        self.addrs.insert(region.key, region.span.addr);
        self.regions.insert((region.span.addr, region.key), region);
    }

    /// Removes the region with this key and returns it.
    pub fn remove(&mut self, key: RegionKey) -> Option<Region> {
        let addr = self.addrs.remove(&key)?;
        let removed = self.regions.remove(&(addr, key));
        self.beyond_host -= usize::from(removed.is_some_and(|region| region.kind != MemoryKind::Dram));
        if self.regions.is_empty() {
            self.longest = 0;
        }
        removed
    }

    /// The region that holds all of `span`, if one does.
    pub fn containing(&self, span: Span) -> Option<&Region> {
        let end = span.addr.checked_add(span.len)?;
        let first = (end.saturating_sub(self.longest).min(span.addr), RegionKey(0));
        let mut near =
            self.regions.range(first..=(span.addr, RegionKey(u32::MAX))).rev().map(|(_, region)| region);
        near.find(|region| end - region.span.addr <= region.span.len)
    }

    /// Whether one region holds all of `span`. Looks first in the one that held the span before, which `last` keeps for
    /// the life of a borrow of this set.
    pub fn covers(&self, span: Span, last: &mut LastHit) -> bool {
        self.find(span, last).is_some()
    }

    /// The region that holds all of `span`, as in [`RegionSet::covers`].
    pub fn find<'a>(&self, span: Span, last: &'a mut LastHit) -> Option<&'a Region> {
        let is_same = span.len > 0 && last.0.is_some_and(|region| region.span.holds(span));
        if !is_same {
            last.0 = Some(*self.containing(span)?);
        }
        last.0.as_ref()
    }

    /// Whether a part of these spans is memory of a GPU. Costs nothing where no such memory is registered.
    pub fn has_vram(&self, mut spans: impl Iterator<Item = Span>) -> bool {
        let mut last = LastHit::default();
        let mut is_vram =
            |span| self.find(span, &mut last).is_some_and(|region| region.kind == MemoryKind::Vram);
        self.beyond_host > 0 && spans.any(&mut is_vram)
    }

    /// Why a fabric whose destinations' owners pull cannot take a batch into these regions, by the batch's own faults.
    pub(super) fn check_pull(
        &self,
        fabric: &'static str,
        batch: &Batch,
        segments_max: usize,
    ) -> Result<(), FabricError> {
        let refuse = |kind, detail| Err(FabricError::new(fabric, "post", kind, 0, detail));
        if batch.op != TransferOp::Read {
            let detail = format!("{} is not native here: the destination's owner posts a READ", batch.op);
            return refuse(FabricErrorKind::Unsupported, detail);
        }
        let count = batch.segments.len();
        if count == 0 || count > segments_max {
            let detail = format!("a batch has {count} segments, not 1 to {segments_max}");
            return refuse(FabricErrorKind::Unsupported, detail);
        }
        let Some(Segment { src, dst, len }) = self.find_bad(&batch.segments) else { return Ok(()) };
        let detail = format!("{dst:#x}+{len} (from {src:#x}) is empty, wraps, or is in no registered region");
        refuse(FabricErrorKind::InvalidRegion, detail)
    }

    /// The first of these segments whose destination is in no region, empty, or beyond the end of the address space on
    /// either side.
    fn find_bad<'a>(&self, segments: &'a [Segment]) -> Option<&'a Segment> {
        let mut last = LastHit::default();
        segments.iter().find(|segment| {
            let destination = Span { addr: segment.dst, len: segment.len };
            let wraps = segment.src.checked_add(segment.len).is_none();
            segment.len == 0 || wraps || !self.covers(destination, &mut last)
        })
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

/// Where the span before lay: most likely the next one lies there, too.
#[derive(Clone, Copy, Debug, Default)]
pub struct LastHit(Option<Region>);

#[cfg(test)]
mod tests {
    use super::*;

    fn region(key: u32, addr: u64, len: u64) -> Region {
        Region { key: RegionKey(key), kind: MemoryKind::Dram, device: 0, span: Span { addr, len } }
    }

    proptest::proptest! {
        #[test]
        fn finds_what_a_search_through_all_finds(
            regions in proptest::collection::vec((0u64..200, 1u64..60), 0..20),
            gone in proptest::collection::vec(0u32..20, 0..10),
            spans in proptest::collection::vec((0u64..220, 0u64..40), 1..20),
        ) {
            let mut set = RegionSet::default();
            let mut all: Vec<_> = (0u32..).zip(regions).map(|(key, (addr, len))| region(key, addr, len)).collect();
            all.iter().for_each(|region| set.insert(*region));
            for key in gone {
                let known = all.iter().position(|region| region.key == RegionKey(key)).map(|at| all.remove(at));
                proptest::prop_assert_eq!(set.remove(RegionKey(key)), known);
            }
            proptest::prop_assert_eq!(set.len(), all.len());
            let mut last = LastHit::default();
            for (addr, len) in spans {
                let holds = |region: &Region| {
                    region.span.addr <= addr && addr + len <= region.span.addr + region.span.len
                };
                let found = set.containing(Span { addr, len });
                proptest::prop_assert_eq!(found.is_some(), all.iter().any(holds));
                proptest::prop_assert!(found.is_none_or(holds));
                proptest::prop_assert_eq!(set.covers(Span { addr, len }, &mut last), found.is_some());
            }
        }
    }

    #[test]
    fn a_batch_that_cannot_be_pulled_is_refused_by_its_fault() {
        use FabricErrorKind::{InvalidRegion, Unsupported};
        let mut set = RegionSet::default();
        set.insert(region(1, 0x1000, 0x1000));
        let good = Segment { src: 0, dst: 0x1000, len: 8 };
        let of = |op, segments: &[Segment]| {
            let (token, segments) = (crate::desc::OpToken(1), segments.to_vec());
            let refused = set.check_pull("a name", &Batch { token, op, segments, header: Vec::new() }, 2);
            refused.map_err(|error| error.kind)
        };
        let pulled = |segments: &[Segment]| of(TransferOp::Read, segments);
        assert_eq!(pulled(&[good, good]), Ok(()));
        assert_eq!(of(TransferOp::Write, &[good]), Err(Unsupported));
        assert_eq!((pulled(&[]), pulled(&[good; 3])), (Err(Unsupported), Err(Unsupported)));
        for bad in [
            Segment { len: 0, ..good },
            Segment { src: u64::MAX, ..good },
            Segment { dst: 0xfff, ..good },
            Segment { dst: 0x1ffc, ..good },
        ] {
            assert_eq!(pulled(&[good, bad]), Err(InvalidRegion), "{bad:?}");
        }
    }

    #[test]
    fn spans_at_the_ends_of_the_address_space_are_no_trap() {
        let mut set = RegionSet::default();
        set.insert(region(1, 0, 16));
        set.insert(region(2, u64::MAX - 16, 16));
        assert!(set.containing(Span { addr: 0, len: 16 }).is_some());
        assert!(set.containing(Span { addr: u64::MAX - 16, len: 16 }).is_some());
        assert!(set.containing(Span { addr: u64::MAX - 1, len: 16 }).is_none(), "it wraps");
    }
}
