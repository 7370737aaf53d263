use proptest::prelude::*;

use super::super::regions::RegionTable;
use super::*;
use crate::desc::{Region, RegionKey};

const CAPS: PlanCaps = PlanCaps { segments_per_chunk: 4, bytes_per_chunk: 1000 };

fn table(spans: &[(u64, u64)]) -> RegionTable {
    let mut table = RegionTable::default();
    for (key, &(addr, len)) in (1..).zip(spans) {
        let span = Span { addr, len };
        table.insert(Region { key: RegionKey(key), kind: MemoryKind::Dram, device: 0, span }).unwrap();
    }
    table
}

fn descs(list: &[(u64, u64)]) -> Vec<Descriptor> {
    list.iter().map(|&(addr, len)| Descriptor { addr, len, device: 0 }).collect()
}

fn side<'a>(party: Party, descs: &'a [Descriptor], regions: &'a RegionTable) -> Side<'a, RegionTable> {
    Side { party, kind: MemoryKind::Dram, descs, regions }
}

/// A write from local memory at 0..10_000 to remote memory at 100_000..110_000.
fn write(src: &[(u64, u64)], dst: &[(u64, u64)]) -> Result<Plan, PlanError> {
    let (local, remote) = (table(&[(0, 10_000)]), table(&[(100_000, 10_000)]));
    let (src, dst) = (descs(src), descs(dst));
    plan(side(Party::Local, &src, &local), side(Party::Remote, &dst, &remote), CAPS)
}

fn segment(src: u64, dst: u64, len: u64) -> Segment {
    Segment { src, dst, len }
}

#[test]
fn merges_what_touches_on_both_sides() {
    let plan = write(&[(0, 10), (10, 10), (30, 10)], &[(100_000, 10), (100_010, 10), (100_020, 10)]).unwrap();
    assert_eq!(plan.segments(), [segment(0, 100_000, 20), segment(30, 100_020, 10)]);
    assert_eq!(plan.bytes(), 30);
}

#[test]
fn merges_a_descending_run() {
    let plan = write(&[(20, 10), (10, 10), (0, 10)], &[(100_020, 10), (100_010, 10), (100_000, 10)]).unwrap();
    assert_eq!(plan.segments(), [segment(0, 100_000, 30)]);
}

#[test]
fn merges_only_inside_one_region() {
    let (local, remote) = (table(&[(0, 10), (10, 10)]), table(&[(100_000, 100)]));
    let (src, dst) = (descs(&[(0, 10), (10, 10)]), descs(&[(100_000, 10), (100_010, 10)]));
    let plan = plan(side(Party::Local, &src, &local), side(Party::Remote, &dst, &remote), CAPS).unwrap();
    assert_eq!(plan.segments(), [segment(0, 100_000, 10), segment(10, 100_010, 10)]);
}

#[test]
fn splits_where_either_side_crosses_into_the_next_region() {
    let (local, remote) = (table(&[(0, 30), (30, 30)]), table(&[(100_000, 20), (100_020, 100)]));
    let (src, dst) =
        (descs(&[(0, 10), (10, 40), (50, 10)]), descs(&[(100_000, 10), (100_010, 40), (100_050, 10)]));
    let plan = plan(side(Party::Local, &src, &local), side(Party::Remote, &dst, &remote), CAPS).unwrap();
    let expected = [
        segment(0, 100_000, 10),
        segment(10, 100_010, 10),
        segment(20, 100_020, 10),
        segment(30, 100_030, 20),
        segment(50, 100_050, 10),
    ];
    assert_eq!(plan.segments(), expected);
    assert_eq!(plan.bytes(), 60);
}

#[test]
fn a_gap_between_regions_is_no_edge() {
    let (local, remote) = (table(&[(0, 30), (31, 30)]), table(&[(100_000, 100)]));
    let (src, dst) = (descs(&[(10, 40)]), descs(&[(100_010, 40)]));
    let error = plan(side(Party::Local, &src, &local), side(Party::Remote, &dst, &remote), CAPS).unwrap_err();
    assert!(matches!(error, PlanError::OutsideRegion { index: 0, party: Party::Local, .. }), "{error}");
}

