//! The regions that a plan has met on one side: what a fragmented pool goes back to, descriptor after descriptor.
//!
//! In the order of their addresses, one for each address at which a region starts, so that the nearest below an
//! address is found without a branch that depends on the data: random order costs the same as any other. Holds what
//! one side of a transfer usually touches; where it touches more, those beyond are looked up in the table each time.
//!
//! It says only which region to try: whether that holds a descriptor, on the right device, is for [`Extent::holds`].

use crate::desc::Descriptor;

/// Most regions remembered: a pool for keys and one for values in each layer of a large model.
pub(super) const SLOTS: usize = 128;

/// Where a region lies; the default one holds nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    pub base: u64,
    pub len: u64,
    pub device: u32,
}

impl Extent {
    /// Whether all of `desc` lies inside. Implies that it does not wrap.
    #[inline]
    pub fn holds(&self, desc: &Descriptor) -> bool {
        let offset = desc.addr.wrapping_sub(self.base);
        offset < self.len && desc.len <= self.len - offset && desc.device == self.device
    }
}

/// See the [module](self).
pub(super) struct Seen {
    extents: [Extent; SLOTS],
    count: usize,
}

impl Default for Seen {
    fn default() -> Self {
        Self { extents: [Extent::default(); SLOTS], count: 0 }
    }
}

impl Seen {
    /// The one that starts last of those at or before `addr`. Of regions of one device, no other can hold what it
    /// does not: the table answers with the one that ends last, so that those seen end in the order they start.
    #[inline]
    pub fn nearest(&self, addr: u64) -> Extent {
        let after = self.starting_by(addr);
        if after == 0 { Extent::default() } else { self.extents[after - 1] }
    }

    /// Remembers a region, in the place of one that starts where it does; does nothing when full.
    pub fn insert(&mut self, extent: Extent) {
        let after = self.starting_by(extent.base);
        if after > 0 && self.extents[after - 1].base == extent.base {
            self.extents[after - 1] = extent;
        } else if self.count < SLOTS {
            self.extents.copy_within(after..self.count, after + 1);
            self.extents[after] = extent;
            self.count += 1;
        }
    }

    /// How many start at or before `addr`.
    #[inline]
    fn starting_by(&self, addr: u64) -> usize {
        self.extents[..self.count].partition_point(|extent| extent.base <= addr)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Party, Plan, PlanCaps, PlanError, Side, plan};
    use super::*;
    use crate::desc::{MemoryKind, Region, RegionKey, Span};
    use crate::proto::regions::{RegionLookup, RegionTable};

    const CAPS: PlanCaps = PlanCaps { segments_per_chunk: usize::MAX, bytes_per_chunk: u64::MAX };

    fn table(extents: &[Extent]) -> RegionTable {
        let mut table = RegionTable::default();
        for (key, &Extent { base: addr, len, device }) in (1..).zip(extents) {
            let span = Span { addr, len };
            table.insert(Region { key: RegionKey(key), kind: MemoryKind::Dram, device, span }).unwrap();
        }
        table
    }

    /// From both sides in the same memory: `src[i]` to `dst[i]`.
    fn made(regions: &RegionTable, src: &[Descriptor], dst: &[Descriptor]) -> Result<Plan, PlanError> {
        let side = |party, descs| Side { party, kind: MemoryKind::Dram, descs, regions };
        plan(side(Party::Local, src), side(Party::Remote, dst), CAPS)
    }

    /// What is wrong with a descriptor, found without a memory and without the table's order.
    fn naive(
        extents: &[Extent],
        regions: &RegionTable,
        index: usize,
        party: Party,
        descriptor: Descriptor,
    ) -> Option<PlanError> {
        let Some(end) = descriptor.end() else { return Some(PlanError::Wraps { index, party, descriptor }) };
        let Descriptor { addr, len, device } = descriptor;
        let holds = |byte: u64| {
            let byte = u128::from(byte);
            extents.iter().any(|at| at.device == device && u128::from(at.base) <= byte && byte < at.end())
        };
        let kind = MemoryKind::Dram;
        let outside = || {
            let miss = regions.explain(kind, device, Span { addr, len });
            PlanError::OutsideRegion { index, party, kind, descriptor, miss }
        };
        (!(addr..end).all(holds)).then(outside)
    }

    impl Extent {
        fn end(&self) -> u128 {
            u128::from(self.base) + u128::from(self.len)
        }
    }

