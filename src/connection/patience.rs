//! When a wait has become long enough to be named in the log.

use std::time::{Duration, Instant};

/// The first time that a wait is named, and how long it then takes until it is named again.
const TRIED_AFTER: Duration = Duration::from_secs(10);
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Measures one wait.
#[derive(Debug)]
pub(super) struct Patience {
    since: Instant,
    next: Instant,
}

impl Patience {
    /// A wait that begins now.
    pub fn new() -> Self {
        let since = Instant::now();
        Self { since, next: since + TRIED_AFTER }
    }

    /// The seconds waited, when it is time to say so.
    pub fn is_tried(&mut self) -> Option<u64> {
        let now = Instant::now();
        (now >= self.next).then(|| {
            self.next = now + TRIED_AGAIN_AFTER;
            now.duration_since(self.since).as_secs()
        })
    }
}
