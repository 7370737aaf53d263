//! The core behind its lock, and the end of an agent in which something panics.
//!
//! A core that a panic has left half way through a step is not driven again: nobody could say what its bytes would be
//! worth. So whoever holds the lock when it happens, on whichever thread, ends this agent, and no other:
//!
//! ```text
//!   panic in drive()        -> caught there, ended at once
//!   panic under the lock    -> the guard strikes as it unwinds; whoever is next at the lock ends it (the progress
//!                              thread is woken to be)
//!   panic in a thread of ours -> caught around its work, ended at once
//! ```
//!
//! The end: transfers under way fail and say why, fabrics are dropped, and then sockets are shut so that peers see it
//! at once. Where a fabric could not be closed its peers are not told that it was: they find out by their deadline.
//! From then on the lock is closed, and every call is `NotRunning::Failed`. What the panic may have left exposed is
//! never said to be free: [`Failure::exposed`].

use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use parking_lot::{Mutex, MutexGuard};

use crate::error::panic_text;
use crate::panics;

use super::core::{self, Core};
use super::signal::Signal;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Engine {
    agent: String,
    core: Mutex<Core>,
    /// A panic has passed a holder of the lock.
    struck: AtomicBool,
    failure: OnceCell<Failure>,
    signal: Arc<Signal>,
    waker: Arc<OwnedFd>,
}

/// How an engine has failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What the panic said.
    pub text: String,
    /// Whether registered memory may still be touched: peers have been able to reach it by themselves, or a fabric
    /// could not be closed.
    pub exposed: bool,
}

/// The core, locked.
pub(super) struct CoreGuard<'a> {
    /// Ahead of the lock, so that it strikes before anybody else has it.
    sentinel: Sentinel<'a>,
    core: MutexGuard<'a, Core>,
}

/// Strikes when it is dropped by a panic.
struct Sentinel<'a> {
    engine: &'a Engine,
    /// Whether its thread was unwinding when it was made: then that panic is none of ours.
    unwinds: bool,
}

const UNSEEN: &str = "a call panicked in the midst of its work; its own error says with what";

impl Engine {
    pub fn new(agent: String, core: Core, signal: Arc<Signal>) -> Self {
        let waker = core.waker();
        let (struck, failure) = (AtomicBool::new(false), OnceCell::new());
        Self { agent, core: Mutex::new(core), struck, failure, signal, waker }
    }

    /// The core, once nobody else has it; an error once the engine has failed.
    pub fn lock(&self) -> Result<CoreGuard<'_>, &Failure> {
        self.admit(self.core.lock())
    }

    /// The core, if nobody has it and the engine has not failed.
    pub fn try_lock(&self) -> Option<CoreGuard<'_>> {
        self.core.try_lock().and_then(|core| self.admit(core).ok())
    }

    /// The core, if it is to be had within `limit` and the engine has not failed.
    pub fn try_lock_for(&self, limit: Duration) -> Option<CoreGuard<'_>> {
        self.core.try_lock_for(limit).and_then(|core| self.admit(core).ok())
    }

    /// Why it has failed, if it has.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.get()
    }

    /// What a failure has left, for a look at its tables. Nothing in it may be made to move.
    pub fn wreck(&self) -> MutexGuard<'_, Core> {
        self.core.lock()
    }

    /// Ends the engine because of a panic that said `text`.
    pub fn fail(&self, text: String) {
        self.end(&mut self.core.lock(), text);
    }

    /// Runs what a thread of ours is there for; a panic in it ends the engine.
    pub fn guard<T>(&self, body: impl FnOnce() -> T) -> Option<T> {
        // AssertUnwindSafe: what the panic leaves behind is not used any more, which is what the end is for.
        catch_unwind(AssertUnwindSafe(body)).map_err(|payload| self.fail(panic_text(payload))).ok()
    }

    /// Has whoever is next at the lock end the engine. For a thread that is unwinding: does nothing that could panic.
    pub fn strike(&self) {
        self.struck.store(true, Ordering::Release);
        self.wake();
    }

    /// Ends a park on the core's handle.
    pub fn wake(&self) {
        core::wake(&self.waker);
    }

    fn admit<'a>(&'a self, mut core: MutexGuard<'a, Core>) -> Result<CoreGuard<'a>, &'a Failure> {
        if self.struck.load(Ordering::Acquire) {
            self.end(&mut core, UNSEEN.to_owned());
        }
        let sentinel = Sentinel { engine: self, unwinds: std::thread::panicking() };
        self.failure.get().map_or(Ok(CoreGuard { sentinel, core }), Err)
    }

    fn end(&self, core: &mut Core, text: String) {
        if self.failure.get().is_some() {
            return;
        }
        let exposed = !core.abandon(&text);
        let failure = self.failure.get_or_init(|| Failure { text, exposed });
        self.signal.raise();
        self.wake();
        tracing::error!(
            agent = self.agent,
            panic = failure.text,
            exposed,
            "the engine of this agent has failed: its transfers have ended, its peers are told by closed sockets, and \
             every further call is an error; please report it with the log"
        );
    }
}

impl CoreGuard<'_> {
    /// As [`Core::drive`]. A panic in it ends the engine, and what is guarded is a wreck then.
    pub fn drive(&mut self, now: Instant) -> bool {
        let agent = &self.sentinel.engine.agent;
        let driven = self.attempt(|core| {
            panics::here("while driving", agent);
            core.drive(now)
        });
        driven.unwrap_or(false)
    }

    /// As [`Core::carry_on`]; a panic in it ends the engine, as in [`CoreGuard::drive`].
    pub fn carry_on(&mut self, now: Instant) {
        let agent = &self.sentinel.engine.agent;
        self.attempt(|core| {
            panics::here("while driving", agent);
            core.carry_on(now);
        });
    }

    /// Does something that must not panic past its caller: a panic ends the engine, and there is no result.
    pub fn attempt<T>(&mut self, step: impl FnOnce(&mut Core) -> T) -> Option<T> {
        let core = &mut *self.core;
        // AssertUnwindSafe: as in Engine::guard.
        let done = catch_unwind(AssertUnwindSafe(|| step(core)));
        done.map_err(|payload| self.sentinel.engine.end(core, panic_text(payload))).ok()
    }

    /// Lets go of the lock, to whoever has waited for it.
    pub fn unlock_fair(self) {
        let Self { sentinel, core } = self;
        drop(sentinel);
        MutexGuard::unlock_fair(core);
    }
}

impl Deref for CoreGuard<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl DerefMut for CoreGuard<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        &mut self.core
    }
}

impl Drop for Sentinel<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.unwinds {
            self.engine.strike();
        }
    }
}
