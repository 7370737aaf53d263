//! Panics in the engine: that agent ends, alone, at once and truthfully.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use baton::agent::{Agent, AgentConfig, NotRunning, Transfer, TransferError, TransferState, fabrics_of};
use baton::config::EngineSettings;
use baton::desc::{PeerKey, TransferOp};
use baton::error::FabricError;
use baton::fabric::registry::open;
use baton::fabric::{Batch, Fabric, Link, Posted, Region, Sink};

use crate::forward::hand_on;
use crate::logged;
use crate::pair::{Lane, Pair, Pool, WATCHDOG, agent, dram, eventually, settings, unique};

const LEN: usize = 8 << 20;
const SAID: &str = "slab index 7";

/// What a fabric is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Mood {
    /// Its work.
    Willing,
    /// Nothing, so that what is under way stays so.
    Idle,
    /// Panic where the progress thread polls it.
    PanicsInProgress,
    /// Panic where anybody else does.
    PanicsInCaller,
    /// Panic in a call that is not part of a drive.
    PanicsInRegister,
}

/// Sets the mood of a fabric.
#[derive(Clone, Default)]
struct Fuse(Arc<AtomicU8>);

impl Fuse {
    fn set(&self, mood: Mood) {
        self.0.store(mood as u8, Ordering::SeqCst);
    }

    fn is(&self, mood: Mood) -> bool {
        self.0.load(Ordering::SeqCst) == mood as u8
    }
}

/// A real fabric with a fuse.
struct Fused {
    inner: Box<dyn Fabric>,
    fuse: Fuse,
    /// Panics when it is dropped, too.
    clings: bool,
}

impl Fabric for Fused {
    hand_on!();

    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        assert!(!self.fuse.is(Mood::PanicsInRegister), "{SAID}");
        // SAFETY: the caller's promise is the callee's.
        unsafe { self.inner.register(region) }
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        self.inner.connect(peer, link);
    }

    fn post(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        match self.fuse.is(Mood::Willing) {
            true => self.inner.post(peer, batch),
            false => Ok(Posted::Full(batch)),
        }
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        let is_progress = std::thread::current().name() == Some("baton-progress");
        let lit = if is_progress { Mood::PanicsInProgress } else { Mood::PanicsInCaller };
        assert!(!self.fuse.is(lit), "{SAID}");
        self.fuse.is(Mood::Willing) && self.inner.poll(budget_bytes, sink)
    }

    /// Without a handle it is polled in every drive, whether it has something to do or a panic in it.
    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl Drop for Fused {
    fn drop(&mut self) {
        assert!(!self.clings, "it clings");
    }
}

/// Peers bear more silence than a test lasts, so that nothing is found out by it.
fn fused(stem: &str, lane: Lane, clings: bool) -> (Agent, Fuse) {
    let fuse = Fuse::default();
    let settings = EngineSettings { peer_timeout: WATCHDOG * 2, ..settings(lane) };
    let opened = open(fabrics_of(&settings, IpAddr::V4(Ipv4Addr::LOCALHOST)));
    let fabrics = opened.into_iter().map(|opened| -> Box<dyn Fabric> {
        Box::new(Fused { inner: opened.outcome.expect("it opens"), fuse: fuse.clone(), clings })
    });
    let fabrics = fabrics.collect();
    let agent = Agent::with_fabrics(AgentConfig { name: unique(stem), settings }, fabrics).expect("it opens");
    (agent, fuse)
}

/// A pair with a write of everything under way that cannot end.
struct Doomed {
    pair: Pair,
    ctx_fuse: Fuse,
    gen_fuse: Fuse,
    /// Whether a fabric of the context panics when it is closed, too.
    clings: bool,
    transfer: Option<Transfer>,
}

impl Doomed {
    fn new(lane: Lane, clings: bool) -> Self {
        logged::listen();
        let ((ctx, ctx_fuse), (gene, gen_fuse)) = (fused("ctx", lane, clings), fused("gen", lane, false));
        let pair = Pair::of((ctx, gene), LEN);
        pair.gene.load_blob(pair.ctx.name(), &pair.ctx.local_blob()).expect("the context loads");
        pair.run(&pair.request(
            TransferOp::Write,
            vec![pair.ctx_pool.desc(0, 64)],
            vec![pair.gen_pool.desc(0, 64)],
        ));
        ctx_fuse.set(Mood::Idle);
        gen_fuse.set(Mood::Idle);
        let mut doomed = Self { pair, ctx_fuse, gen_fuse, clings, transfer: None };
        doomed.transfer = Some(doomed.submit());
        doomed
    }

