//! When a transfer last came on, and what has been done about it since.

use std::time::{Duration, Instant};

/// A transfer that stands still this long is reported: within 1 s, with what a tick adds.
pub const STALL_REPORTED: Duration = Duration::from_millis(900);

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    last: Instant,
    reported: bool,
}

impl Progress {
    /// It came on now.
    pub fn new(now: Instant) -> Self {
        Self { last: now, reported: false }
    }

    /// It came on again.
    pub fn note(&mut self, now: Instant) {
        *self = Self::new(self.last.max(now));
    }

    /// When it last came on.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// Whether a stall since `since` is to be reported now: once for each.
    pub fn report_is_due(&mut self, since: Instant, now: Instant) -> bool {
        let due = !self.reported && now.saturating_duration_since(since) >= STALL_REPORTED;
        self.reported |= due;
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stall_is_reported_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut progress = Progress::new(start);
        let mut due = |ms| {
            if ms == 1500 {
                progress.note(at(1500));
            }
            progress.report_is_due(progress.last(), at(ms))
        };
        let reports: Vec<_> = (0..40).map(|tick| tick * 100).filter(|ms| due(*ms)).collect();
        assert_eq!(reports, [900, 2400]);
    }
}
