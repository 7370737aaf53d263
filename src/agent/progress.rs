//! Who drives the engine: the progress thread, and everybody who waits.
//!
//! All state that moves is in [`Core`], behind one lock. The progress thread drives it, spins for a short
//! while after the last work and then parks on the core's epoll handle *without* the lock. A waiter drives
//! too, in bounded steps, when it gets the lock at once; otherwise it parks on the signal that every
//! noteworthy event raises. While somebody polls, the progress thread leaves the driving to it and only looks now and
//! then whether that is still so ([`Pollers`]): a frame that wakes two threads costs both of them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::config::EngineSettings;
use crate::desc::TransferId;
use crate::proto::endpoint::{Endpoint, Peer};

use super::core::Core;
use super::crew::Crew;
use super::engine::{CoreGuard, Engine};
use super::ghosts::PROOF_WITHIN;
use super::gpus::Gpus;
use super::inbox::Inbox;
use super::pollers::Pollers;
use super::process::Home;
use super::signal::Signal;
use super::sockets::timespec;

/// What the progress thread, the callers and the transfers of one agent share.
#[derive(Debug)]
pub(super) struct Shared {
    pub name: String,
    pub settings: EngineSettings,
    /// Lanes that were wanted and cannot be had here, and why.
    pub unavailable: String,
    pub gpus: Gpus,
    pub inbox: Arc<Inbox>,
    pub engine: Engine,
    pub crew: Arc<Crew>,
    pub signal: Arc<Signal>,
    pub stopped: AtomicBool,
    home: Home,
    pollers: Arc<Pollers>,
    /// A copy of the core's epoll handle, to park on without the lock.
    epoll: rustix::fd::OwnedFd,
    /// Ends such a park.
    waker: Arc<rustix::fd::OwnedFd>,
}

/// Longest park of a waiter before it looks again by itself.
const WAITER_TICK: Duration = Duration::from_millis(20);
/// How long shutdown waits for transfers to drain, and then for peers to let go of our memory. Both together, with the
/// closing of the fabrics, keep a process that exits with work in flight under five seconds.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
const REVOKE_LIMIT: Duration = Duration::from_secs(1);
/// Shutdown does not wait for a peer that has been silent for so long: twice what a heartbeat takes.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);
/// What is added to the peer deadline where a wait is to end with the peer's death at the latest: the engine's ticks,
/// and the time that its fabrics take to let go.
const DEATH_MARGIN: Duration = Duration::from_secs(2);

/// What came of a step of a guest.
struct Step {
    has_copied: bool,
    has_driven: bool,
}

impl Shared {
    pub fn new(
        name: String,
        settings: EngineSettings,
        unavailable: String,
        core: Core,
        gpus: Gpus,
        inbox: Arc<Inbox>,
        signal: Arc<Signal>,
    ) -> std::io::Result<Self> {
        let (waker, crew, pollers) = (core.waker(), core.crew(), core.pollers());
        let epoll = core.handle().try_clone_to_owned()?;
        let engine = Engine::new(name.clone(), core, Arc::clone(&signal));
        let (stopped, home) = (AtomicBool::new(false), Home::here()?);
        Ok(Self {
            name,
            settings,
            unavailable,
            gpus,
            inbox,
            engine,
            crew,
            signal,
            stopped,
            home,
            pollers,
            epoll,
            waker,
        })
    }

    /// Whether this process was forked from the one that has the agent: nothing may be touched then, no lock either.
    pub fn is_forked(&self) -> bool {
        !self.home.is_here()
    }

    /// The progress thread's body; ends after [`Shared::stop`], and when the engine has failed. While there are peers it
    /// parks for a tick of the protocol at most, which counts on those.
    pub fn run(&self) {
        self.engine.guard(|| self.run_unguarded());
    }

    fn run_unguarded(&self) {
        while !self.stopped.load(Ordering::Acquire) {
            let Ok(mut core) = self.engine.lock() else { return };
            let (worked, longest_park) = (core.drive(Instant::now()), core.longest_park());
            // Callers come first: without this the lock would go round in circles here.
            core.unlock_fair();
            if self.crew.lend() || worked {
                continue;
            }
            if !self.sit_out() && !self.spin() && !self.stopped.load(Ordering::Acquire) {
                park(&self.epoll, longest_park);
            }
            // After a spin as well: a waker that stays readable would end every later one at once, and there would be
            // no park any more. Empty means that something else woke us.
            let _ = rustix::io::read(&*self.waker, &mut [0u8; 8]);
        }
    }

