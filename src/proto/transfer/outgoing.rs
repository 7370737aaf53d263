//! A transfer at the agent that submitted it.

use std::collections::BTreeSet;

use crate::desc::{MemoryKind, RegionKey, Span, TransferId, TransferOp};
use crate::planted::{self, Planted};
use crate::proto::plan::{Party, Plan};
use crate::proto::regions::RegionTable;
use crate::proto::transition::{named, table};
use crate::proto::wire::Commit;

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
    Acked: { Committing => Settling, Settling => Settling, Draining => Settling, Aborting => Settling },
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
    /// The lane that it takes, as an index into the endpoint's lanes.
    pub lane: usize,
    /// Who moves it.
    pub mover: Mover,
    /// The kinds of memory, ours and the peer's, of one that is gathered.
    pub gathered: Option<[MemoryKind; 2]>,
    /// What to move.
    pub plan: Plan,
    /// Our own regions that it touches.
    pub regions: Vec<RegionKey>,
    /// The peer's regions that it touches, once one of those has been revoked: with thousands revoked at a time,
    /// each must not cost a walk over the plan.
    pub their_regions: Option<BTreeSet<RegionKey>>,
    /// Whether the peer has revoked memory of its side meanwhile: what it registers again there is not what was meant.
    pub was_revoked: bool,
    /// Delivered to the peer's host with the COMMIT; kept, because that may have to be said again.
    pub sync_message: Option<Vec<u8>>,
    /// Where it stands.
    pub phase: OutgoingPhase,
    /// Whether COMMIT is sent.
    pub committed: bool,
    /// Whether the ACK is here: its outcome stands, whatever else happens to it.
    pub acknowledged: bool,
    /// Why it broke, once it has.
    pub failure: Option<TransferError>,
    /// When it last came on.
    pub progress: Progress,
    /// Whether the peer owes an answer to the question where it stands.
    pub awaits_state: bool,
    /// Next chunk to issue.
    pub next_chunk: u32,
    /// Chunks of ours in flight: posted batches, or answers being landed.
    pub in_flight: u32,
    /// Chunks that are done as far as we can see.
    pub done: ChunkSet,
    /// Chunks in place at the peer, as far as it has told.
    pub landed: u32,
    /// The first chunks that are not, when it last told.
    pub their_missing: Option<Runs>,
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
        let loses = used && !self.is_within(theirs);
        self.was_revoked |= loses;
        loses
    }

    /// Makes it use those of our regions that are left. False where they do not hold all of our side.
    pub fn rebind(&mut self, ours: &RegionTable) -> bool {
        let local = self.plan.spans(self.op, Party::Local);
        let held: Option<BTreeSet<RegionKey>> =
            local.map(|span| ours.holding(span).map(|region| region.key)).collect();
        let Some(keys) = held else { return false };
        self.regions = keys.into_iter().collect();
        true
    }

    /// The peer's side of its segments.
    fn remote_spans(&self) -> impl Iterator<Item = Span> {
        self.plan.spans(self.op, Party::Remote)
    }

    /// Chunks that are done as far as this side can see: where the peer lands them, it has to say so.
    pub fn done_count(&self) -> u32 {
        if self.mover.responder_counts() { self.landed } else { self.done.len() }
    }

    /// The first chunks that are not done, as far as we can see.
    pub fn missing(&self) -> Runs {
        let told = self.their_missing.as_ref().filter(|_| self.mover.responder_counts());
        told.cloned().unwrap_or_else(|| Runs::new(self.done.missing(self.chunks())))
    }

    /// The peer has told how many chunks are in place there. Whether that is news.
    pub fn note_landed(&mut self, done: u32) -> bool {
        let done = done.min(self.chunks());
        let news = done > self.landed && self.mover.responder_counts();
        self.landed = self.landed.max(done);
        news
    }

    /// Segments that the peer has been asked for and that may be waiting there, as far as we can see: it serves chunks
    /// in their order, but for a few.
    pub fn segments_asked(&self) -> usize {
        let asks = matches!(self.mover, Mover::Pulled | Mover::Answered);
        let waits = matches!(self.phase, OutgoingPhase::Moving | OutgoingPhase::Committing);
        match asks && waits {
            true => {
                let asked = self.plan.segments_before(self.next_chunk as usize);
                asked - self.plan.segments_before(self.done_count().min(self.next_chunk) as usize)
            }
            false => 0,
        }
    }

    /// Whether the peer should know of it, so that it can be asked.
    pub fn is_told_of(&self) -> bool {
        match self.phase {
            OutgoingPhase::Moving => match self.mover {
                Mover::Pulled | Mover::Answered => self.next_chunk > 0,
                Mover::Gathered => !self.done.is_empty(),
                Mover::Native | Mover::Framed => false,
            },
            OutgoingPhase::Committing | OutgoingPhase::Aborting => true,
            OutgoingPhase::Settling | OutgoingPhase::Draining | OutgoingPhase::Over => false,
        }
    }

    /// What its COMMIT says, after so many events.
    pub fn commit(&self, events: u64) -> Commit<'_> {
        let counts = self.mover.responder_counts();
        Commit {
            id: self.id,
            op: self.op,
            chunks: if counts { self.chunks() } else { 0 },
            bytes: if counts { self.plan.bytes() } else { 0 },
            events,
            sync_message: self.sync_message.as_deref(),
        }
    }

    /// The frames that its ABORT speaks of: only those that went out, one whose post failed never arrives.
    pub fn frames_issued(&self) -> u32 {
        if self.mover == Mover::Framed { self.done.len() } else { 0 }
    }

    /// Whether another chunk waits to be issued.
    pub fn has_chunk_to_issue(&self) -> bool {
        self.phase == OutgoingPhase::Moving && self.next_chunk < self.chunks()
    }

    /// Whether COMMIT is due: everything it vouches for is done or on an accounted way.
    pub fn commit_is_due(&self) -> bool {
        let moved = match self.mover {
            Mover::Native if planted::is(Planted::CommitBeforeFlush) => self.next_chunk == self.chunks(),
            Mover::Native | Mover::Answered | Mover::Gathered => self.done.len() == self.chunks(),
            Mover::Framed | Mover::Pulled => self.next_chunk == self.chunks(),
        };
        self.phase == OutgoingPhase::Moving && moved
    }

    /// Whether there is anything to do for it now, if there is room: most of those that wait, wait for the peer.
    pub fn can_go_on(&self) -> bool {
        match self.phase {
            OutgoingPhase::Settling | OutgoingPhase::Draining => self.in_flight == 0,
            OutgoingPhase::Aborting => self.abort_is_settled(),
            _ => self.has_chunk_to_issue() || self.commit_is_due(),
        }
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
    /// With a `reason` it fails all the same: the peer is done with it, but what it brought cannot be trusted.
    pub fn acknowledge(&mut self, reason: Option<TransferError>) {
        if self.acknowledged {
            return;
        }
        if !self.committed {
            return self.break_off(TransferError::Remote("it acknowledged what was not committed".into()));
        }
        self.failure = reason.map(|reason| self.failure.take().unwrap_or(reason));
        self.acknowledged = true;
        self.apply(OutgoingEvent::Acked);
    }

    /// Whether every answer that ABORTED owes us has been seen.
    pub fn abort_is_settled(&self) -> bool {
        self.phase == OutgoingPhase::Aborting
            && (self.in_flight == 0 || planted::is(Planted::EndBeforeDrain))
            && (self.answers_owed.is_some_and(|owed| self.answers >= owed)
                || planted::is(Planted::AbortUnanswered))
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
