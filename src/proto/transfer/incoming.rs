//! A transfer at the peer of the agent that submitted it.

use std::time::Instant;

use crate::desc::{TransferId, TransferOp};
use crate::planted::{self, Planted};
use crate::proto::transition::{named, table};
use crate::proto::wire::{Standing, State};

use super::{ChunkSet, Progress, Runs};

named!(
    /// Where an incoming transfer stands.
    IncomingPhase {
        /// Chunks are landing.
        Receiving,
        /// Broken on our side; FAIL is sent, the initiator's ABORT is awaited.
        Failed,
        /// Aborted by the initiator; our posts and landings have yet to end.
        Closing,
        /// Ended.
        Over,
    }
);

named!(
    /// What happens to an incoming transfer.
    IncomingEvent {
        /// Committed, and every chunk is in place.
        Whole,
        /// A chunk cannot be placed or fetched.
        Fault,
        /// The initiator's ABORT is here.
        Abort,
        /// Nothing of it is in flight any more.
        Quiet,
    }
);

table!(IncomingPhase, IncomingEvent {
    Whole: { Receiving => Over },
    Fault: { Receiving => Failed, Failed => Failed, Closing => Closing },
    Abort: { Receiving => Closing, Failed => Closing, Closing => Closing },
    Quiet: { Closing => Over },
});

/// What COMMIT said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Chunks to have landed.
    pub chunks: u32,
    /// Bytes to have landed.
    pub bytes: u64,
    /// Message for our host.
    pub sync_message: Option<Vec<u8>>,
}

/// A transfer at its responder.
#[derive(Debug)]
pub struct Incoming {
    /// The initiator's id for it.
    pub id: TransferId,
    /// Read or write, seen from the initiator.
    pub op: TransferOp,
    /// Where it stands.
    pub phase: IncomingPhase,
    /// The lane that it takes, as an index into the endpoint's lanes, once a chunk has come.
    pub lane: Option<usize>,
    /// When it last came on.
    pub progress: Progress,
    /// Chunks in place.
    pub landed: ChunkSet,
    /// Chunks seen at all, so that none is taken twice.
    pub seen: ChunkSet,
    /// Bytes in place.
    pub bytes: u64,
    /// Chunks being pulled, landed, or answered right now, queued ones included.
    pub in_flight: u32,
    /// Data frames seen, for the books of an abort.
    pub arrived: u32,
    /// Chunks in place when the initiator was last told.
    pub reported: u32,
    /// When the initiator, who had asked, was last told its state.
    pub told: Option<Instant>,
    /// Chunks whose answer frames went out.
    pub answered: ChunkSet,
    /// Frames the initiator posted before it aborted, where frames are how it writes.
    pub owed: u32,
    /// The COMMIT, once it is here.
    pub commit: Option<Committed>,
    /// Why it failed here.
    pub failure: Option<String>,
}

impl Incoming {
    /// A transfer that nothing else is known of.
    pub fn new(id: TransferId, op: TransferOp, now: Instant) -> Self {
        Self {
            id,
            op,
            phase: IncomingPhase::Receiving,
            lane: None,
            progress: Progress::new(now),
            landed: ChunkSet::default(),
            seen: ChunkSet::default(),
            bytes: 0,
            in_flight: 0,
            arrived: 0,
            reported: 0,
            told: None,
            answered: ChunkSet::default(),
            owed: 0,
            commit: None,
            failure: None,
        }
    }

    /// Takes note of a chunk that the peer speaks of; false where it has done so before.
    pub fn see(&mut self, chunk: u32) -> bool {
        self.seen.insert(chunk)
    }

    /// Takes the COMMIT in. One that has come before changes nothing, unless it says something else.
    pub fn commit(&mut self, commit: Committed) -> Result<(), String> {
        match &self.commit {
            Some(first) if *first != commit => Err("it was committed twice, and not to the same".into()),
            _ => {
                self.commit = Some(commit);
                Ok(())
            }
        }
    }

    /// What there is to tell of it.
    pub fn state(&self) -> State {
        State {
            id: self.id,
            standing: match self.phase {
                IncomingPhase::Receiving => Standing::Receiving,
                IncomingPhase::Failed => Standing::Failed,
                IncomingPhase::Closing => Standing::Closing,
                IncomingPhase::Over => Standing::Forgotten,
            },
            committed: self.commit.is_some(),
            done: self.done().len(),
            unheard: Runs::new(self.seen.missing(u32::MAX)),
            missing: self.missing(),
        }
    }

    /// The first chunks that are not done here: of those that COMMIT names, or that we know of.
    pub fn missing(&self) -> Runs {
        let end = self.commit.as_ref().map_or(0, |commit| commit.chunks).max(self.seen.end());
        Runs::new(self.done().missing(end))
    }

    /// Chunks that we are done with: in place, or sent.
    pub fn done(&self) -> &ChunkSet {
        if self.op == TransferOp::Read { &self.answered } else { &self.landed }
    }

    /// Whether it is committed and whole, so that ACK is due. A commit whose counts cannot be met by what
    /// has landed is a fault.
    pub fn is_whole(&self) -> Result<bool, String> {
        let Some(commit) = &self.commit else { return Ok(false) };
        if planted::is(Planted::AckWithoutCoverage) {
            return Ok(self.phase == IncomingPhase::Receiving && self.in_flight == 0);
        }
        if self.phase != IncomingPhase::Receiving || self.in_flight > 0 || self.landed.len() < commit.chunks {
            return Ok(false);
        }
        if self.landed.len() > commit.chunks || self.bytes != commit.bytes {
            return Err(format!(
                "{} chunks with {} bytes landed, the commit speaks of {} with {}",
                self.landed.len(),
                self.bytes,
                commit.chunks,
                commit.bytes
            ));
        }
        Ok(true)
    }

    /// Whether an aborted transfer is quiet: nothing in flight, and no frame under way to us.
    pub fn is_quiet(&self) -> bool {
        let idle = self.in_flight == 0 || planted::is(Planted::AbortedBeforeQuiet);
        self.phase == IncomingPhase::Closing && idle && self.arrived >= self.owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::transition::picture;

    #[test]
    fn every_outcome_of_the_incoming_table() {
        let seen = picture(IncomingPhase::ALL, IncomingEvent::ALL, |phase, event| {
            [phase.name(), event.name(), phase.on(event).map_or("-", IncomingPhase::name)]
        });
        assert_eq!(seen, include_str!("../snapshots/incoming.txt"));
    }

    #[test]
    fn a_commit_that_the_data_contradicts_is_a_fault() {
        let mut incoming = Incoming::new(TransferId(1), TransferOp::Write, Instant::now());
        incoming.landed.insert(0);
        incoming.bytes = 10;
        assert_eq!(incoming.is_whole(), Ok(false));
        incoming.commit = Some(Committed { chunks: 1, bytes: 10, sync_message: None });
        assert_eq!(incoming.is_whole(), Ok(true));
        incoming.commit = Some(Committed { chunks: 1, bytes: 11, sync_message: None });
        assert!(incoming.is_whole().is_err());
        incoming.commit = Some(Committed { chunks: 2, bytes: 11, sync_message: None });
        assert_eq!(incoming.is_whole(), Ok(false));
    }
}
