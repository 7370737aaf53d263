//! Planning again takes no memory: the arena of the last request of that size serves the next one.

use baton::desc::{Descriptor, MemoryKind, Region, RegionKey, Span};
use baton::proto::plan::{Party, Plan, PlanCaps, Side};
use baton::proto::regions::RegionTable;

use crate::memory::peak_of;

const COUNT: u64 = 10_000;
const BYTES: u64 = 4096;
const CAPS: PlanCaps = PlanCaps { segments_per_chunk: 512, bytes_per_chunk: 4 << 20 };

#[test]
fn planning_again_allocates_nothing() {
    let regions = region_of_everything();
    let in_order: Vec<u64> = (0..COUNT).map(|at| 2 * at).collect();
    let backwards: Vec<u64> = (0..COUNT).rev().map(|at| 2 * at).collect();
    let (ordered, unordered) = (descriptors(&in_order), descriptors(&backwards));
    let mut plan = Plan::default();
    let mut build = |dst: &[Descriptor]| {
        let side = |party, descs| Side { party, kind: MemoryKind::Dram, descs, regions: &regions };
        plan.rebuild(side(Party::Local, &ordered), side(Party::Remote, dst), CAPS)
            .expect("inside the region");
        assert_eq!(plan.bytes(), COUNT * BYTES);
    };
    assert!(peak_of(|| build(&unordered)) > 0, "the first plan has to have memory from somewhere");
    for dst in [&ordered, &unordered] {
        assert_eq!(peak_of(|| build(dst)), 0);
    }
}

fn region_of_everything() -> RegionTable {
    let mut regions = RegionTable::default();
    let span = Span { addr: 0, len: 2 * COUNT * BYTES };
    let region = Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span };
    regions.insert(region).expect("it is the only one");
    regions
}

fn descriptors(slots: &[u64]) -> Vec<Descriptor> {
    slots.iter().map(|slot| Descriptor { addr: slot * BYTES, len: BYTES, device: 0 }).collect()
}
