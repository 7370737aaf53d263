//! Who drives the engine: the progress thread, and everybody who waits.
//!
//! All state that moves is in [`Core`], behind one lock. The progress thread drives it, spins for a short
//! while after the last work and then parks on the core's epoll handle *without* the lock. A waiter drives
//! too, in bounded steps, when it gets the lock at once; otherwise it parks on the signal that every
//! noteworthy event raises.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, poll};

use crate::config::EngineSettings;
use crate::desc::TransferId;
use crate::proto::endpoint::Endpoint;

use super::core::Core;
use super::inbox::Inbox;
use super::signal::Signal;
use super::sockets::timespec;

/// What the progress thread, the callers and the transfers of one agent share.
#[derive(Debug)]
pub(super) struct Shared {
    pub name: String,
    pub settings: EngineSettings,
    /// Lanes that were wanted and cannot be had here, and why.
    pub unavailable: String,
    pub inbox: Arc<Inbox>,
    pub core: Mutex<Core>,
    pub signal: Arc<Signal>,
    pub stopped: AtomicBool,
    busy: Arc<AtomicBool>,
    /// A copy of the core's epoll handle, to park on without the lock.
    epoll: rustix::fd::OwnedFd,
    /// Wakes the progress thread; the core's epoll handle watches it too.
    waker: Arc<rustix::fd::OwnedFd>,
}

/// Bytes moved in one step under the lock.
pub(super) const STEP_BYTES: u64 = 1 << 20;
/// Longest park of the progress thread while there are peers.
const TICK: Duration = Duration::from_millis(250);
/// Longest park of a waiter before it looks again by itself.
const WAITER_TICK: Duration = Duration::from_millis(20);
/// How long shutdown waits for transfers to drain.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

impl Shared {
    pub fn new(
        name: String,
        settings: EngineSettings,
        unavailable: String,
        core: Core,
        inbox: Arc<Inbox>,
        signal: Arc<Signal>,
    ) -> std::io::Result<Self> {
        let (waker, busy) = (core.waker(), core.busy());
        let epoll = core.epoll().try_clone_to_owned()?;
        let (core, stopped) = (Mutex::new(core), AtomicBool::new(false));
        Ok(Self { name, settings, unavailable, inbox, core, signal, stopped, busy, epoll, waker })
    }

    /// The progress thread's body; ends after [`Shared::stop`].
    pub fn run(&self) {
        while !self.stopped.load(Ordering::Acquire) {
            let mut core = self.core.lock();
            let (worked, has_peers) = (core.drive(Instant::now()), core.has_peers());
            // Callers come first: without this the lock would go round in circles here.
            MutexGuard::unlock_fair(core);
            if !worked && !self.spin() && !self.stopped.load(Ordering::Acquire) {
                park(&self.epoll, has_peers.then_some(TICK));
                let _ = rustix::io::read(&*self.waker, &mut [0u8; 8]); // empty means that something else woke us
            }
        }
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
        let Some(mut core) = self.core.try_lock() else { return false };
        let worked = core.drive(Instant::now());
        MutexGuard::unlock_fair(core);
        worked
    }

    /// Whether transfers are under way: one atomic load.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
    }

    /// Blocks until `done`, or until `deadline`. Drives while there is something to drive.
    pub fn wait_until(&self, deadline: Option<Instant>, done: impl Fn() -> bool) {
        let mut last_work = Instant::now();
        loop {
            let epoch = self.signal.epoch();
            if done() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
            if self.lend_a_hand() {
                last_work = Instant::now();
            } else if last_work.elapsed() < self.settings.spin {
                std::thread::yield_now(); // where cores are scarce, whoever has work comes first
            } else {
                let tick = Instant::now() + WAITER_TICK;
                self.signal.wait(epoch, deadline.map_or(tick, |deadline| deadline.min(tick)));
            }
        }
    }

    /// As [`Shared::wait_until`], for something that is seen under the lock.
    pub fn wait_for(&self, deadline: Instant, done: impl Fn(&Core) -> bool) {
        self.wait_until(Some(deadline), || self.core.try_lock().is_some_and(|core| done(&core)));
    }

    /// Cancels a transfer.
    pub fn cancel(&self, id: TransferId) {
        self.command(|endpoint| endpoint.cancel(id));
    }

    /// Gives the endpoint a command, and drives what follows from it.
    fn command(&self, give: impl FnOnce(&mut Endpoint)) {
        let mut core = self.core.lock();
        give(&mut core.endpoint);
        core.drive(Instant::now());
    }

    /// Makes the progress thread look again.
    pub fn wake(&self) {
        let _ = rustix::io::write(&*self.waker, &1u64.to_ne_bytes()); // full means it is awake already
    }

    /// Breaks off and drains transfers, takes our memory back from peers that write to it by themselves, says
    /// goodbye, ends the progress thread. Idempotent.
    pub fn stop(&self) {
        self.command(Endpoint::shutdown);
        self.wait_for(Instant::now() + DRAIN_LIMIT, |core| !core.endpoint.is_busy());
        self.command(Endpoint::revoke_all);
        let is_quiet = |core: &Core| !core.endpoint.is_revoking() && !core.endpoint.is_busy();
        self.wait_for(Instant::now() + DRAIN_LIMIT, is_quiet);
        let mut core = self.core.lock();
        if !is_quiet(&core) {
            tracing::error!(agent = self.name, "a peer does not let go of our memory; it must not be reused");
        }
        core.close();
        self.stopped.store(true, Ordering::Release);
        drop(core);
        self.wake();
        self.signal.raise();
    }
}

/// Parks until the epoll handle has something, at most for `limit`; whether it has.
fn park(epoll: impl AsFd, limit: Option<Duration>) -> bool {
    let limit = limit.map(timespec);
    // An interrupted or failed wait only means that the caller looks again.
    matches!(poll(&mut [PollFd::new(&epoll, PollFlags::IN)], limit.as_ref()), Ok(1..))
}
