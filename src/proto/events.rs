//! What two agents tell each other that is not about one transfer: notifications, regions, who has whom loaded.
//! It is numbered, kept until the other side has it, and taken once, in order, whatever happens to frames.
//!
//! ```text
//!  out   Settled --said--> Waiting --all heard--> Settled
//!  in    InOrder --ahead--> Gap --next--> InOrder
//! ```
//!
//! Each heartbeat says how many events have been said and how many were heard, and whether the rest is to be said
//! again. An event that comes ahead of its turn is dropped; it is said again with those before it. So a receiver
//! keeps nothing, and a sender what the heartbeats have not confirmed.

use std::collections::VecDeque;

use thiserror::Error;

use crate::planted::{self, Planted};

use super::transition::{named, table};

named!(
    /// Where our events stand.
    OutPhase {
        /// The peer has them all.
        Settled,
        /// The peer has not confirmed the last ones.
        Waiting,
    }
);

named!(
    /// What happens to our events.
    OutEvent {
        /// One more is said.
        Said,
        /// The peer has some more of them.
        SomeHeard,
        /// The peer has all of them.
        AllHeard,
        /// The peer wants the rest again.
        AskedAgain,
    }
);

table!(OutPhase, OutEvent {
    Said: { Settled => Waiting, Waiting => Waiting },
    SomeHeard: { Waiting => Waiting },
    AllHeard: { Settled => Settled, Waiting => Settled },
    AskedAgain: { Settled => Settled, Waiting => Waiting },
});

named!(
    /// Where the peer's events stand.
    InPhase {
        /// Nothing is known to be missing.
        InOrder,
        /// The next one is missing, and later ones have been said.
        Gap,
    }
);

named!(
    /// What happens to the peer's events.
    InEvent {
        /// The one that is due is here.
        Next,
        /// One that we have is here again.
        Repeated,
        /// One beyond the one that is due is here, or has been said.
        Ahead,
    }
);

table!(InPhase, InEvent {
    Next: { InOrder => InOrder, Gap => InOrder },
    Repeated: { InOrder => InOrder, Gap => Gap },
    Ahead: { InOrder => Gap, Gap => Gap },
});

/// The peer speaks of events that we have not said: it is not our events that it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it confirms {heard} events where {said} were said")]
pub struct NeverSaid {
    /// Events that it has heard.
    pub heard: u64,
    /// Events that were said.
    pub said: u64,
}

/// Our events: those that the peer has not confirmed are kept.
#[derive(Debug)]
pub struct EventsOut {
    phase: OutPhase,
    /// The last ones, as they are on the wire; the first of them is the one after `heard`.
    kept: VecDeque<Box<[u8]>>,
    kept_bytes: usize,
    heard: u64,
    said: u64,
}

/// The peer's events: counted, nothing else.
#[derive(Debug)]
pub struct EventsIn {
    phase: InPhase,
    heard: u64,
    /// Of those, what the peer has been told; and the bytes of the others.
    confirmed: u64,
    unconfirmed_bytes: usize,
}

/// Bytes of events heard after which the peer is told at once: it keeps them until then.
const CONFIRM_BYTES: usize = 1 << 20;

impl Default for EventsOut {
    fn default() -> Self {
        Self { phase: OutPhase::Settled, kept: VecDeque::new(), kept_bytes: 0, heard: 0, said: 0 }
    }
}

impl EventsOut {
    /// How many there have been.
    pub fn said(&self) -> u64 {
        self.said
    }

    /// Bytes of those that are kept.
    pub fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// Whether the peer has yet to confirm some.
    pub fn is_waiting(&self) -> bool {
        self.phase == OutPhase::Waiting
    }

    /// Keeps the frame of the event numbered [`EventsOut::said`] + 1, which goes out now.
    pub fn say(&mut self, frame: &[u8]) {
        self.said += 1;
        self.kept_bytes += frame.len();
        self.kept.push_back(frame.into());
        self.apply(OutEvent::Said);
    }

    /// The peer has heard so many. Whether that is news.
    pub fn confirm(&mut self, heard: u64) -> Result<bool, NeverSaid> {
        if heard > self.said {
            return Err(NeverSaid { heard, said: self.said });
        }
        let news = heard.saturating_sub(self.heard);
        for _ in 0..news {
            self.kept_bytes -= self.kept.pop_front().map_or(0, |frame| frame.len());
        }
        self.heard += news;
        match (news, self.heard == self.said) {
            (_, true) => self.apply(OutEvent::AllHeard),
            (0, false) => {}
            (_, false) => self.apply(OutEvent::SomeHeard),
        }
        Ok(news > 0)
    }

    /// The frames that the peer has not confirmed.
    pub fn kept(&self) -> impl Iterator<Item = &[u8]> {
        self.kept.iter().map(|frame| &**frame)
    }

    /// The frames to be said again, when the peer has asked for that.
    pub fn again(&mut self) -> impl Iterator<Item = &[u8]> {
        self.apply(OutEvent::AskedAgain);
        self.kept()
    }

    fn apply(&mut self, event: OutEvent) {
        self.phase = self.phase.on(event).unwrap_or(self.phase); // every event has its place where it is applied
    }
}

impl Default for EventsIn {
    fn default() -> Self {
        Self { phase: InPhase::InOrder, heard: 0, confirmed: 0, unconfirmed_bytes: 0 }
    }
}

impl EventsIn {
    /// How many have been taken.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether one is missing.
    pub fn is_missing_some(&self) -> bool {
        self.phase == InPhase::Gap
    }

    /// An event is here with this number, in a frame of so many bytes. Whether it is to be taken now.
    pub fn take(&mut self, number: u64, bytes: usize) -> bool {
        let is_next = number.checked_sub(1) == Some(self.heard)
            || number <= self.heard && planted::is(Planted::EventTwice)
            || number > self.heard && planted::is(Planted::EventSkipped);
        if is_next {
            self.heard = number;
            self.unconfirmed_bytes += bytes;
        }
        self.apply(match number {
            _ if is_next => InEvent::Next,
            number if number <= self.heard => InEvent::Repeated,
            _ => InEvent::Ahead,
        });
        is_next
    }

    /// The peer has said so many. Whether we have them all.
    pub fn note_said(&mut self, said: u64) -> bool {
        if said > self.heard {
            self.apply(InEvent::Ahead);
        }
        said <= self.heard
    }

    /// Whether the peer is to be told what we have: some time soon, or at once.
    pub fn is_unconfirmed(&self, at_once: bool) -> bool {
        if at_once { self.unconfirmed_bytes >= CONFIRM_BYTES } else { self.heard > self.confirmed }
    }

    /// The peer is told what we have.
    pub fn confirm(&mut self) {
        (self.confirmed, self.unconfirmed_bytes) = (self.heard, 0);
    }

    fn apply(&mut self, event: InEvent) {
        self.phase = self.phase.on(event).unwrap_or(self.phase); // the table has every outcome
    }
}

#[cfg(test)]
mod tests;
