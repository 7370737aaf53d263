//! The transfer agent: what seams S1 and S2 are made of.
//!
//! An [`Agent`] has registered memory, peers it has loaded, transfers and notifications. It is not the
//! cache transceiver: requests, slots and layouts are for the layer above.
//!
//! ```text
//!   caller threads            progress thread
//!        |  submit, notify, ...     |
//!        +------> [core] <----------+        one lock; drive() is one bounded step
//!                  |  \
//!        endpoint (proto)  fabrics, control streams, lobby
//! ```
//!
//! # Threads
//! All methods take `&self` and may be called from several threads at once. Only loading, waiting, releasing,
//! deregistering and shutting down block, each within a deadline. Nothing here calls back into the host.
//!
//! A panic in the engine, on whichever thread, ends its agent and no other: `engine` says how.

pub mod address;
mod control;
mod core;
mod counters;
mod crew;
mod dial;
mod engine;
mod error;
mod foreign;
#[doc(hidden)]
pub mod fuzzing;
mod ghosts;
mod gpus;
mod inbox;
mod lobby;
pub mod loopback;
mod mappings;
mod marks;
mod open;
mod pollers;
mod process;
mod progress;
mod regions;
mod registration;
mod seal;
mod signal;
mod sockets;
mod staging;
mod stall;
mod tap;
mod transfer;
mod vram;
mod watch;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Instant;

use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use crate::config::EngineSettings;
use crate::desc::{Descriptor, MemoryKind, PeerKey, Region, RegionKey, SessionId, Span, TransferOp};
use crate::fabric::Fabric;
use crate::proto::endpoint::{CommandError, Submission};
use crate::proto::plan::{Party, Plan, Side};
use crate::proto::regions::{RegionLookup, RegionTable};
use crate::proto::stock;

use self::core::Core;
use self::engine::{CoreGuard, Failure};
use self::progress::Shared;

pub use self::counters::{Counters, Mishaps};
pub use self::error::{CreateError, LoadError, NotRunning, NotifyError, RegisterError, SubmitError};
pub use self::foreign::Foreign;
pub use self::gpus::GpuFault;
pub use self::lobby::Refused;
pub use self::mappings::MemoryFault;
pub use self::open::fabrics_of;
pub(crate) use self::process::spawn;
pub use self::transfer::{Transfer, TransferState};
pub use self::vram::VramRegion;
pub use crate::proto::transfer::TransferError;

/// How an agent is set up.
#[derive(Clone, Debug, Default)]
pub struct AgentConfig {
    /// Its name, unique among its peers.
    pub name: String,
    /// What the environment says.
    pub settings: EngineSettings,
}

/// A list of descriptors of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorList<'a> {
    /// Kind of all of them.
    pub kind: MemoryKind,
    /// The descriptors; borrowed where they lie somewhere already, for there may be very many.
    pub descs: Cow<'a, [Descriptor]>,
}

/// What to move.
#[derive(Clone, Debug)]
pub struct TransferRequest<'a> {
    /// Direction, seen from this agent.
    pub op: TransferOp,
    /// Our memory.
    pub local: DescriptorList<'a>,
    /// The peer's memory; the two lists are paired one to one.
    pub remote: DescriptorList<'a>,
    /// The peer's name.
    pub peer: String,
    /// Queued for the peer's host after the data, once.
    pub sync_message: Option<Vec<u8>>,
}

/// See the [module](self). Dropping it shuts it down.
#[derive(Debug)]
pub struct Agent {
    shared: Arc<Shared>,
    connection_info: String,
    progress: Mutex<Option<JoinHandle<()>>>,
    loading: dial::Loading,
}

impl Agent {
    /// Opens sockets and fabrics and starts the progress thread.
    pub fn new(config: AgentConfig) -> Result<Self, CreateError> {
        Self::run(open::open(config)?)
    }

    /// As [`Agent::new`], over fabrics that the caller has opened, best first, instead of those that the settings ask
    /// for. Both ends of a pair need them in the same order.
    pub fn with_fabrics(config: AgentConfig, fabrics: Vec<Box<dyn Fabric>>) -> Result<Self, CreateError> {
        Self::run(open::open_with(config, fabrics)?)
    }