    /// Waits while others poll, and so drive. Returns whether it has waited: how long to park is to be asked again then.
    fn sit_out(&self) -> bool {
        self.pollers.sit_out(|look| park(&*self.waker, Some(look)))
    }

    /// Somebody polls: drives one bounded step and copies a piece, if there is something to do.
    pub fn poll(&self) {
        if !self.is_forked() && !self.stopped.load(Ordering::Acquire) && self.step_as_guest().has_driven {
            self.make_room();
        }
    }

    /// What a thread of the host does while it waits.
    fn step_as_guest(&self) -> Step {
        let copy = || self.engine.guard(|| self.crew.lend_as_guest()).unwrap_or(false);
        self.pollers.step(|| Step { has_copied: copy(), has_driven: self.lend_a_hand() })
    }

    /// After a host that polls without ever sleeping has driven: those whom that may have woken come first. Linux takes
    /// whoever sends over a Unix socket for one that is about to sleep, and may wake the receiver on the same core, where
    /// it would sit out the host's time slice: milliseconds. Whom we woke is not known here. Where the last drive was a
    /// moment ago, peers likely spin still, and as long as there is something to copy the core is better used.
    fn make_room(&self) {
        let pause = self.pollers.note_drive();
        if pause > self.settings.spin && !self.crew.is_busy() {
            std::thread::yield_now();
        }
    }

    /// Who polled does so no longer.
    pub fn stop_polling(&self) {
        if self.pollers.go() {
            self.wake();
        }
    }

    /// The body of a thread of the crew; ends when that is dismissed.
    pub fn copy(&self) {
        self.engine.guard(|| self.crew.work());
    }

    /// Looks for work for a short while, without the lock; whether there is some.
    fn spin(&self) -> bool {
        let start = Instant::now();
        while start.elapsed() < self.settings.spin {
            if park(&self.epoll, Some(Duration::ZERO)) {
                return true;
            }
            std::thread::yield_now(); // where cores are scarce, whoever has work comes first
        }
        false
    }

    /// Drives one bounded step, if nobody else is driving. Returns whether anything happened.
    pub fn lend_a_hand(&self) -> bool {
        if self.is_forked() {
            return false;
        }
        let Some(mut core) = self.engine.try_lock() else { return false };
        let worked = core.drive(Instant::now());
        core.unlock_fair();
        worked
    }

    /// Blocks until `done`, until `deadline`, or until the engine has failed. Drives while there is something to drive.
    pub fn wait_until(&self, deadline: Option<Instant>, done: impl Fn() -> bool) {
        let (mut last_work, mut polls) = (Instant::now(), false);
        while !self.is_forked() {
            let epoch = self.signal.epoch();
            let is_over = || self.has_failed() || deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if done() || is_over() {
                if polls {
                    self.stop_polling(); // what comes next would wait for the progress thread's next look
                }
                return;
            }
            polls = true;
            let step = self.step_as_guest();
            if step.has_copied || step.has_driven {
                last_work = Instant::now();
            } else if last_work.elapsed() < self.settings.spin {
                std::thread::yield_now(); // where cores are scarce, whoever has work comes first
            } else {
                polls = false;
                self.stop_polling();
                let tick = Instant::now() + WAITER_TICK;
                self.signal.wait(epoch, deadline.map_or(tick, |deadline| deadline.min(tick)));
            }
        }
    }

    /// As [`Shared::wait_until`], for something that is seen under the lock. Whoever holds it is asked to wait: the
    /// signal is raised in the midst of a drive, and a look that gave up then would sleep over what it was woken for.
    pub fn wait_for(&self, deadline: Instant, done: impl Fn(&Core) -> bool) {
        self.wait_until(Some(deadline), || {
            self.engine.try_lock_for(WAITER_TICK).is_some_and(|core| done(&core))
        });
    }

    /// Cancels a transfer.
    pub fn cancel(&self, id: TransferId) {
        debug_assert!(!self.is_forked(), "whoever cancels has asked");
        self.command(|endpoint| endpoint.cancel(id));
    }

    /// Gives the endpoint a command, and drives what follows from it.
    fn command(&self, give: impl FnOnce(&mut Endpoint)) {
        let Ok(mut core) = self.engine.lock() else { return };
        core.attempt(|core| {
            give(&mut core.endpoint);
            core.drive(Instant::now())
        });
    }

    /// Whether a transfer that has failed may still touch our memory: its peer was given up and takes what was written to
    /// it by itself, or the engine has failed and nothing proves that all is quiet. Waits for a peer that is about to
    /// prove it.
    pub fn may_be_touched(&self, peer: &str) -> bool {
        if self.is_forked() {
            return false;
        }
        let is_decided = |core: &Core| !core.ghosts.pull_is_awaited(peer, Instant::now());
        self.wait_for(Instant::now() + PROOF_WITHIN, is_decided);
        match self.engine.lock() {
            Ok(core) => core.ghosts.pulls(peer),
            Err(failure) => failure.exposed,
        }
    }

