//! Registering memory where a library takes its time: nobody else waits, and nothing is left behind.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::agent::{Agent, AgentConfig, TransferRequest, TransferState};
use baton::desc::{PeerKey, RegionKey, TransferOp};
use baton::error::{FabricError, FabricErrorKind};
use baton::fabric::local::{LocalConfig, LocalFabric};
use baton::fabric::{Batch, Fabric, Limits, Link, Pinning, Posted, Region, Sink};
use parking_lot::{Condvar, Mutex};

use crate::pair::{Lane, Pool, WATCHDOG, dram, eventually, settings, unique};

/// What a pinning library is to do, and what it holds.
#[derive(Default)]
struct Library {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whoever pins waits.
    stuck: bool,
    waiting: usize,
    pinned: BTreeSet<RegionKey>,
    /// Pinning fails once so many are pinned.
    room: Option<usize>,
}

impl Library {
    fn set_stuck(&self, stuck: bool) {
        self.state.lock().stuck = stuck;
        self.changed.notify_all();
    }

    fn await_waiter(&self) {
        eventually("a thread at the gate", || (self.state.lock().waiting > 0).then_some(()));
    }

    fn pinned(&self) -> usize {
        self.state.lock().pinned.len()
    }
}

impl Pinning for Library {
    unsafe fn pin(&self, region: &Region) -> Result<(), FabricError> {
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.stuck {
            let late = self.changed.wait_for(&mut state, WATCHDOG).timed_out();
            assert!(!late, "nobody has opened the gate");
        }
        state.waiting -= 1;
        if state.room.is_some_and(|room| state.pinned.len() >= room) {
            return Err(FabricError::new("local", "pin", FabricErrorKind::NoResource, 12, "no more pages"));
        }
        assert!(state.pinned.insert(region.key), "{} was pinned before", region.key);
        Ok(())
    }

    fn unpin(&self, key: RegionKey) {
        self.state.lock().pinned.remove(&key);
    }
}

/// The local fabric, with a library that pins.
struct Pinned(LocalFabric, Arc<Library>);

impl Fabric for Pinned {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn address(&self) -> Vec<u8> {
        self.0.address()
    }

    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        assert!(self.1.state.lock().pinned.contains(&region.key), "{} is not pinned", region.key);
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.0.register(region) }
    }

    fn deregister(&mut self, key: RegionKey) {
        self.0.deregister(key);
    }

    fn pinning(&self) -> Option<Arc<dyn Pinning>> {
        Some(Arc::clone(&self.1) as Arc<dyn Pinning>)
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        self.0.connect(peer, link);
    }

    fn disconnect(&mut self, peer: PeerKey) {
        self.0.disconnect(peer);
    }

    fn import(&mut self, peer: PeerKey, region: &Region, key: Option<&[u8]>) -> Result<(), FabricError> {
        self.0.import(peer, region, key)
    }

    fn post(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        self.0.post(peer, batch)
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        self.0.poll(budget_bytes, sink)
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        self.0.wake()
    }
}

/// An agent that pins, with the silence that it bears.
fn pinning_agent(stem: &str, peer_timeout: Duration) -> (Agent, Arc<Library>) {
    let library = Arc::new(Library::default());
    let fabric = Pinned(LocalFabric::open(LocalConfig::default()).expect("opens"), Arc::clone(&library));
    let settings = baton::config::EngineSettings { peer_timeout, ..settings(Lane::Local) };
    let agent = Agent::with_fabrics(AgentConfig { name: unique(stem), settings }, vec![Box::new(fabric)]);
    (agent.expect("an agent opens"), library)
}

const PATIENCE: Duration = Duration::from_secs(3);

#[test]
fn a_registration_that_takes_seconds_costs_no_heartbeat_and_no_transfer() {
    let ((ctx, library), (gene, _)) = (pinning_agent("ctx", PATIENCE), pinning_agent("gen", PATIENCE));
    let (ctx_pool, gen_pool, late) = (Pool::new(1 << 20, 3), Pool::new(1 << 20, 0), Pool::new(4096, 9));
    ctx_pool.register(&ctx);
    gen_pool.register(&gene);
    ctx.load_blob(gene.name(), &gene.local_blob()).expect("loads");
    gene.load_blob(ctx.name(), &ctx.local_blob()).expect("loads");
    let write = |from: &Pool, len| {
        let (local, remote) = (dram(vec![from.desc(0, len)]), dram(vec![gen_pool.desc(0, len)]));
        let peer = gene.name().to_owned();
        let request = TransferRequest { op: TransferOp::Write, local, remote, peer, sync_message: None };
        let transfer = ctx.submit(&request).expect("taken");
        assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
    };
    library.set_stuck(true);
    std::thread::scope(|scope| {
        let registering = scope.spawn(|| late.register(&ctx));
        library.await_waiter();
        write(&ctx_pool, 1 << 20);
        // Longer than either side bears silence; nothing but heartbeats goes between them.
        gene.wait_for_notifications(Instant::now() + PATIENCE * 2);
        ctx.loaded_link(gene.name()).expect("the peer still stands");
        gene.loaded_link(ctx.name()).expect("nor has the peer lost us");
        write(&ctx_pool, 1 << 20);
        assert!(!registering.is_finished(), "it was to be stuck until here");
        library.set_stuck(false);
        registering.join().expect("registered");
    });
    write(&late, 4096);
    assert_eq!(library.pinned(), 2);
    ctx.deregister(&late.all());
    ctx.deregister(&ctx_pool.all());
    assert_eq!(library.pinned(), 0, "what is deregistered is unpinned");
}

#[test]
fn a_registration_that_outlives_its_agent_is_refused_and_leaves_nothing_pinned() {
    let (ctx, library) = pinning_agent("ctx", PATIENCE);
    let pool = Pool::new(8192, 1);
    library.set_stuck(true);
    std::thread::scope(|scope| {
        // SAFETY: a pool is leaked, so it stays mapped.
        let registering = scope.spawn(|| unsafe { ctx.register(&pool.all()) });
        library.await_waiter();
        ctx.shutdown(); // does not wait for it
        library.set_stuck(false);
        let error = registering.join().expect("no panic").expect_err("shut down");
        assert!(error.to_string().contains("has been shut down"), "{error}");
    });
    assert_eq!(library.pinned(), 0);
}

#[test]
fn all_of_a_list_is_registered_or_nothing() {
    let (ctx, library) = pinning_agent("ctx", PATIENCE);
    let pool = Pool::new(4 * 4096, 1);
    let list = dram((0..4).map(|n| pool.desc(n * 4096, 4096)).collect::<Vec<_>>());
    library.state.lock().room = Some(2);
    // SAFETY: as above.
    let error = unsafe { ctx.register(&list) }.expect_err("the third does not fit").to_string();
    assert!(error.contains("descriptor 2") && error.contains("no more pages"), "{error}");
    assert_eq!(library.pinned(), 0, "the two that fitted are unpinned");
    library.state.lock().room = None;
    // SAFETY: as above.
    unsafe { ctx.register(&list) }.expect("there is room now");
    assert_eq!(library.pinned(), 4);
    ctx.deregister(&list);
    assert_eq!(library.pinned(), 0);
}