    fn run((shared, connection_info): (Shared, String)) -> Result<Self, CreateError> {
        let shared = Arc::new(shared);
        let runner = Arc::clone(&shared);
        let run = move || {
            let _span = tracing::info_span!("progress", agent = runner.name).entered();
            runner.run();
        };
        let name = shared.name.clone();
        let failed = |what: &str| {
            let (name, what) = (name.clone(), what.into());
            move |source| CreateError::System { name, what, source }
        };
        let handle = process::spawn("baton-progress", run).map_err(failed("starting its progress thread"))?;
        let progress = Mutex::new(Some(handle));
        let agent = Self { shared, connection_info, progress, loading: dial::Loading::default() };
        let copier = Arc::clone(&agent.shared);
        // The progress thread copies, too.
        let hired = agent
            .shared
            .crew
            .hire(agent.shared.settings.copy_threads.saturating_sub(1), move || copier.copy());
        hired.map_err(failed("starting a thread that copies"))?; // dropped, it ends those that have started
        Ok(agent)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Our metadata: name, session, endpoints, fabric addresses, regions. Changes when memory is registered;
    /// peers that are connected learn of that by themselves. A notice stands ahead of it, for a stock NIXL agent
    /// that the host may hand it to. Empty in a forked child, and when the engine has failed.
    pub fn local_blob(&self) -> Vec<u8> {
        if self.shared.is_forked() {
            return Vec::new();
        }
        let Ok(blob) = self.shared.engine.lock().map(|core| core.endpoint.blob()) else {
            return Vec::new();
        };
        let blob = seal::sealed_blob(blob, self.shared.settings.secret.as_deref());
        [stock::notice(self.name()), blob].concat()
    }

    /// Where our blob can be fetched: `ip:port`, IPv6 in brackets.
    pub fn connection_info(&self) -> String {
        self.connection_info.clone()
    }

    /// Starts a transfer and returns at once. Nothing has moved if this is an error.
    pub fn submit(&self, request: &TransferRequest<'_>) -> Result<Transfer, SubmitError> {
        self.check_running()?;
        let outcome = Arc::new(OnceCell::new());
        let (now, mut core, peer, planning, facts, id) = loop {
            let (planning, submission) = self.plan_in_sight(request)?;
            let mut core = self.running_core()?;
            let ours = core.endpoint.regions();
            // Memory that another thread has deregistered meanwhile is not to be touched: the next plan says so.
            if !submission.regions.iter().all(|key| ours.by_key(*key).is_some()) {
                continue;
            }
            let (now, facts) = (Instant::now(), marks::planned(&core.endpoint, &submission));
            let (peer, is_gathered) = (submission.peer.clone(), submission.gathered.is_some());
            match core.endpoint.submit(submission, now) {
                Err(CommandError::LaneGone { .. }) if is_gathered => {} // its slots are; the next plan goes without
                submitted => break (now, core, peer, planning, facts, submitted?),
            }
        };
        core.marks.submitted(id, planning, facts);
        core.transfers.insert(id, Arc::clone(&outcome));
        core.carry_on(now);
        Ok(Transfer::new(Arc::clone(&self.shared), id, peer, outcome))
    }

    /// Sends a notification. It is delivered once, in order, and never before the data of a transfer whose
    /// success has been seen here.
    pub fn notify(&self, peer: &str, message: &[u8]) -> Result<(), NotifyError> {
        let mut core = self.running_core()?;
        core.endpoint.notify(peer, message)?;
        core.carry_on(Instant::now());
        drop(core);
        Ok(self.check_engine()?)
    }

    /// Takes the notifications that have come, by sender, in the order each sent them. A look that finds none drives the
    /// engine a bounded step: whoever polls need not wait for another thread to be woken.
    pub fn take_notifications(&self) -> Vec<(String, Vec<Vec<u8>>)> {
        if self.shared.is_forked() {
            return Vec::new();
        }
        if self.shared.inbox.is_empty() {
            self.shared.poll();
        }
        self.shared.inbox.take()
    }

    /// Blocks until notifications have come or `deadline` has passed, and drives the engine meanwhile.
    pub fn wait_for_notifications(&self, deadline: Instant) {
        self.shared.wait_until(Some(deadline), || !self.shared.inbox.is_empty());
    }

    /// As [`Agent::wait_for_notifications`], but leaves the driving to others and ends with `given_up`: for a
    /// thread that waits for nothing in particular. [`Agent::wake_waiters`] makes it look.
    pub fn park_for_notifications(&self, deadline: Instant, given_up: impl Fn() -> bool) {
        if !self.shared.is_forked() {
            let is_over = || given_up() || self.shared.has_failed();
            self.shared.stop_polling();
            self.shared.signal.park_until(deadline, || is_over() || !self.shared.inbox.is_empty());
        }
    }

    /// Makes everybody who waits look again.
    pub fn wake_waiters(&self) {
        if !self.shared.is_forked() {
            self.shared.signal.raise();
        }
    }

    /// The stream and the session of a loaded peer that stands; why there is none, if not. A peer that has come
    /// back, under its name or after its stream broke, has another one.
    pub fn loaded_link(&self, peer: &str) -> Result<(PeerKey, Option<SessionId>), NotifyError> {
        let core = self.running_core()?;
        Ok(core.endpoint.loaded_peer(peer).map(|(key, peer)| (key, peer.session()))?)
    }

    /// The silence after which a peer counts as lost.
    pub fn peer_timeout(&self) -> std::time::Duration {
        self.shared.settings.peer_timeout
    }

    /// Whether every descriptor lies in memory that the loaded peer has registered. False for a peer that
    /// is unknown or lost.
    pub fn check_remote(&self, peer: &str, list: &DescriptorList<'_>) -> bool {
        let Ok(core) = self.running_core() else { return false };
        let Ok((_, peer)) = core.endpoint.loaded_peer(peer) else { return false };
        let regions = peer.regions();
        drop(core);
        list.descs.iter().all(|d| {
            let span = Span { addr: d.addr, len: d.len };
            d.len > 0 && regions.covers(list.kind, d.device, span)
        })
    }

    /// Forgets what we may do to a peer: transfers to it are cancelled and drained; a peer that has stopped is dead
    /// before the wait for it ends. Its notifications stay. Unknown peers are ignored.
    pub fn invalidate(&self, peer: &str) {
        if self.check_running().is_err() {
            return;
        }
        let key = {
            let Ok(mut core) = self.shared.engine.lock() else { return };
            let key = core.endpoint.loaded_peer(peer).map(|(key, _)| key).ok();
            core.endpoint.invalidate(peer);
            core.drive(Instant::now());
            key
        };
        let Some(key) = key else { return };
        let is_quiet = |core: &Core| core.endpoint.peer(key).is_none_or(|peer| !peer.has_transfers());
        self.shared.wait_for(self.shared.death_deadline(), is_quiet);
        let Ok(core) = self.shared.engine.lock() else { return }; // its failure has been told
        if !is_quiet(&core) {
            let agent = self.name();
            tracing::error!(
                agent,
                peer,
                "an invalidated peer does not let go of its transfers; their memory must not be reused"
            );
        }
    }

    /// Cancels and drains transfers, says goodbye to peers, ends the progress thread. Later calls that could
    /// move anything are errors. Idempotent; of several callers at once, none returns before it is over. Takes three
    /// seconds at most; a peer that has been silent for one is not waited for. In a forked child it does nothing.
    pub fn shutdown(&self) {
        if self.shared.is_forked() {
            return;
        }
        let mut progress = self.progress.lock();
        let Some(handle) = progress.take() else { return };
        self.shared.stop();
        if handle.join().is_err() {
            tracing::error!(agent = self.name(), "the progress thread has panicked");
        }
        self.shared.crew.dismiss();
    }

    /// Whether this process was forked from the one that has the agent.
    pub fn is_forked(&self) -> bool {
        self.shared.is_forked()
    }

    /// Whether it may still be used: an error once it has been shut down or its engine has failed, and in a forked
    /// child.
    pub fn check_running(&self) -> Result<(), NotRunning> {
        let agent = || self.name().to_owned();
        match self.shared.stopped.load(Ordering::Acquire) {
            _ if self.shared.is_forked() => Err(NotRunning::ForkedChild { agent: agent() }),
            true => Err(NotRunning::ShutDown { agent: agent() }),
            false => self.check_engine(),
        }
    }

    /// An error once a fault in Baton has ended the engine.
    pub fn check_engine(&self) -> Result<(), NotRunning> {
        self.shared.engine.failure().map_or(Ok(()), |failure| Err(self.failed(failure)))
    }

    /// Ends the agent because something that depends on it has panicked with `text`.
    pub(crate) fn fail(&self, text: &str) {
        if !self.shared.is_forked() {
            self.shared.engine.fail(text.to_owned());
        }
    }

    /// As [`Agent::fail`], soon, by another thread: for one that is unwinding.
    pub(crate) fn strike(&self) {
        self.shared.engine.strike();
    }

    /// The core, locked, of an agent that has not been shut down: it cannot be as long as the lock is held.
    fn running_core(&self) -> Result<CoreGuard<'_>, NotRunning> {
        self.check_running()?; // asked first, for in a forked child the lock may be held for ever
        let core = self.engine_core()?;
        self.check_running().map(|()| core)
    }

