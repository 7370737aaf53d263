//! What a step leaves over calls for the next one: agents without a thread of their own, driven by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::crew::Crew;
use super::super::open::open;
use super::super::{Agent, AgentConfig};
use super::{CREW_LOOK, Core, ROUNDS_AT_ONCE, TICK};
use crate::config::{EngineSettings, LaneChoice};
use crate::desc::{Descriptor, MemoryKind, Region, RegionKey, Span, TransferOp};
use crate::fabric::Hand;
use crate::proto::endpoint::Action;
use crate::proto::endpoint::Submission;
use crate::proto::plan::{Party, PlanCaps, Side, plan};
use crate::proto::section::AnnouncedRegion;

/// Longer than the test, whose agents are driven too seldom for anything shorter.
const PATIENCE: Duration = Duration::from_secs(300);
/// Scattered pieces: more is said of them than may wait for a stream at a time, and less than a socket takes.
const PIECES: u64 = 6000;
/// Where they lie. Nothing is ever moved there.
const ADDR: u64 = 1 << 32;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An agent whose engine moves only when somebody drives it.
fn still(stem: &str) -> Agent {
    let lanes = LaneChoice {
        local: true,
        ucx: false,
        cuda: false,
        stream_unix: false,
        stream_tcp: false,
        explicit: true,
    };
    let settings = EngineSettings {
        lanes,
        interface: Some("lo".into()),
        peer_timeout: PATIENCE,
        stall_timeout: PATIENCE,
        ..EngineSettings::default()
    };
    let name = format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (shared, connection_info) = open(AgentConfig { name, settings }).expect("an agent opens");
    let span = Span { addr: ADDR, len: 1 << 30 };
    let region = Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span };
    let announced = AnnouncedRegion { region, keys: Vec::new() };
    shared.engine.wreck().endpoint.add_region(announced).expect("a region");
    Agent {
        shared: Arc::new(shared),
        connection_info,
        progress: Default::default(),
        loading: Default::default(),
    }
}

/// Two of them. The first has loaded the second, and nothing of either is left to do.
fn pair() -> (Agent, Agent) {
    let (ours, theirs) = (still("ours"), still("theirs"));
    let is_loaded = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_loaded.load(Ordering::Acquire) {
                theirs.shared.lend_a_hand();
            }
        });
        let loaded = ours.load_blob(theirs.name(), &theirs.local_blob()); // within its own deadline
        is_loaded.store(true, Ordering::Release);
        loaded.expect("it loads");
    });
    let deadline = Instant::now() + Duration::from_secs(20);
    while ours.shared.lend_a_hand() | theirs.shared.lend_a_hand() {
        assert!(Instant::now() < deadline, "there is always something to do");
    }
    (ours, theirs)
}

/// Submits a write that the peer is to pull, without a step of the engine.
fn submit(core: &mut Core, peer: &str, now: Instant) {
    let (_, loaded) = core.endpoint.loaded_peer(peer).expect("it is loaded");
    let lane = core.endpoint.lanes()[loaded.lanes().agreed()[0]];
    let descs: Vec<_> =
        (0..PIECES).map(|at| Descriptor { addr: ADDR + 128 * at, len: 64, device: 0 }).collect();
    let (ours, theirs) = (core.endpoint.regions(), loaded.regions());
    let side = |party, regions| Side { party, kind: MemoryKind::Dram, descs: &descs, regions };
    let caps =
        PlanCaps { segments_per_chunk: lane.segments_per_chunk, bytes_per_chunk: lane.bytes_per_chunk };
    let plan = plan(side(Party::Local, &*ours), side(Party::Remote, &*theirs), caps).expect("a plan");
    let (op, regions) = (TransferOp::Write, vec![RegionKey(1)]);
    let submission =
        Submission { peer: peer.into(), op, lane: 0, plan, gathered: None, regions, sync_message: None };
    core.endpoint.submit(submission, now).expect("it is taken");
}

/// Whether the progress thread would be woken by now, other than by time.
fn is_called(core: &Core) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&core.handle(), PollFlags::IN)], Some(&now)).expect("a look") > 0
}

/// Bytes for the peer that nobody has written, and that there is room for.
fn unsaid(core: &mut Core, now: Instant) -> usize {
    while let Some(action) = core.endpoint.poll_action(now) {
        assert!(matches!(action, Action::Committed { .. }), "{action:?}");
    }
    core.endpoint.counters().output_bytes
}

/// As the progress thread does before it looks again.
fn take_the_call(core: &Core) {
    let _ = rustix::io::read(&*core.waker(), &mut [0u8; 8]);
    core.again.hush(|| false);
}

/// A manifest is said in portions. Whoever submits it need not come back for the next one, nor wait for a tick.
#[test]
fn what_a_command_leaves_over_is_called_for() {
    let (ours, theirs) = pair();
    let mut core = ours.shared.engine.wreck();
    take_the_call(&core);
    let now = core.next_tick - TICK;
    submit(&mut core, theirs.name(), now);
    assert!(!is_called(&core));
    core.carry_on_for(1, now);
    assert!(is_called(&core), "nobody says the rest before a tick");
    take_the_call(&core);
    let before = unsaid(&mut core, now);
    assert!(before > 0, "it was all said in one round: the test shows nothing");
    core.carry_on_for(ROUNDS_AT_ONCE, now);
    assert!(!is_called(&core) && unsaid(&mut core, now) == 0, "all is said");
}

/// So it is with a step that somebody of the host's takes, who looks at a transfer once and then does something else.
#[test]
fn what_a_step_leaves_over_is_called_for() {
    let (ours, theirs) = pair();
    let mut core = ours.shared.engine.wreck();
    take_the_call(&core);
    let now = core.next_tick - TICK;
    submit(&mut core, theirs.name(), now);
    assert!(core.drive(now));
    assert!(is_called(&core), "nobody says the rest before a tick");
    let mut steps = 0;
    while is_called(&core) {
        take_the_call(&core);
        core.drive(now);
        steps += 1;
        assert!(steps < 10, "it is called for ever");
    }
    assert_eq!(unsaid(&mut core, now), 0, "all is said");
}

/// Something to copy, or not.
struct Heap(AtomicBool);

impl Hand for Heap {
    fn lend(&self) -> bool {
        false
    }

    fn has_work(&self) -> bool {
        false // every place is taken
    }

    fn is_busy(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Who copies may leave at any time. The progress thread, which has parked for a tick, is told to look sooner: once.
#[test]
fn copies_that_begin_while_the_progress_thread_is_parked_call_it() {
    let ours = still("ours");
    let mut core = ours.shared.engine.wreck();
    let heap = Arc::new(Heap(AtomicBool::new(false)));
    core.crew = Arc::new(Crew::new(vec![Arc::<Heap>::clone(&heap)], Arc::default(), 2));
    let now = core.next_tick - TICK;
    let parked_for = core.longest_park();
    take_the_call(&core);
    core.carry_on(now);
    assert!(!is_called(&core), "nothing is copied");
    heap.0.store(true, Ordering::Release);
    core.carry_on(now);
    assert!(is_called(&core), "it looks in {parked_for:?}");
    take_the_call(&core);
    core.carry_on(now);
    assert!(!is_called(&core), "it knows");
    assert_eq!(core.longest_park(), Some(CREW_LOOK));
}
