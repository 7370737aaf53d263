//! Time per descriptor of the planner: `cargo bench --bench planner`; one line of it: `-- shuffled/16384`.
//!
//! Shapes: `scattered` is a head mismatch (fragments of every other slot, in order, nothing merges),
//! `adjacent` a fresh block pool (everything merges), `descending` a pool that hands blocks out from its
//! end, `shuffled` a fragmented pool in which source and destination blocks are in random order. Pools are
//! registered as 8 regions each. The throughput is in descriptors: 100 Melem/s are 10 ns for each.

use std::hint::black_box;
use std::time::Duration;

use baton::desc::{Descriptor, MemoryKind, Region, RegionKey, Span};
use baton::proto::plan::{Party, Plan, PlanCaps, Side};
use baton::proto::regions::RegionTable;
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};

const FRAGMENT_BYTES: u64 = 8 * 1024;
const REGIONS: u64 = 8;
const CAPS: PlanCaps = PlanCaps { segments_per_chunk: 512, bytes_per_chunk: 4 << 20 };

criterion_group! {
    name = planner;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = plans
}
criterion_main!(planner);

fn plans(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("planner");
    group.sampling_mode(SamplingMode::Flat);
    for count in [16_384_u64, 655_360] {
        let in_order: Vec<u64> = (0..count).collect();
        let descending: Vec<u64> = (0..count).rev().collect();
        measure(&mut group, "scattered", &in_order, &in_order, 2);
        measure(&mut group, "adjacent", &in_order, &in_order, 1);
        measure(&mut group, "descending", &descending, &descending, 1);
        measure(&mut group, "shuffled", &shuffled(count, 1), &shuffled(count, 2), 1);
    }
    group.finish();
}

/// Plans fragments at `src` slots to those at `dst` slots; a slot is `stride` fragments wide.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, shape: &str, src: &[u64], dst: &[u64], stride: u64) {
    let slot_bytes = FRAGMENT_BYTES * stride;
    let (local, remote) = (0x1000_0000_0000, 0x2000_0000_0000);
    let (local_regions, remote_regions) =
        (pool(local, src.len() as u64 * slot_bytes), pool(remote, dst.len() as u64 * slot_bytes));
    let (src, dst) = (descs(local, src, slot_bytes), descs(remote, dst, slot_bytes));
    let mut plan = Plan::default();
    group.throughput(Throughput::Elements(src.len() as u64));
    group.bench_function(BenchmarkId::new(shape, src.len()), |bencher| {
        bencher.iter(|| {
            let src = side(Party::Local, black_box(&src), &local_regions);
            let dst = side(Party::Remote, black_box(&dst), &remote_regions);
            plan.rebuild(src, dst, CAPS).expect("the lists lie inside the pools");
            black_box(&plan).bytes()
        });
    });
}

fn side<'a>(party: Party, descs: &'a [Descriptor], regions: &'a RegionTable) -> Side<'a, RegionTable> {
    Side { party, kind: MemoryKind::Dram, descs, regions }
}

fn pool(base: u64, bytes: u64) -> RegionTable {
    let mut table = RegionTable::default();
    let len = bytes / REGIONS;
    for index in 0..REGIONS {
        let span = Span { addr: base + index * len, len };
        let region = Region { key: RegionKey(index as u32), kind: MemoryKind::Dram, device: 0, span };
        table.insert(region).expect("a good region");
    }
    table
}

fn descs(base: u64, slots: &[u64], slot_bytes: u64) -> Vec<Descriptor> {
    let at = |slot: &u64| Descriptor { addr: base + slot * slot_bytes, len: FRAGMENT_BYTES, device: 0 };
    slots.iter().map(at).collect()
}

/// The numbers below `count` in an order that `seed` fixes.
fn shuffled(count: u64, seed: u64) -> Vec<u64> {
    let mut list: Vec<u64> = (0..count).collect();
    let mut state = seed;
    for at in (1..list.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        list.swap(at, (state >> 33) as usize % (at + 1));
    }
    list
}