    /// The core, locked, shut down or not.
    fn engine_core(&self) -> Result<CoreGuard<'_>, NotRunning> {
        self.shared.engine.lock().map_err(|failure| self.failed(failure))
    }

    fn failed(&self, failure: &Failure) -> NotRunning {
        NotRunning::Failed { agent: self.name().to_owned(), text: failure.text.clone() }
    }

    /// [`Agent::plan_request`], for those who watch too.
    fn plan_in_sight(
        &self,
        request: &TransferRequest<'_>,
    ) -> Result<(Option<marks::Open>, Submission), SubmitError> {
        let mut planning = marks::planning(self.name(), &request.peer);
        let submission = self.plan_request(request)?;
        planning.iter_mut().for_each(marks::Open::stop);
        Ok((planning, submission))
    }

    /// Plans outside the lock, against the tables as they are now.
    fn plan_request(&self, request: &TransferRequest<'_>) -> Result<Submission, SubmitError> {
        let TransferRequest { op, local, remote, peer, sync_message } = request;
        let (ours, theirs, routes, mut plan) = {
            let mut core = self.engine_core()?;
            let (_, loaded) = core.endpoint.loaded_peer(peer)?;
            let theirs = loaded.regions();
            let routes = core.endpoint.routes(peer, *op, [local.kind, remote.kind])?;
            (core.endpoint.regions(), theirs, routes, core.endpoint.spare_plan())
        };
        let touched = |plan: &Plan, party| match party {
            Party::Local => touched(&ours, plan.spans(*op, party)),
            Party::Remote => touched(&theirs, plan.spans(*op, party)),
        };
        let unplannable = |source| SubmitError::Plan { op: *op, peer: peer.clone(), source };
        for route in routes.iter() {
            let ends = || {
                let (near, far) = (side(Party::Local, local, &ours), side(Party::Remote, remote, &theirs));
                if *op == TransferOp::Read { (far, near) } else { (near, far) }
            };
            let (src, dst) = ends();
            // What the pieces are before any is merged says whether it is worth a plan in slots.
            let sides = [(local.kind, &*local.descs), (remote.kind, &*remote.descs)];
            let gathering = route.gathering.filter(|gathering| gathering.may_suit(sides));
            let in_slots = gathering
                .filter(|gathering| plan.rebuild(src, dst, gathering.caps).is_ok() && gathering.suits(&plan));
            if in_slots.is_none() {
                let (src, dst) = ends();
                plan.rebuild(src, dst, route.caps).map_err(unplannable)?;
            }
            if routes.reaches(route, |party| touched(&plan, party)) {
                let gathered = in_slots.map(|_| [local.kind, remote.kind]);
                let regions = touched(&plan, Party::Local);
                let (peer, sync_message) = (peer.clone(), sync_message.clone());
                let lane = route.lane;
                return Ok(Submission { peer, op: *op, lane, plan, gathered, regions, sync_message });
            }
        }
        Err(SubmitError::OutOfReach { op: *op, peer: peer.clone(), local: local.kind, remote: remote.kind })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.shared.is_forked() {
            // Not ours to close, detach or free: another process goes on with it.
            std::mem::forget((Arc::clone(&self.shared), self.progress.get_mut().take()));
        }
        self.shutdown();
    }
}

fn side<'a>(party: Party, list: &'a DescriptorList<'_>, regions: &'a RegionTable) -> Side<'a, RegionTable> {
    Side { party, kind: list.kind, descs: &list.descs, regions }
}

/// The regions that spans touch, each once. A region is looked up where a span leaves the one of that before it.
fn touched(regions: &RegionTable, spans: impl Iterator<Item = Span>) -> Vec<RegionKey> {
    let mut keys = Vec::new();
    let mut last: Option<&Region> = None;
    for span in spans {
        if last.is_none_or(|last| !last.span.holds(span)) {
            last = regions.holding(span);
            keys.extend(last.map(|region| region.key));
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}