#[test]
fn cuts_at_both_caps() {
    let src: Vec<_> = (0..6).map(|i| (i * 20, 10)).collect();
    let dst: Vec<_> = (0..6).map(|i| (100_000 + i * 20, 10)).collect();
    let plan = write(&src, &dst).unwrap();
    assert_eq!(plan.chunks().map(<[Segment]>::len).collect::<Vec<_>>(), [4, 2]);

    let plan = write(&[(0, 600), (700, 500)], &[(100_000, 600), (100_700, 500)]).unwrap();
    assert_eq!(plan.chunks().map(<[Segment]>::len).collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn splits_a_long_segment_over_chunks_of_its_own() {
    let plan = write(&[(0, 10), (100, 2500), (5000, 10)], &[(100_000, 10), (100_100, 2500), (105_000, 10)]);
    let plan = plan.unwrap();
    let expected: [&[Segment]; 4] = [
        &[segment(0, 100_000, 10)],
        &[segment(100, 100_100, 1000)],
        &[segment(1100, 101_100, 1000)],
        &[segment(2100, 102_100, 500), segment(5000, 105_000, 10)],
    ];
    assert_eq!(plan.chunks().collect::<Vec<_>>(), expected);
    for (index, chunk) in expected.into_iter().enumerate() {
        assert_eq!(plan.chunk(index), Some(chunk));
    }
    assert_eq!(plan.chunk(4), None);
}

#[test]
fn errors_name_the_descriptor_and_the_way_out() {
    let text = |src: &[(u64, u64)], dst: &[(u64, u64)]| write(src, dst).unwrap_err().to_string();
    assert_eq!(
        text(&[], &[]),
        "the transfer names no memory, both descriptor lists are empty: pass at least one descriptor"
    );
    assert_eq!(
        text(&[(0, 1), (1, 1)], &[(100_000, 1)]),
        "2 local descriptors but 1 remote ones: they are paired one to one, pass as many of each"
    );
    assert_eq!(
        text(&[(0, 1), (16, 2)], &[(100_000, 1), (100_016, 3)]),
        "descriptor 1: local 0x10+2 and remote 0x186b0+3 differ in length: a pair is one copy"
    );
    assert_eq!(
        text(&[(0, 1), (16, 0)], &[(100_000, 1), (100_016, 0)]),
        "local descriptor 1 (0x10+0) has zero length: leave the pair out"
    );
    assert_eq!(
        text(&[(0, 2)], &[(u64::MAX, 2)]),
        "remote descriptor 0 (0xffffffffffffffff+2) runs past the end of the address space: check its length"
    );
    assert_eq!(
        text(&[(9_999, 2)], &[(100_000, 2)]),
        "local descriptor 0 (DRAM 0x270f+2) is not inside one registered region: it crosses the edge of region \
         0x0+10000; register the memory with this agent first"
    );
    assert_eq!(
        text(&[(0, 2)], &[(5, 2)]),
        "remote descriptor 0 (DRAM 0x5+2) is not inside one registered region: no registered region touches it; \
         register the memory on the peer, then load the peer's metadata again"
    );
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn bounds_descriptors_and_bytes() {
    let many = vec![Descriptor { addr: 0, len: 1, device: 0 }; MAX_DESCRIPTORS + 1];
    let regions = table(&[(0, u64::MAX)]);
    let both = |descs| (side(Party::Local, descs, &regions), side(Party::Remote, descs, &regions));
    let (src, dst) = both(&many);
    assert_eq!(plan(src, dst, CAPS), Err(PlanError::TooMany { count: MAX_DESCRIPTORS + 1 }));
    let (src, dst) = both(&many[1..]);
    assert_eq!(plan(src, dst, CAPS).unwrap().bytes(), MAX_DESCRIPTORS as u64);

    let huge = descs(&[(0, u64::MAX), (0, u64::MAX)]);
    let (src, dst) = both(&huge[1..]);
    let caps = PlanCaps { segments_per_chunk: 0, bytes_per_chunk: 0 };
    assert_eq!(plan(src, dst, caps), Err(PlanError::TooLarge { index: 0 }));
    let (src, dst) = both(&huge);
    let caps = PlanCaps { segments_per_chunk: 1, bytes_per_chunk: u64::MAX };
    assert_eq!(plan(src, dst, caps), Err(PlanError::TooLarge { index: 1 }));
}

#[test]
fn a_failed_rebuild_leaves_nothing_behind() {
    let regions = table(&[(0, 100)]);
    let (good, bad) = (descs(&[(0, 10), (50, 10)]), descs(&[(0, 10), (95, 10)]));
    let mut plan = Plan::default();
    let mut rebuild = |descs| {
        let outcome =
            plan.rebuild(side(Party::Local, descs, &regions), side(Party::Remote, descs, &regions), CAPS);
        (outcome.is_ok(), plan.segments().len(), plan.chunk_count(), plan.bytes())
    };
    assert_eq!(rebuild(&good), (true, 2, 1, 20));
    assert_eq!(rebuild(&bad), (false, 0, 0, 0));
    assert_eq!(rebuild(&good), (true, 2, 1, 20));
}

#[test]
fn kind_and_device_must_match() {
    let regions = table(&[(0, 100)]);
    let descs = [Descriptor { addr: 0, len: 10, device: 0 }, Descriptor { addr: 10, len: 10, device: 1 }];
    let (src, dst) = (side(Party::Local, &descs, &regions), side(Party::Remote, &descs, &regions));
    let error = plan(src, dst, CAPS).unwrap_err();
    assert!(matches!(error, PlanError::OutsideRegion { index: 1, party: Party::Local, .. }), "{error}");
    let src = Side { kind: MemoryKind::Vram, ..side(Party::Local, &descs[..1], &regions) };
    let error = plan(src, side(Party::Remote, &descs[..1], &regions), CAPS).unwrap_err().to_string();
    assert!(error.contains("(VRAM 0x0+10)") && error.contains("registered as DRAM of device 0"), "{error}");
}

const MEMORY: usize = 256;

fn copy(memory: &[u8], into: &mut [u8], src: u64, dst: u64, len: u64) {
    let (src, dst, len) = (src as usize, dst as usize, len as usize);
    into[dst..dst + len].copy_from_slice(&memory[src..src + len]);
}

/// Pairs of blocks: `block` of 0..16 on each side, pieces of 1 to 16 bytes. Small enough that neighbours,
/// overlaps and repetitions are common.
fn pairs() -> impl Strategy<Value = Vec<(u64, u64, u64)>> {
    let block = (0_u64..15, 0_u64..15, prop::sample::select(vec![16_u64, 16, 16, 8, 1, 32]));
    prop::collection::vec(block.prop_map(|(src, dst, len)| (src * 16, dst * 16, len)), 1..40)
}

/// Registered spans: all of the memory, two that overlap, or any.
fn cuts() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let any = prop::collection::vec((0_u64..256, 1_u64..256), 1..5)
        .prop_map(|spans| spans.into_iter().map(|(at, len)| (at, len.min(256 - at))).collect());
    prop_oneof![2 => Just(vec![(0, 256)]), 2 => Just(vec![(0, 144), (112, 144)]), 1 => any]
}

proptest! {
    /// The plan does what copying pair by pair does: same final state, nothing else written, in bounds of
    /// regions and caps; and it fails exactly where a byte of a pair lies in no region.
    #[test]
    fn does_what_the_naive_copy_does(
        pairs in pairs(),
        src_regions in cuts(),
        dst_regions in cuts(),
        segments_per_chunk in 1_usize..6,
        bytes_per_chunk in 1_u64..80,
    ) {
        let (local, remote) = (table(&src_regions), table(&dst_regions));
        let src: Vec<_> = pairs.iter().map(|&(addr, _, len)| Descriptor { addr, len, device: 0 }).collect();
        let dst: Vec<_> = pairs.iter().map(|&(_, addr, len)| Descriptor { addr, len, device: 0 }).collect();
        let caps = PlanCaps { segments_per_chunk, bytes_per_chunk };
        let made = plan(side(Party::Local, &src, &local), side(Party::Remote, &dst, &remote), caps);

        let inside = |regions: &[(u64, u64)], addr: u64, len: u64| {
            regions.iter().any(|&(at, size)| at <= addr && addr + len <= at + size)
        };
        let covered = |regions: &[(u64, u64)], addr: u64, len: u64| {
            (addr..addr + len).all(|byte| inside(regions, byte, 1))
        };
        let good = |&(s, d, len): &(u64, u64, u64)| covered(&src_regions, s, len) && covered(&dst_regions, d, len);
        let first_bad = pairs.iter().position(|pair| !good(pair));
        match made {
            Err(PlanError::OutsideRegion { index, .. }) => prop_assert_eq!(Some(index), first_bad),
            Err(error) => prop_assert!(false, "{}", error),
            Ok(made) => {
                prop_assert_eq!(first_bad, None);
                let memory: Vec<u8> = (0..MEMORY).map(|at| at as u8).collect();
                let (mut naive, mut planned) = (vec![0xEE_u8; MEMORY], vec![0xEE_u8; MEMORY]);
                pairs.iter().for_each(|&(s, d, len)| copy(&memory, &mut naive, s, d, len));
                made.segments().iter().for_each(|seg| copy(&memory, &mut planned, seg.src, seg.dst, seg.len));
                prop_assert_eq!(naive, planned);
                prop_assert_eq!(made.bytes(), pairs.iter().map(|pair| pair.2).sum::<u64>());
                prop_assert_eq!(made.chunks().map(<[Segment]>::len).sum::<usize>(), made.segments().len());
                for chunk in made.chunks() {
                    prop_assert!(!chunk.is_empty() && chunk.len() <= segments_per_chunk);
                    prop_assert!(chunk.iter().map(|seg| seg.len).sum::<u64>() <= bytes_per_chunk);
                }
                for seg in made.segments() {
                    prop_assert!(inside(&src_regions, seg.src, seg.len) && inside(&dst_regions, seg.dst, seg.len));
                }
            }
        }
    }

    /// Runs that touch on both sides, in either direction, come out as one segment.
    #[test]
    fn merges_every_run(lens in prop::collection::vec(1_u64..20, 1..30), descending in any::<bool>()) {
        let starts = lens.iter().scan(0, |at, len| Some(std::mem::replace(at, *at + len)));
        let mut run: Vec<_> = starts.zip(lens.iter().copied()).collect();
        if descending {
            run.reverse();
        }
        let dst: Vec<_> = run.iter().map(|&(at, len)| (at + 100_000, len)).collect();
        let total = lens.iter().sum();
        let made = write(&run, &dst).unwrap();
        let merged: u64 = made.segments().iter().map(|seg| seg.len).sum();
        prop_assert_eq!((merged, made.segments().len()), (total, 1));
    }
}
