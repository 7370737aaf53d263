//! The two ends of a transfer: [`Outgoing`] at the agent that submitted it, [`Incoming`] at its peer.
//!
//! Both are small state machines with one transition table each ([`OutgoingPhase::on`],
//! [`IncomingPhase::on`]). They count chunks and decide what is due; they send nothing and move nothing.
//!
//! ```text
//!  outgoing   Moving --all moved--> Committing --acked--> Settling --quiet--> Over
//!                |                      |
//!                +------- broken -------+--> Draining --quiet--> Aborting --aborted--> Over
//!
//!  incoming   Receiving --whole and committed--> Over (ACK)
//!                |
//!                +-- fault --> Failed (FAIL) --abort--> Closing --quiet--> Over (ABORTED)
//!                +-------------- abort ---------------^
//! ```
//!
//! An ACK that crosses a break-off still counts: everything is in place, so the transfer has succeeded. If
//! ABORT was out by then, its ABORTED is awaited all the same.
//!
//! Every transfer ends with ACK or ABORTED, or with its link.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use thiserror::Error;

use crate::desc::{RegionKey, Span, TransferId, TransferOp};

use super::plan::Plan;
use super::regions::RegionTable;

/// Who moves the bytes of a transfer, and so what "issuing a chunk" means to its initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// We post one-sided operations; their completion is arrival.
    Native,
    /// We post frames that the peer lands (a write over a framed lane).
    Framed,
    /// The peer pulls from our memory (a write over a lane that only reads).
    Pulled,
    /// The peer sends frames that we land (a read over a framed lane).
    Answered,
}

impl Mover {
    /// Who moves an operation on a lane with these abilities, or `None` where nobody can.
    pub fn choose(op: TransferOp, native_read: bool, native_write: bool, framed: bool) -> Option<Self> {
        match op {
            TransferOp::Write if native_write => Some(Self::Native),
            TransferOp::Read if native_read => Some(Self::Native),
            TransferOp::Write if framed => Some(Self::Framed),
            TransferOp::Read if framed => Some(Self::Answered),
            TransferOp::Write if native_read => Some(Self::Pulled),
            _ => None,
        }
    }

    /// Whether the responder has to land chunks before it may acknowledge.
    pub fn responder_counts(self) -> bool {
        matches!(self, Self::Framed | Self::Pulled)
    }
}

/// Why a transfer did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// The peer is gone.
    #[error("peer lost: {0}")]
    PeerLost(String),
    /// The peer refused or failed it.
    #[error("the peer failed it: {0}")]
    Remote(String),
    /// Our own side failed to move the bytes.
    #[error("moving the bytes failed: {0}")]
    Local(String),
    /// Released before its end.
    #[error("cancelled by release()")]
    Cancelled,
    /// The host invalidated the peer.
    #[error("cancelled because the peer was invalidated")]
    Invalidated,
    /// A region that it uses was deregistered.
    #[error("cancelled because memory it uses was deregistered")]
    Deregistered,
    /// The agent was shut down.
    #[error("cancelled because the agent was shut down")]
    Shutdown,
    /// Nothing moved for the stall deadline.
    #[error("no progress for {seconds} s: {landed} of {chunks} chunks done, {in_flight} in flight")]
    Stalled {
        /// Deadline that passed, in seconds.
        seconds: u64,
        /// Chunks finished.
        landed: u32,
        /// Chunks in all.
        chunks: u32,
        /// Chunks on their way.
        in_flight: u32,
    },
}

/// An event that has no place in the phase it met: a bug on one of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{event} is not possible while {phase}")]
pub struct BadTransition {
    /// Where the machine was.
    pub phase: &'static str,
    /// What came.
    pub event: &'static str,
}

macro_rules! table {
    ($phase:ident, $event:ident { $($name:ident : { $($from:ident => $to:ident),* $(,)? }),* $(,)? }) => {
        impl $phase {
            /// The transition table.
            pub fn on(self, event: $event) -> Result<Self, BadTransition> {
                match (event, self) {
                    $($(($event::$name, Self::$from) => Ok(Self::$to),)*)*
                    (event, phase) => Err(BadTransition { phase: phase.name(), event: event.name() }),
                }
            }
        }
    };
}

macro_rules! named {
    ($(#[$doc:meta])* $enum:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum { $($(#[$vdoc])* $variant),* }

        impl $enum {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),* }
            }
        }
    };
}

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
    Abort: { Receiving => Closing, Failed => Closing },
    Quiet: { Closing => Over },
});

/// A set of chunk indexes, as a bitmap that has only the words with something in them: an index is the peer's
/// word, and must not cost more than the frame that brought it.
#[derive(Debug, Default)]
pub struct ChunkSet {
    words: BTreeMap<u32, u64>,
    len: u32,
}

impl ChunkSet {
    /// Adds a chunk; false if it was there already.
    pub fn insert(&mut self, chunk: u32) -> bool {
        let (word, bit) = (self.words.entry(chunk / 64).or_default(), 1u64 << (chunk % 64));
        let new = *word & bit == 0;
        *word |= bit;
        self.len += u32::from(new);
        new
    }

    /// Whether the chunk is in the set.
    pub fn contains(&self, chunk: u32) -> bool {
        self.words.get(&(chunk / 64)).is_some_and(|word| word & (1 << (chunk % 64)) != 0)
    }

