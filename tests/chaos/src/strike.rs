//! The blow: a watcher that waits until a point is reached, and then strikes the victim by its process id.

use crate::arena::Content;
use crate::clock::now_ns;
use crate::host::Host;
use crate::phase::Phase;
use crate::points::{Mark, Point, Side};
use rustix::process::Signal;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// What is done to the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It dies where it is.
    Kill,
    /// It is stopped where it is, and goes on later.
    Stop,
    /// It is stopped for less than its peers bear.
    Pause,
    /// It calls `exit()` with everything alive.
    Exit,
}

impl Blow {
    /// Whether the victim stands still, and goes on later.
    pub fn stops(self) -> bool {
        matches!(self, Blow::Stop | Blow::Pause)
    }
}

/// Who is watched and struck.
#[derive(Debug)]
pub struct Aim {
    /// What is waited for.
    pub mark: Mark,
    /// And how long after it.
    pub delay: Duration,
    /// What is done.
    pub blow: Blow,
    /// To whom.
    pub victim: Side,
    /// The host of the sender.
    pub sender: Arc<Host>,
    /// The host of the receiver.
    pub receiver: Arc<Host>,
    /// What the bytes are once they are in place, in slot 0.
    pub landing: Content,
}

impl Aim {
    /// Aims at a point.
    pub fn at(point: &Point, blow: Blow, victim: Side, hosts: [&Arc<Host>; 2], landing: Content) -> Aim {
        let [sender, receiver] = hosts.map(Arc::clone);
        Aim { mark: point.mark, delay: point.delay, blow, victim, sender, receiver, landing }
    }

    fn host(&self, side: Side) -> &Arc<Host> {
        match side {
            Side::Sender => &self.sender,
            Side::Receiver => &self.receiver,
        }
    }
}

/// A blow that is to fall, or has fallen.
#[derive(Debug)]
pub struct Strike {
    /// What is done.
    pub blow: Blow,
    /// To whom.
    pub victim: Side,
    victim_host: Arc<Host>,
    state: Arc<State>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    struck_ns: AtomicU64,
    resumed_ns: AtomicU64,
    is_called_off: AtomicBool,
}

impl Strike {
    /// Begins to watch.
    pub fn watch(aim: Aim) -> Strike {
        let state = Arc::new(State::default());
        let (blow, victim) = (aim.blow, aim.victim);
        let victim_host = Arc::clone(aim.host(victim));
        let shared = Arc::clone(&state);
        let watcher = thread::spawn(move || wait_and_strike(&aim, &shared));
        Strike { blow, victim, victim_host, state, watcher: Some(watcher) }
    }

    /// When it fell; `None` if it has not.
    pub fn struck_ns(&self) -> Option<u64> {
        Some(self.state.struck_ns.load(Ordering::Acquire)).filter(|at| *at != 0)
    }

    /// How long ago it fell.
    pub fn age(&self) -> Option<Duration> {
        self.struck_ns().map(|at| Duration::from_nanos(now_ns().saturating_sub(at)))
    }

    /// When a stopped victim was let go on.
    pub fn resumed_ns(&self) -> Option<u64> {
        Some(self.state.resumed_ns.load(Ordering::Acquire)).filter(|at| *at != 0)
    }

    /// Whether the victim stands still at this moment.
    pub fn is_held(&self) -> bool {
        self.blow.stops() && self.struck_ns().is_some() && self.resumed_ns().is_none()
    }

    /// Lets a stopped victim go on.
    pub fn resume(&self) -> io::Result<()> {
        if self.is_held() {
            let at = now_ns(); // what it says at once comes later
            self.victim_host.signal(Signal::CONT)?;
            self.state.resumed_ns.store(at, Ordering::Release);
        }
        Ok(())
    }
}

impl Drop for Strike {
    fn drop(&mut self) {
        self.state.is_called_off.store(true, Ordering::Release);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join(); // a watcher that panicked has said so
        }
    }
}

fn wait_and_strike(aim: &Aim, state: &State) {
    while !is_reached(aim) {
        if state.is_called_off.load(Ordering::Acquire) {
            return;
        }
        match aim.mark {
            // While bytes move, nothing but looking again is quick enough.
            Mark::Landed(_) if aim.sender.arena.reached_ns(Phase::Submit).is_some() => thread::yield_now(),
            _ => thread::sleep(BETWEEN_LOOKS),
        }
    }
    let from = Instant::now();
    while from.elapsed() < aim.delay {
        std::hint::spin_loop();
    }
    let host = aim.host(aim.victim);
    let at = now_ns();
    let struck = match aim.blow {
        Blow::Kill => host.signal(Signal::KILL).is_ok(),
        Blow::Stop | Blow::Pause => host.signal(Signal::STOP).is_ok(),
        Blow::Exit => {
            host.tell("exit");
            true
        }
    };
    // A victim that has ended by itself cannot be struck: the run says that nothing fell.
    if struck {
        state.struck_ns.store(at, Ordering::Release);
    }
}

fn is_reached(aim: &Aim) -> bool {
    match aim.mark {
        Mark::Reached(side, phase) => aim.host(side).arena.reached_ns(phase).is_some(),
        Mark::Landed(sixteenths) => aim.receiver.arena.sixteenths(0, aim.landing) >= sixteenths,
    }
}

/// Short against what one call of the library takes.
const BETWEEN_LOOKS: Duration = Duration::from_micros(20);