    #[test]
    fn keeps_more_regions_than_it_remembers_apart() {
        let count = 3 * SLOTS as u64;
        let extents: Vec<_> = (0..count).map(|at| Extent { base: at * 10, len: 10, device: 0 }).collect();
        let all: Vec<_> = (0..2 * count)
            .map(|at| Descriptor { addr: at * 7 % count * 10 + at % 5, len: 5, device: 0 })
            .collect();
        let plan = made(&table(&extents), &all, &all).unwrap();
        assert_eq!(plan.bytes(), 2 * count * 5);
        assert!(plan.segments().iter().all(|segment| segment.src % 10 + segment.len <= 10));
    }

    #[test]
    fn forgets_the_region_of_another_device_at_the_same_address() {
        let mut seen = Seen::default();
        for device in [0, 1] {
            seen.insert(Extent { base: 16, len: 8, device });
        }
        assert_eq!((seen.nearest(20).device, seen.count), (1, 1));
        assert_eq!(seen.nearest(15), Extent::default());
    }

    /// Regions side by side, one after the other on up to two devices, and any regions across them.
    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        let tiles = prop::collection::vec((1_u64..24, prop::sample::select(vec![0_u32, 0, 0, 1])), 1..30);
        let across = prop::collection::vec((0_u64..400, 1_u64..60, 0_u32..2), 0..6);
        let twice = any::<bool>();
        (tiles, across, twice).prop_map(|(tiles, across, twice)| {
            let mut base = 0;
            let mut all = vec![];
            for (len, device) in tiles {
                all.push(Extent { base, len, device });
                if twice {
                    all.push(Extent { base, len, device: 1 - device });
                }
                base += len;
            }
            all.extend(across.into_iter().map(|(base, len, device)| Extent { base, len, device }));
            all
        })
    }

    /// Where a descriptor lies: in which region, how far from its start, its length, and what it gets wrong.
    fn place() -> impl Strategy<Value = (prop::sample::Index, u64, u64, u32)> {
        (any::<prop::sample::Index>(), 0_u64..24, 1_u64..8, 0_u32..60)
    }

    fn descriptor(extents: &[Extent], place: (prop::sample::Index, u64, u64, u32), len: u64) -> Descriptor {
        let (region, offset, _, wrong) = place;
        let Extent { base, len: room, device } = *region.get(extents);
        let addr = base + offset % (room.saturating_sub(len) + 1);
        match wrong {
            0 => Descriptor { addr: base + room - 1, len, device }, // over the end, into the next if there is one
            1 => Descriptor { addr, len, device: device + 1 },
            2 => Descriptor { addr: u64::MAX - 2, len, device },
            _ => Descriptor { addr, len, device },
        }
    }

    proptest! {
        /// With regions remembered, a plan holds and fails exactly as if each descriptor were looked up alone.
        #[test]
        fn agrees_with_looking_up_each_alone(
            extents in extents(),
            places in prop::collection::vec((place(), place()), 1..60),
            short in any::<bool>(),
        ) {
            let len = |place: &(_, _, u64, _)| if short { 1 } else { place.2 };
            let regions = table(&extents);
            let src: Vec<_> = places.iter().map(|(s, _)| descriptor(&extents, *s, len(s))).collect();
            let dst: Vec<_> = places.iter().map(|(s, d)| descriptor(&extents, *d, len(s))).collect();
            let pairs = src.iter().zip(&dst).enumerate();
            let wrong = pairs.clone().find_map(|(index, (s, d))| {
                naive(&extents, &regions, index, Party::Local, *s)
                    .or_else(|| naive(&extents, &regions, index, Party::Remote, *d))
            });
            match (made(&regions, &src, &dst), wrong) {
                (Err(error), wrong) => prop_assert_eq!(Some(error), wrong),
                (Ok(plan), wrong) => {
                    prop_assert_eq!(wrong, None);
                    prop_assert_eq!(plan.bytes(), src.iter().map(|desc| desc.len).sum::<u64>());
                }
            }
        }

        /// The nearest holds a descriptor wherever any of those remembered does, so that none is looked up twice.
        #[test]
        fn no_other_holds_what_the_nearest_does_not(
            extents in extents(),
            spans in prop::collection::vec((0_u64..400, 1_u64..20), 1..60),
        ) {
            let regions = table(&extents);
            let (mut seen, mut met) = (Seen::default(), vec![]);
            for (addr, len) in spans {
                let desc = Descriptor { addr, len, device: 0 };
                let nearest = seen.nearest(addr).holds(&desc);
                prop_assert_eq!(nearest, met.iter().any(|extent: &Extent| extent.holds(&desc)));
                let Some(region) = regions.containing(MemoryKind::Dram, 0, Span { addr, len }) else { continue };
                let extent = Extent { base: region.span.addr, len: region.span.len, device: 0 };
                seen.insert(extent);
                met.push(extent);
            }
        }
    }
}