    /// Whether the engine has failed: nothing moves any more.
    pub fn has_failed(&self) -> bool {
        self.engine.failure().is_some()
    }

    /// Makes the progress thread look again.
    pub fn wake(&self) {
        self.engine.wake();
    }

    /// By when a peer has let go of something, or is dead: silence ends it before.
    pub fn death_deadline(&self) -> Instant {
        Instant::now() + self.settings.peer_timeout + DEATH_MARGIN
    }

    /// Breaks off and drains transfers, takes our memory back from peers that write to it by themselves, says
    /// goodbye, ends the progress thread. Idempotent. Peers that have fallen silent are not waited for, and an engine that
    /// has failed has nothing left to say.
    pub fn stop(&self) {
        let is_quiet = |core: &Core| {
            let worth_waiting = |peer: &Peer| peer.silence(Instant::now()) < SHUTDOWN_PATIENCE;
            !core.endpoint.peers().any(|(_, peer)| peer.is_unfinished() && worth_waiting(peer))
        };
        self.command(Endpoint::shutdown);
        self.wait_for(Instant::now() + DRAIN_LIMIT, is_quiet);
        self.command(Endpoint::revoke_all);
        self.wait_for(Instant::now() + REVOKE_LIMIT, is_quiet);
        let core = self.engine.lock().map(|mut core| {
            self.complain(&core);
            core.attempt(Core::close);
            core
        });
        self.stopped.store(true, Ordering::Release); // under the lock, unless it is closed for good
        drop(core);
        let regions = self.engine.wreck().registered.len();
        if regions > 0 && self.engine.failure().is_some_and(|failure| failure.exposed) {
            let agent = &self.name;
            tracing::error!(
                agent,
                regions,
                "the agent ends after its engine had failed; peers may still touch what is registered, which must not \
                 be used for anything else"
            );
        }
        self.wake();
        self.signal.raise();
    }

    /// Names the peers that have not let go.
    fn complain(&self, core: &CoreGuard<'_>) {
        for (_, peer) in core.endpoint.peers().filter(|(_, peer)| peer.is_unfinished()) {
            let (agent, silent_ms) = (&self.name, peer.silence(Instant::now()).as_millis() as u64);
            let peer_name = peer.name();
            match peer.may_still_write() {
                false if peer.may_still_pull(core.endpoint.lanes()) => tracing::error!(
                    agent,
                    peer = peer_name,
                    silent_ms,
                    "the peer has not let go of our memory at shutdown and may read from it while its process lives"
                ),
                true => tracing::error!(
                    agent,
                    peer = peer_name,
                    silent_ms,
                    "the peer has not let go of our memory at shutdown and may write to it while its process lives"
                ),
                false => tracing::warn!(
                    agent,
                    peer = peer_name,
                    silent_ms,
                    "the peer has not answered at shutdown; what was under way with it is given up"
                ),
            }
        }
    }
}

/// Parks until the epoll handle has something, at most for `limit`; whether it has.
fn park(epoll: impl AsFd, limit: Option<Duration>) -> bool {
    let limit = limit.map(timespec);
    // An interrupted or failed wait only means that the caller looks again.
    matches!(poll(&mut [PollFd::new(&epoll, PollFlags::IN)], limit.as_ref()), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::super::{Agent, AgentConfig};
    use super::*;
    use crate::config::LaneChoice;

    const WATCHDOG: Duration = Duration::from_secs(20);

    fn agent(spin: Duration) -> Agent {
        let lanes = LaneChoice { stream_unix: true, ..LaneChoice::NONE };
        let settings =
            EngineSettings { lanes, spin, interface: Some("lo".into()), ..EngineSettings::default() };
        Agent::new(AgentConfig { name: format!("progress-{}", std::process::id()), settings })
            .expect("an agent opens")
    }

    /// The spin is longer than the test, so that none of them ends but by what is readable.
    #[test]
    fn whoever_is_woken_in_a_spin_can_park_again() {
        let agent = agent(2 * WATCHDOG);
        agent.shared.wake();
        let deadline = Instant::now() + WATCHDOG;
        while park(&*agent.shared.waker, Some(Duration::ZERO)) {
            assert!(Instant::now() < deadline, "the waker is never emptied: every spin ends at once");
            std::thread::yield_now();
        }
    }
}
