//! A point in time that no wait of one call passes.

use std::time::{Duration, Instant};

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    start: Instant,
    end: Instant,
}

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        let start = Instant::now();
        Self { start, end: start.checked_add(limit).unwrap_or(start + FOREVER) }
    }

    /// The time left, `None` once it has passed. Never zero, so it may be a socket's timeout.
    pub fn left(&self) -> Option<Duration> {
        self.end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// The same wait, but no longer than `limit` from now.
    pub fn or_after(self, limit: Duration) -> Self {
        Self { end: self.end.min(Self::after(limit).end), ..self }
    }

    /// The same wait, for `grace` longer.
    pub fn later(self, grace: Duration) -> Self {
        Self { end: self.end + grace, ..self }
    }

    /// How long has been waited.
    pub fn waited(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A peer may name any number of milliseconds; a day outlasts every deadline of ours.
const FOREVER: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sooner_one_counts() {
        let long = Deadline::after(Duration::from_secs(100));
        assert!(long.or_after(Duration::from_secs(1)).left() <= Some(Duration::from_secs(1)));
        assert!(long.or_after(Duration::from_secs(1000)).left() > Some(Duration::from_secs(10)));
        let past = Deadline::after(Duration::ZERO);
        assert_eq!(past.left(), None);
        assert_eq!(past.or_after(Duration::from_secs(1)).left(), None);
        assert!(past.later(Duration::from_secs(9)).left() > Some(Duration::from_secs(5)));
    }
}