    fn submit(&self) -> Transfer {
        let Pair { ctx, ctx_pool, gen_pool, .. } = &self.pair;
        let request =
            self.pair.request(TransferOp::Write, vec![ctx_pool.desc(0, LEN)], vec![gen_pool.desc(0, LEN)]);
        ctx.submit(&request).expect("taken")
    }

    /// All that has to hold once the engine of the context has failed.
    fn check(mut self, lane: Lane, said: &str, exposed: bool) {
        let transfer = self.transfer.take().expect("it was submitted");
        assert_eq!(
            transfer.wait(Some(WATCHDOG)),
            TransferState::Failure,
            "nobody waits, and it is no success"
        );
        assert!(matches!(transfer.error(), Some(TransferError::EngineFailed(text)) if text.contains(said)));
        assert!(
            transfer.error_text().contains("the engine of this agent failed"),
            "{}",
            transfer.error_text()
        );
        assert_eq!(transfer.release(), !exposed, "{lane:?}");
        self.check_calls(said);
        self.check_memory(exposed);
        let Pair { ctx, gene, gen_pool, .. } = &self.pair;
        match self.clings {
            // Its writes may still land there, and the end of the stream would say that they do not: the peer's own
            // deadline is to end it, unless its lane breaks before.
            true => return assert!(lane != Lane::Ucx || gene.loaded_link(ctx.name()).is_ok(), "it was told"),
            // The peer learns by the sockets: its own deadline is twice the watchdog.
            false => drop(eventually("the peer's notice", || gene.loaded_link(ctx.name()).err())),
        }
        let begun = Instant::now();
        ctx.shutdown();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        drop(transfer);
        // The peer goes on, also with a new agent of the same name.
        self.gen_fuse.set(Mood::Willing);
        let again = crate::pair::named_agent(ctx.name().to_owned(), lane);
        let pool = Pool::new(LEN, 9);
        pool.register(&again);
        again.load_blob(gene.name(), &gene.local_blob()).expect("the peer lives");
        let mut request =
            self.pair.request(TransferOp::Write, vec![pool.desc(0, LEN)], vec![gen_pool.desc(0, LEN)]);
        request.sync_message = Some(b"alive".to_vec());
        let transfer = again.submit(&request).expect("taken");
        assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
        assert!(gen_pool.bytes().iter().all(|byte| *byte == 9));
    }

    /// Every call is the same typed error, or what stands for one.
    fn check_calls(&self, said: &str) {
        let Pair { ctx, gene, ctx_pool, gen_pool } = &self.pair;
        let failed = ctx.check_running().expect_err("it has failed");
        assert!(
            matches!(&failed, NotRunning::Failed { agent, text } if agent == ctx.name() && text.contains(said))
        );
        let text = failed.to_string();
        assert!(text.starts_with(&format!("the engine of agent '{}' failed: ", ctx.name())), "{text}");
        assert!(text.contains("this agent can no longer be used"), "{text}");
        let request =
            self.pair.request(TransferOp::Write, vec![ctx_pool.desc(0, 8)], vec![gen_pool.desc(0, 8)]);
        assert_eq!(ctx.submit(&request).expect_err("submit").to_string(), text);
        assert_eq!(ctx.notify(gene.name(), b"x").expect_err("notify").to_string(), text);
        assert_eq!(ctx.load_blob(gene.name(), &gene.local_blob()).expect_err("load").to_string(), text);
        assert_eq!(ctx.load_from(gene.name(), &gene.connection_info()).expect_err("load").to_string(), text);
        assert_eq!(ctx.loaded_link(gene.name()).expect_err("link").to_string(), text);
        // SAFETY: a pool is leaked, so it stays mapped.
        let refused = unsafe { ctx.register(&ctx_pool.all()) }.expect_err("register");
        assert_eq!(refused.to_string(), text);
        assert!(!ctx.check_remote(gene.name(), &dram(vec![gen_pool.desc(0, 8)])));
        assert!(ctx.local_blob().is_empty() && ctx.take_notifications().is_empty());
        ctx.invalidate(gene.name());
        ctx.wait_for_notifications(Instant::now() + WATCHDOG * 2); // at once, or the watchdog of the whole run barks
        ctx.park_for_notifications(Instant::now() + WATCHDOG * 2, || false);
        let counters = ctx.counters();
        assert_eq!((counters.streams, counters.transfers), (0, 0));
    }

