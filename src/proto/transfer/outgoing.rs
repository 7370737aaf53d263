//! A transfer at the agent that submitted it.

use std::collections::BTreeSet;

use crate::desc::{RegionKey, Span, TransferId, TransferOp};
use crate::proto::plan::Plan;
use crate::proto::regions::RegionTable;
use crate::proto::transition::{named, table};

use super::{ChunkSet, Mover, Progress, Runs, TransferError};

named!(
    /// Where an outgoing transfer stands.
    OutgoingPhase {
        /// Chunks are still to be issued or on their way.
        Moving,
        /// COMMIT is sent; the ACK is awaited.
        Committing,
        /// Acknowledged; our own posts have yet to complete.
        Settling,
        /// Broken; our own posts and landings have yet to end.
        Draining,
        /// ABORT is sent; ABORTED is awaited.
        Aborting,
        /// Ended.
        Over,
    }
);

named!(
    /// What happens to an outgoing transfer.
    OutgoingEvent {
        /// All that COMMIT vouches for has been done.
        AllMoved,
        /// The ACK is here.
        Acked,
        /// It cannot or must not go on.
        Broken,
        /// Nothing of ours is in flight any more.
        Quiet,
        /// ABORTED is here and its answers are accounted for.
        Aborted,
        /// The link is gone, and the fabrics have let go of it.
        LinkLost,
    }
);

table!(OutgoingPhase, OutgoingEvent {
    AllMoved: { Moving => Committing },
    Acked: { Committing => Settling, Draining => Settling, Aborting => Aborting },
    Broken: { Moving => Draining, Committing => Draining, Draining => Draining, Aborting => Aborting },
    Quiet: { Settling => Over, Draining => Aborting },
    Aborted: { Aborting => Over },
    LinkLost: {
        Moving => Over, Committing => Over, Settling => Over, Draining => Over, Aborting => Over, Over => Over,
    },
});

/// A transfer at its initiator.
#[derive(Debug)]
pub struct Outgoing {
    /// Its id, unique in our session.
    pub id: TransferId,
    /// Read or write.
    pub op: TransferOp,
    /// Who moves it.
    pub mover: Mover,
    /// What to move.
    pub plan: Plan,
    /// Our own regions that it touches.
    pub regions: Vec<RegionKey>,
    /// The peer's regions that it touches, once one of those has been revoked: with thousands revoked at a time,
    /// each must not cost a walk over the plan.
    pub their_regions: Option<BTreeSet<RegionKey>>,
    /// Delivered to the peer's host with the COMMIT.
    pub sync_message: Option<Vec<u8>>,
    /// Where it stands.
    pub phase: OutgoingPhase,
    /// Whether COMMIT is sent.
    pub committed: bool,
    /// Whether the ACK is here: it has succeeded, whatever else happens to it.
    pub acknowledged: bool,
    /// Why it broke, once it has.
    pub failure: Option<TransferError>,
    /// When it last came on.
    pub progress: Progress,
    /// Next chunk to issue.
    pub next_chunk: u32,
    /// Chunks of ours in flight: posted batches, or answers being landed.
    pub in_flight: u32,
    /// Chunks that are done as far as we can see.
    pub done: ChunkSet,
    /// Answer frames seen, landed or not.
    pub answers: u32,
    /// What ABORTED said of answers, once it is here.
    pub answers_owed: Option<u32>,
}

impl Outgoing {
    /// Chunks in the plan.
    pub fn chunks(&self) -> u32 {
        self.plan.chunk_count() as u32 // a plan has at most MAX_SEGMENTS chunks
    }

    /// Whether the peer's side of it lies in these regions.
    pub fn is_within(&self, theirs: &RegionTable) -> bool {
        self.remote_spans().all(|span| theirs.holding(span).is_some())
    }

    /// Remembers which of the peer's regions it uses, unless it does already.
    pub fn note_regions(&mut self, theirs: &RegionTable) {
        if self.their_regions.is_none() {
            let held = self.remote_spans().filter_map(|span| theirs.holding(span));
            self.their_regions = Some(held.map(|region| region.key).collect());
        }
    }

