//! Those who poll: threads of the host that drive the engine by asking it again and again.
//!
//! While somebody polls, the progress thread leaves the driving to it, and those who copy leave it room. Nobody says that
//! he will not come again; the progress thread looks for that now and then.

use std::time::{Duration, Instant};

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pollers {
    begin: Instant,
    /// How many are in the midst of a step.
    within: AtomicUsize,
    /// When one last took a step, in nanoseconds after the beginning; 0 where none does.
    last: AtomicU64,
    /// When a host that polls last had something to drive, likewise.
    last_drive: AtomicU64,
    /// The progress thread waits for them to stop.
    is_spared: AtomicBool,
}

/// Who has not polled for so long does so no longer. In a model it has to say so.
const GONE_AFTER: Duration = if cfg!(loom) { Duration::MAX } else { Duration::from_micros(250) };
/// How often the progress thread looks whether there is one: at first,
const LOOK_FIRST: Duration = Duration::from_micros(250);
/// and after a while. Each look takes a core away from whoever works.
const LOOK_LAST: Duration = Duration::from_millis(1);

impl Default for Pollers {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            within: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            last_drive: AtomicU64::new(0),
            is_spared: AtomicBool::new(false),
        }
    }
}

impl Pollers {
    /// Somebody polls: this is what it does.
    pub fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        self.within.fetch_add(1, Ordering::AcqRel);
        let _within = Within(self);
        step()
    }

    /// A host that polls had something to drive. Returns how long before that it last had.
    pub fn note_drive(&self) -> Duration {
        let now = self.begin.elapsed().as_nanos() as u64;
        Duration::from_nanos(now.saturating_sub(self.last_drive.swap(now, Ordering::AcqRel)))
    }

    /// Who polled does so no longer. Returns whether the progress thread waits for that, and has to be called.
    pub fn go(&self) -> bool {
        self.last.swap(0, Ordering::AcqRel); // no plain store: what several of them say has one order
        fence(Ordering::SeqCst); // and one in `sit_out`: one of the two sees what the other has said
        self.is_spared.load(Ordering::Acquire)
    }

    /// Whether somebody polls.
    pub fn are_there(&self) -> bool {
        if self.within.load(Ordering::Acquire) > 0 {
            return true;
        }
        let last = self.last.load(Ordering::Acquire);
        last > 0 && self.begin.elapsed().saturating_sub(Duration::from_nanos(last)) < GONE_AFTER
    }

    /// For the progress thread: waits while somebody polls, until it is called. `park` waits to be called, for so long,
    /// and says whether it was. Returns whether there was a wait: what was known before is old by now.
    pub fn sit_out(&self, mut park: impl FnMut(Duration) -> bool) -> bool {
        self.is_spared.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        let (mut has_waited, mut called, mut look) = (false, false, LOOK_FIRST);
        while !called && self.are_there() {
            has_waited = true;
            called = park(look);
            look = (2 * look).min(LOOK_LAST);
        }
        self.is_spared.store(false, Ordering::Release);
        has_waited
    }
}

/// A step, until it is over, one way or another.
struct Within<'a>(&'a Pollers);

impl Drop for Within<'_> {
    fn drop(&mut self) {
        let Pollers { begin, within, last, .. } = self.0;
        last.swap(begin.elapsed().as_nanos() as u64, Ordering::AcqRel);
        within.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_goes_is_gone_and_who_stays_away_is_gone_soon() {
        let pollers = Pollers::default();
        assert!(!pollers.are_there() && !pollers.go());
        assert!(!pollers.sit_out(|_| unreachable!("nobody polls")));
        pollers.step(|| assert!(pollers.are_there()));
        let mut looks = Vec::new();
        let waited = pollers.sit_out(|look| {
            looks.push(look);
            pollers.step(|| ());
            looks.len() == 4 && pollers.go()
        });
        assert!(waited && !pollers.are_there() && !pollers.go());
        assert_eq!(looks.iter().map(Duration::as_micros).collect::<Vec<_>>(), [250, 500, 1000, 1000]);
        pollers.step(|| ());
        let begin = Instant::now();
        while pollers.are_there() {
            assert!(begin.elapsed() < Duration::from_secs(20), "it stays for ever");
            std::thread::yield_now();
        }
        assert!(begin.elapsed() + Duration::from_micros(50) >= GONE_AFTER);
    }

    #[test]
    fn says_how_long_nobody_drove() {
        let pollers = Pollers::default();
        while pollers.begin.elapsed() < GONE_AFTER {
            std::thread::yield_now();
        }
        assert!(pollers.note_drive() >= GONE_AFTER, "never yet");
        let before = pollers.last_drive.load(Ordering::Acquire);
        let ago = pollers.note_drive();
        assert_eq!(ago.as_nanos() as u64, pollers.last_drive.load(Ordering::Acquire) - before);
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::{Condvar, Mutex};

    /// The pollers of an agent, and the waker of its progress thread.
    #[derive(Default)]
    struct Agent {
        pollers: Pollers,
        is_called: Mutex<bool>,
        called: Condvar,
    }

    impl Agent {
        /// As a waiter that finds nothing to do.
        fn poll_and_go(&self) {
            self.pollers.step(|| ());
            if self.pollers.go() {
                *self.is_called.lock() = true;
                self.called.notify_all();
            }
        }

        /// As the progress thread: a park ends by a call alone.
        fn sit_out(&self) {
            self.pollers.sit_out(|_| {
                let mut is_called = self.is_called.lock();
                while !*is_called {
                    self.called.wait(&mut is_called);
                }
                true
            });
            *self.is_called.lock() = false; // as it empties its waker
        }
    }

    fn nobody_is_waited_for_who_has_gone(pollers: usize, preemptions: usize) {
        let mut orders = loom::model::Builder::new();
        orders.preemption_bound = Some(preemptions);
        orders.check(move || {
            let agent = Arc::new(Agent::default());
            let polling: Vec<_> = (0..pollers)
                .map(|_| {
                    let agent = Arc::clone(&agent);
                    thread::spawn(move || agent.poll_and_go())
                })
                .collect();
            // Each time somebody may have gone, and another one still be there.
            (0..=pollers).for_each(|_| agent.sit_out());
            polling.into_iter().for_each(|poller| poller.join().unwrap());
        });
    }

    #[test]
    fn the_last_poller_that_goes_calls_whoever_waits_for_that() {
        nobody_is_waited_for_who_has_gone(1, 3);
    }

    #[test]
    fn of_two_pollers_the_last_one_that_goes_calls() {
        nobody_is_waited_for_who_has_gone(2, 2);
    }
}
