//! Who waits for slots: a bounded queue that is served in turns, one slot a turn, so that a request that wants many does not
//! hold up one that wants a single one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::desc::SessionId;

use super::RequestId;

/// A request that wants more slots than it has been given.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// Who will write.
    pub session: SessionId,
    /// What it is for.
    pub request: RequestId,
    /// Slots that it still wants.
    pub slots: u32,
    /// Until when its turn must have come.
    pub until: Instant,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Waiters {
    queue: VecDeque<Waiter>,
}

impl Waiters {
    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether this request waits.
    pub fn holds(&self, session: SessionId, request: RequestId) -> bool {
        self.queue.iter().any(|waiter| (waiter.session, waiter.request) == (session, request))
    }

    /// When the first of them has waited long enough.
    pub fn due(&self) -> Option<Instant> {
        self.queue.iter().map(|waiter| waiter.until).min()
    }

    /// Puts a request at the end, or lets one that waits already want more.
    pub fn push(&mut self, waiter: Waiter) {
        let same = |other: &&mut Waiter| (other.session, other.request) == (waiter.session, waiter.request);
        match self.queue.iter_mut().find(same) {
            Some(other) => other.slots = other.slots.saturating_add(waiter.slots),
            None => self.queue.push_back(waiter),
        }
    }

    /// Whose turn it is; it is counted as served, and goes to the end if it wants more, to wait as long again.
    pub fn next(&mut self, now: Instant, wait: Duration) -> Option<(SessionId, RequestId)> {
        let mut waiter = self.queue.pop_front()?;
        (waiter.slots, waiter.until) = (waiter.slots - 1, now + wait);
        if waiter.slots > 0 {
            self.queue.push_back(waiter);
        }
        Some((waiter.session, waiter.request))
    }

    /// Takes out all that match.
    pub fn remove(&mut self, matches: impl Fn(&Waiter) -> bool) -> Vec<Waiter> {
        let (out, kept) = self.queue.drain(..).partition(|waiter| matches(waiter));
        self.queue = kept;
        out.into_iter().collect()
    }
}