    /// What may still be touched is not said to be free.
    fn check_memory(&self, exposed: bool) {
        let Pair { ctx, ctx_pool, .. } = &self.pair;
        ctx.deregister(&ctx_pool.all());
        ctx.deregister(&ctx_pool.all()); // once
        let told = logged::errors_of(ctx.name());
        let warned = told.iter().filter(|line| line.contains("must not be used for anything else")).count();
        assert_eq!(warned, usize::from(exposed), "{told:?}");
        assert_eq!((ctx.counters().regions, ctx.counters().quarantined), (0, usize::from(exposed)));
        let ends = told.iter().filter(|line| line.contains("the engine of this agent has failed")).count();
        assert_eq!(ends, 1, "{told:?}");
    }
}

/// Peers reach memory by themselves over these.
fn is_one_sided(lane: Lane) -> bool {
    matches!(lane, Lane::Local | Lane::Ucx)
}

pub fn a_panic_in_the_progress_thread_ends_that_agent_alone(lane: Lane) {
    let doomed = Doomed::new(lane, false);
    let bystanders = Pair::of((agent("ctx", lane), agent("gen", lane)), 64);
    doomed.ctx_fuse.set(Mood::PanicsInProgress);
    // Parked, driving, and polling: none of them hangs.
    let transfer = doomed.transfer.as_ref().expect("submitted");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| transfer.wait(None));
        let taking = scope.spawn(|| doomed.pair.ctx.wait_for_notifications(Instant::now() + WATCHDOG * 2));
        let parked =
            scope.spawn(|| doomed.pair.ctx.park_for_notifications(Instant::now() + WATCHDOG * 2, || false));
        eventually("the end of all waits", || {
            (waiting.is_finished() && taking.is_finished() && parked.is_finished()).then_some(())
        });
        assert_eq!(waiting.join().expect("no panic"), TransferState::Failure);
    });
    doomed.check(lane, SAID, is_one_sided(lane));
    let Pair { ctx_pool, gen_pool, .. } = &bystanders;
    bystanders.run(&bystanders.request(
        TransferOp::Read,
        vec![ctx_pool.desc(0, 64)],
        vec![gen_pool.desc(0, 64)],
    ));
}

pub fn a_panic_in_a_waiter_ends_its_agent_and_not_the_waiter(lane: Lane) {
    let doomed = Doomed::new(lane, false);
    doomed.ctx_fuse.set(Mood::PanicsInCaller);
    let transfer = doomed.transfer.as_ref().expect("submitted");
    assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Failure);
    doomed.check(lane, SAID, is_one_sided(lane));
}

pub fn a_panic_in_a_cancel_ends_its_agent_and_not_the_caller(lane: Lane) {
    let doomed = Doomed::new(lane, false);
    let other = doomed.submit();
    doomed.ctx_fuse.set(Mood::PanicsInCaller);
    assert_eq!(other.release(), !is_one_sided(lane));
    drop(other);
    doomed.check(lane, SAID, is_one_sided(lane));
}

pub fn a_panic_under_the_lock_ends_its_agent(lane: Lane) {
    let doomed = Doomed::new(lane, false);
    doomed.ctx_fuse.set(Mood::PanicsInRegister);
    let more = Pool::new(4096, 1);
    // SAFETY: a pool is leaked, so it stays mapped.
    let registered = catch_unwind(AssertUnwindSafe(|| unsafe { doomed.pair.ctx.register(&more.all()) }));
    assert!(registered.is_err(), "it went past the engine, to the wall");
    eventually("the end of the engine", || doomed.pair.ctx.check_running().err());
    doomed.check(lane, "a call panicked in the midst of its work", is_one_sided(lane));
}

pub fn a_fabric_that_does_not_close_leaves_memory_exposed(lane: Lane) {
    let doomed = Doomed::new(lane, true);
    doomed.ctx_fuse.set(Mood::PanicsInProgress);
    doomed.check(lane, SAID, true);
}
