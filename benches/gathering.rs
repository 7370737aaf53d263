//! Writes of scattered pieces over ucx, straight and gathered: `cargo bench --bench gathering`; one line of it: `-- 256`.
//!
//! Two agents of one process move 4 MiB between pools whose pieces lie in opposite orders, so that nothing merges. Where the
//! two lines cross is what `ucx` has for a threshold (`BATON_GATHER_BELOW`). `BATON_UCX_LIBRARY` names another libucp than
//! the system's; `scripts/install-ucx.sh` fetches one and prints its path.
#![allow(unsafe_code)] // vouches for its own memory

use std::time::Duration;

use baton::agent::{Agent, AgentConfig, DescriptorList, TransferRequest, TransferState};
use baton::config::{EngineSettings, Environment, LaneChoice};
use baton::desc::{Descriptor, MemoryKind, TransferOp};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};

const TOTAL_BYTES: usize = 4 << 20;
const PIECES: [usize; 7] = [64, 256, 1024, 4096, 8192, 16_384, 32_768];
const WATCHDOG: Duration = Duration::from_secs(30);

criterion_group! {
    name = gathering;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = writes
}
criterion_main!(gathering);

fn writes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gathering");
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(TOTAL_BYTES as u64));
    for (way, below) in [("straight", 0), ("gathered", 512 << 10)] {
        let Some([ours, theirs]) = agents(below) else { return };
        let [from, to] = [&ours, &theirs].map(pool);
        ours.load_blob(theirs.name(), &theirs.local_blob()).expect("it loads");
        let mut has_run = false;
        for size in PIECES {
            let request = TransferRequest {
                op: TransferOp::Write,
                local: pieces(from, size, false),
                remote: pieces(to, size, true),
                peer: theirs.name().to_owned(),
                sync_message: None,
            };
            group.bench_function(BenchmarkId::new(way, size), |bencher| {
                has_run = true;
                bencher.iter(|| {
                    let transfer = ours.submit(&request).expect("it is taken");
                    assert_eq!(
                        transfer.wait(Some(WATCHDOG)),
                        TransferState::Success,
                        "{}",
                        transfer.error_text()
                    );
                });
            });
        }
        let is_as_said = (ours.gathered_chunks() > 0) == (below > 0);
        assert!(is_as_said || !has_run, "what was measured is not what is said");
    }
    group.finish();
}

/// Two agents that have ucx and nothing else.
fn agents(gather_below: u64) -> Option<[Agent; 2]> {
    let library = Environment::from_process().setting("BATON_UCX_LIBRARY").expect("UTF-8").map(Into::into);
    let settings = EngineSettings {
        lanes: LaneChoice { ucx: true, ..LaneChoice::NONE },
        interface: Some("lo".into()),
        ucx_library: library,
        gather_below: Some(gather_below),
        ..EngineSettings::default()
    };
    let open = |stem: &str| {
        let name = format!("{stem}-{gather_below}-{}", std::process::id());
        Agent::new(AgentConfig { name, settings: settings.clone() })
    };
    match (open("ours"), open("theirs")) {
        (Ok(ours), Ok(theirs)) => Some([ours, theirs]),
        (Err(error), _) | (_, Err(error)) => {
            println!("skipped: {error}");
            None
        }
    }
}

/// Registered memory with room for the pieces and gaps as long as they are. Leaked: it outlives every registration.
fn pool(agent: &Agent) -> u64 {
    let len = 2 * TOTAL_BYTES;
    let start = Box::leak(vec![1_u8; len].into_boxed_slice()).as_mut_ptr() as u64;
    let whole = vec![Descriptor { addr: start, len: len as u64, device: 0 }];
    let list = DescriptorList { kind: MemoryKind::Dram, descs: whole.into() };
    // SAFETY: it is leaked, and nobody references it any more.
    unsafe { agent.register(&list) }.expect("memory registers");
    start
}

fn pieces(start: u64, size: usize, backwards: bool) -> DescriptorList<'static> {
    let piece = |at: usize| Descriptor { addr: start + (2 * at * size) as u64, len: size as u64, device: 0 };
    let mut descs: Vec<_> = (0..TOTAL_BYTES / size).map(piece).collect();
    if backwards {
        descs.reverse();
    }
    DescriptorList { kind: MemoryKind::Dram, descs: descs.into() }
}