    /// How many chunks are in the set.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

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
    /// Why it broke, once it has.
    pub failure: Option<TransferError>,
    /// When anything last moved.
    pub last_progress: Instant,
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

    /// The peer's side of its segments.
    fn remote_spans(&self) -> impl Iterator<Item = Span> {
        let read = self.op == TransferOp::Read;
        self.plan.segments().iter().map(move |s| Span { addr: if read { s.src } else { s.dst }, len: s.len })
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

    /// Breaks it for this reason. The first reason stays; an ended transfer is left alone.
    pub fn break_off(&mut self, reason: TransferError) {
        if matches!(self.phase, OutgoingPhase::Over | OutgoingPhase::Settling) {
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
        self.failure = None;
        self.apply(OutgoingEvent::Acked);
    }

    /// Whether every answer that ABORTED owes us has been seen.
    pub fn abort_is_settled(&self) -> bool {
        self.phase == OutgoingPhase::Aborting
            && self.in_flight == 0
            && self.answers_owed.is_some_and(|owed| self.answers >= owed)
    }
}

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
    /// Where it stands.
    pub phase: IncomingPhase,
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
    /// Answer frames that went out.
    pub answered: u32,
    /// Frames the initiator posted before it aborted, where frames are how it writes.
    pub owed: u32,
    /// The COMMIT, once it is here.
    pub commit: Option<Committed>,
    /// Why it failed here.
    pub failure: Option<String>,
}

impl Incoming {
    /// A transfer nothing is known of but its id.
    pub fn new(id: TransferId) -> Self {
        Self {
            id,
            phase: IncomingPhase::Receiving,
            landed: ChunkSet::default(),
            seen: ChunkSet::default(),
            bytes: 0,
            in_flight: 0,
            arrived: 0,
            reported: 0,
            answered: 0,
            owed: 0,
            commit: None,
            failure: None,
        }
    }

    /// Takes note of a chunk that the peer speaks of: each is to come once.
    pub fn see(&mut self, chunk: u32) -> Result<(), String> {
        if !self.seen.insert(chunk) {
            return Err(format!("chunk {chunk} came twice"));
        }
        Ok(())
    }

    /// Whether it is committed and whole, so that ACK is due. A commit whose counts cannot be met by what
    /// has landed is a fault.
    pub fn is_whole(&self) -> Result<bool, String> {
        let Some(commit) = &self.commit else { return Ok(false) };
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
        self.phase == IncomingPhase::Closing && self.in_flight == 0 && self.arrived >= self.owed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every outcome of a table, a line each.
    fn picture<P: Copy, E: Copy>(
        phases: &[P],
        events: &[E],
        on: impl Fn(P, E) -> [&'static str; 3],
    ) -> String {
        let mut out = String::new();
        for &event in events {
            for &phase in phases {
                let [from, by, to] = on(phase, event);
                out += &format!("{from} x {by} = {to}\n");
            }
        }
        out
    }

    #[test]
    fn every_outcome_of_the_outgoing_table() {
        let seen = picture(OutgoingPhase::ALL, OutgoingEvent::ALL, |phase, event| {
            [phase.name(), event.name(), phase.on(event).map_or("-", OutgoingPhase::name)]
        });
        assert_eq!(seen, include_str!("snapshots/outgoing.txt"));
    }

    #[test]
    fn every_outcome_of_the_incoming_table() {
        let seen = picture(IncomingPhase::ALL, IncomingEvent::ALL, |phase, event| {
            [phase.name(), event.name(), phase.on(event).map_or("-", IncomingPhase::name)]
        });
        assert_eq!(seen, include_str!("snapshots/incoming.txt"));
    }

    #[test]
    fn a_bad_transition_names_both() {
        let error = OutgoingPhase::Over.on(OutgoingEvent::AllMoved).unwrap_err();
        assert_eq!(error.to_string(), "AllMoved is not possible while Over");
    }

    #[test]
    fn movers_follow_the_lane() {
        use TransferOp::{Read, Write};
        assert_eq!(Mover::choose(Write, true, true, false), Some(Mover::Native));
        assert_eq!(Mover::choose(Write, true, false, false), Some(Mover::Pulled));
        assert_eq!(Mover::choose(Read, true, false, false), Some(Mover::Native));
        assert_eq!(Mover::choose(Write, false, false, true), Some(Mover::Framed));
        assert_eq!(Mover::choose(Read, false, false, true), Some(Mover::Answered));
        assert_eq!(Mover::choose(Read, false, true, false), None);
    }

    #[test]
    fn a_far_chunk_costs_no_more_than_a_near_one() {
        let mut set = ChunkSet::default();
        assert!(set.insert(u32::MAX) && !set.insert(u32::MAX) && set.contains(u32::MAX));
        assert_eq!((set.words.len(), set.len()), (1, 1));
    }

    #[test]
    fn chunk_sets_count_each_chunk_once() {
        let mut set = ChunkSet::default();
        assert!(set.insert(70) && set.insert(0) && !set.insert(70));
        assert_eq!((set.len(), set.contains(70), set.contains(1)), (2, true, false));
    }

    #[test]
    fn a_commit_that_the_data_contradicts_is_a_fault() {
        let mut incoming = Incoming::new(TransferId(1));
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
