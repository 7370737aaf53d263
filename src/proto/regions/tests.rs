use proptest::prelude::*;

use super::*;

fn region(key: u32, addr: u64, len: u64) -> Region {
    Region { key: RegionKey(key), kind: MemoryKind::Dram, device: 0, span: Span { addr, len } }
}

fn find(table: &RegionTable, addr: u64, len: u64) -> Option<u32> {
    table.containing(MemoryKind::Dram, 0, Span { addr, len }).map(|region| region.key.0)
}

#[test]
fn finds_the_region_that_holds_all_of_a_span() {
    let mut table = RegionTable::default();
    table.insert(region(1, 100, 50)).unwrap();
    table.insert(region(2, 150, 50)).unwrap();
    assert_eq!(find(&table, 100, 50), Some(1));
    assert_eq!(find(&table, 150, 1), Some(2));
    assert_eq!(find(&table, 149, 2), None, "a span must lie in one region, not in two neighbours");
    assert_eq!(find(&table, 99, 2), None);
    assert_eq!(find(&table, u64::MAX, 2), None);
    assert!(table.containing(MemoryKind::Vram, 0, Span { addr: 100, len: 1 }).is_none());
    assert!(table.containing(MemoryKind::Dram, 1, Span { addr: 100, len: 1 }).is_none());
}

#[test]
fn a_second_registration_serves_when_the_first_is_gone() {
    let mut table = RegionTable::default();
    table.insert(region(1, 100, 50)).unwrap();
    table.insert(region(2, 100, 50)).unwrap();
    assert_eq!(table.remove(RegionKey(1)), Some(region(1, 100, 50)));
    assert_eq!(find(&table, 100, 50), Some(2));
    assert_eq!(table.remove(RegionKey(1)), None);
    assert!(table.remove(RegionKey(2)).is_some());
    assert_eq!(find(&table, 100, 1), None);
    assert!(table.is_empty());
}

#[test]
fn refuses_what_cannot_be_a_region() {
    let mut table = RegionTable::default();
    let text = |error: RegionError| error.to_string();
    let err = table.insert(region(7, 16, 0)).map_err(text).unwrap_err();
    assert_eq!(err, "region 7 at 0x10+0 has zero length: leave it out");
    let err = table.insert(region(7, u64::MAX, 1)).map_err(text).unwrap_err();
    assert_eq!(
        err,
        "region 7 at 0xffffffffffffffff+1 runs past the end of the address space: check its length"
    );
    table.insert(region(7, 16, 1)).unwrap();
    let err = table.insert(region(7, 32, 1)).map_err(text).unwrap_err();
    assert_eq!(err, "region key 7 is already in use: withdraw that region first");
    assert_eq!(table.len(), 1);
}

#[test]
fn explains_a_miss() {
    let mut table = RegionTable::default();
    let why = |table: &RegionTable, kind, addr, len| table.explain(kind, 0, Span { addr, len }).to_string();
    assert_eq!(why(&table, MemoryKind::Dram, 0, 1), "no such memory is registered at all");
    table.insert(region(1, 0x100, 0x10)).unwrap();
    assert_eq!(why(&table, MemoryKind::Dram, 0x200, 1), "no registered region touches it");
    assert_eq!(why(&table, MemoryKind::Dram, 0x10f, 2), "it crosses the edge of region 0x100+16");
    assert_eq!(why(&table, MemoryKind::Vram, 0x100, 2), "that memory is registered as DRAM of device 0");
}

proptest! {
    /// Against the obvious table: a list that is searched from end to end.
    #[test]
    fn answers_as_a_list_would(
        steps in prop::collection::vec((any::<bool>(), 0_u32..24, 0_u64..60, 1_u64..40), 1..60),
        asks in prop::collection::vec((0_u64..100, 0_u64..20), 1..40),
    ) {
        let mut table = RegionTable::default();
        let mut list: Vec<Region> = Vec::new();
        for (insert, key, addr, len) in steps {
            if insert {
                let taken = table.insert(region(key, addr, len)).is_ok();
                prop_assert_eq!(taken, list.iter().all(|known| known.key.0 != key));
                if taken {
                    list.push(region(key, addr, len));
                }
            } else {
                let known = list.iter().position(|known| known.key.0 == key);
                prop_assert_eq!(table.remove(RegionKey(key)), known.map(|at| list.remove(at)));
            }
            for &(addr, len) in &asks {
                let held = |known: &Region| known.span.addr <= addr && end_of(known) >= addr + len;
                let found = table.containing(MemoryKind::Dram, 0, Span { addr, len });
                prop_assert_eq!(found.is_some(), list.iter().any(held));
                prop_assert!(found.is_none_or(held));
            }
        }
        prop_assert_eq!(table.len(), list.len());
    }
}

/// A peer that announces and withdraws regions on one device after the other costs neither time nor memory.
#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn nothing_is_kept_of_devices_without_regions() {
    let mut table = RegionTable::default();
    for device in 0..100_000 {
        let span = Span { addr: 4096, len: 64 };
        let region = Region { key: RegionKey(device), kind: MemoryKind::Vram, device, span };
        table.insert(region).expect("a region");
        assert_eq!(table.containing(MemoryKind::Vram, device, span), Some(&region));
        assert_eq!(table.remove(RegionKey(device)), Some(region));
    }
    assert!(table.spaces.is_empty());
}

/// A peer chooses its regions: a big one over as many small ones as there may be, again and again, costs what any does.
#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn what_lies_in_what_costs_nothing() {
    let small = |key: u32| region(key, 4096 + 64 * u64::from(key), 32 + u64::from(key % 7));
    let mut table = RegionTable::default();
    let last = MAX_REGIONS as u32 - 1;
    (0..last).for_each(|key| table.insert(small(key)).expect("a region"));
    let all = region(last, 0, 1 << 40);
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        table.insert(all).expect("as many as there may be");
        assert_eq!(find(&table, 4096, 1 << 30), Some(last));
        assert_eq!(table.insert(region(last + 1, 0, 1)), Err(RegionError::Full), "one more");
        assert_eq!(table.remove(all.key), Some(all));
        assert_eq!(find(&table, 4096 + 64, 33), Some(1));
        assert_eq!(find(&table, 4096 + 64, 34), None);
    }
    // It was half a second for each of them, and takes some microseconds.
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
}