    /// Whether it cannot go on without the peer's region `revoked`; `theirs` are those that are left, and the
    /// same memory may be in one of them.
    pub fn loses(&mut self, revoked: RegionKey, theirs: &RegionTable) -> bool {
        let used = self.their_regions.as_ref().is_some_and(|keys| keys.contains(&revoked));
        if used {
            self.their_regions = None;
        }
        used && !self.is_within(theirs)
    }

    /// Makes it use those of our regions that are left. False where they do not hold all of our side.
    pub fn rebind(&mut self, ours: &RegionTable) -> bool {
        let read = self.op == TransferOp::Read;
        let local =
            self.plan.segments().iter().map(|s| Span { addr: if read { s.dst } else { s.src }, len: s.len });
        let held: Option<BTreeSet<RegionKey>> =
            local.map(|span| ours.holding(span).map(|region| region.key)).collect();
        let Some(keys) = held else { return false };
        self.regions = keys.into_iter().collect();
        true
    }

    /// The peer's side of its segments.
    fn remote_spans(&self) -> impl Iterator<Item = Span> {
        let read = self.op == TransferOp::Read;
        self.plan.segments().iter().map(move |s| Span { addr: if read { s.src } else { s.dst }, len: s.len })
    }

    /// The first chunks that are not done, as far as we can see.
    pub fn missing(&self) -> Runs {
        Runs::new(self.done.missing(self.chunks()))
    }

    /// Whether another chunk waits to be issued.
    pub fn has_chunk_to_issue(&self) -> bool {
        self.phase == OutgoingPhase::Moving && self.next_chunk < self.chunks()
    }

    /// Whether COMMIT is due: everything it vouches for is done or on an accounted way.
    pub fn commit_is_due(&self) -> bool {
        let moved = match self.mover {
            Mover::Native | Mover::Answered => self.done.len() == self.chunks(),
            Mover::Framed | Mover::Pulled => self.next_chunk == self.chunks(),
        };
        self.phase == OutgoingPhase::Moving && moved
    }

    /// Takes an event through the table; a bad one breaks the transfer instead of the process.
    pub fn apply(&mut self, event: OutgoingEvent) {
        match self.phase.on(event) {
            Ok(phase) => self.phase = phase,
            Err(bad) => self.break_off(TransferError::Local(bad.to_string())),
        }
    }

    /// Breaks it for this reason. The first reason stays; one that is acknowledged or has ended is left alone.
    pub fn break_off(&mut self, reason: TransferError) {
        if self.acknowledged || self.phase == OutgoingPhase::Over {
            return;
        }
        self.failure.get_or_insert(reason);
        if let Ok(phase) = self.phase.on(OutgoingEvent::Broken) {
            self.phase = phase;
        }
    }

    /// The ACK is here: whatever was to break it off came too late. An ACK of what was never committed is a lie.
    pub fn acknowledge(&mut self) {
        if !self.committed {
            return self.break_off(TransferError::Remote("it acknowledged what was not committed".into()));
        }
        (self.acknowledged, self.failure) = (true, None);
        self.apply(OutgoingEvent::Acked);
    }

    /// Whether every answer that ABORTED owes us has been seen.
    pub fn abort_is_settled(&self) -> bool {
        self.phase == OutgoingPhase::Aborting
            && self.in_flight == 0
            && self.answers_owed.is_some_and(|owed| self.answers >= owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::transition::picture;

    #[test]
    fn every_outcome_of_the_outgoing_table() {
        let seen = picture(OutgoingPhase::ALL, OutgoingEvent::ALL, |phase, event| {
            [phase.name(), event.name(), phase.on(event).map_or("-", OutgoingPhase::name)]
        });
        assert_eq!(seen, include_str!("../snapshots/outgoing.txt"));
    }

    #[test]
    fn a_bad_transition_names_both() {
        let error = OutgoingPhase::Over.on(OutgoingEvent::AllMoved).unwrap_err();
        assert_eq!(error.to_string(), "AllMoved is not possible while Over");
    }
}
