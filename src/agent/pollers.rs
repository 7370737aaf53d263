//! Those who poll: threads of the host that drive the engine by asking it again and again.
//!
//! While somebody polls, the progress thread leaves the driving to it, and those who copy leave it room. Nobody says that
//! he will not come again; the progress thread looks for that now and then.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Pollers {
    begin: Instant,
    /// How many are in the midst of a step.
    within: AtomicUsize,
    /// When one last took a step, in nanoseconds after the beginning; 0 where none does.
    last: AtomicU64,
    /// The progress thread waits for them to stop.
    is_spared: AtomicBool,
}

/// Who has not polled for so long does so no longer.
const GONE_AFTER: Duration = Duration::from_micros(250);
/// How often the progress thread looks whether there is one: at first,
pub(super) const LOOK_FIRST: Duration = Duration::from_micros(250);
/// and after a while. Each look takes a core away from whoever works.
pub(super) const LOOK_LAST: Duration = Duration::from_millis(1);

impl Default for Pollers {
    fn default() -> Self {
        Self { begin: Instant::now(), within: AtomicUsize::new(0), last: AtomicU64::new(0), is_spared: AtomicBool::new(false) }
    }
}

impl Pollers {
    /// Somebody polls: this is what it does.
    pub fn step<T>(&self, step: impl FnOnce() -> T) -> T {
        self.within.fetch_add(1, Ordering::SeqCst);
        let _within = Within(self);
        step()
    }

    /// Who polled does so no longer. Returns whether the progress thread waits for that.
    pub fn go(&self) -> bool {
        self.last.store(0, Ordering::SeqCst);
        self.is_spared.load(Ordering::SeqCst)
    }

    /// Whether somebody polls.
    pub fn are_there(&self) -> bool {
        if self.within.load(Ordering::SeqCst) > 0 {
            return true;
        }
        let last = self.last.load(Ordering::SeqCst);
        last > 0 && self.begin.elapsed().saturating_sub(Duration::from_nanos(last)) < GONE_AFTER
    }

    /// The progress thread waits for them to stop, or does so no longer.
    pub fn spare(&self, is_spared: bool) {
        self.is_spared.store(is_spared, Ordering::SeqCst);
    }
}

/// A step, until it is over, one way or another.
struct Within<'a>(&'a Pollers);

impl Drop for Within<'_> {
    fn drop(&mut self) {
        let Pollers { begin, within, last, .. } = self.0;
        last.store(begin.elapsed().as_nanos() as u64, Ordering::SeqCst);
        within.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn who_goes_is_gone_and_who_stays_away_is_gone_soon() {
        let pollers = Pollers::default();
        assert!(!pollers.are_there() && !pollers.go());
        pollers.spare(true);
        pollers.step(|| assert!(pollers.are_there()));
        assert!(pollers.are_there() && pollers.go() && !pollers.are_there());
        pollers.step(|| ());
        let begin = Instant::now();
        while pollers.are_there() {
            assert!(begin.elapsed() < Duration::from_secs(20), "it stays for ever");
            std::thread::yield_now();
        }
        assert!(begin.elapsed() + Duration::from_micros(50) >= GONE_AFTER);
    }
}
