//! When a transfer last came on, and what has been done about it since.

use std::time::{Duration, Instant};

/// A transfer that stands still this long is reported: within 1 s, with what a tick adds.
pub const STALL_REPORTED: Duration = Duration::from_millis(900);

/// A transfer that stands still this long is asked after: so early that the report can say what the peer knows.
pub const ASK_AFTER: Duration = Duration::from_millis(500);
/// It is asked after again this much later.
pub const ASK_EVERY: Duration = Duration::from_secs(1);

/// When a transfer last came on, and what has been done about it since.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    last: Instant,
    reported: bool,
    asked: Option<Instant>,
}

impl Progress {
    /// It came on now.
    pub fn new(now: Instant) -> Self {
        Self { last: now, reported: false, asked: None }
    }

    /// It came on again.
    pub fn note(&mut self, now: Instant) {
        *self = Self::new(self.last.max(now));
    }

    /// When it last came on.
    pub fn last(&self) -> Instant {
        self.last
    }

    /// Whether the peer, last heard at `heard`, is to be asked now where the transfer stands. Not while an earlier
    /// question waits for a peer that is silent.
    pub fn ask_is_due(&mut self, heard: Instant, now: Instant) -> bool {
        let still = now.saturating_duration_since(self.last) >= ASK_AFTER;
        let again =
            self.asked.is_none_or(|asked| heard > asked && now.saturating_duration_since(asked) >= ASK_EVERY);
        if still && again {
            self.asked = Some(now);
        }
        still && again
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
    fn a_peer_that_can_be_heard_is_asked_every_second() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut progress = Progress::new(start);
        let asked: Vec<_> = (0..50)
            .map(|tick| tick * 100)
            .filter(|ms| progress.ask_is_due(at(*ms.min(&2000)), at(*ms)))
            .collect();
        assert_eq!(asked, [500, 1500, 2500], "it was last heard at 2000");
    }

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
