//! Transfers of ours: submit, issue chunks, commit, and the ways they end.

use std::time::Instant;

use crate::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferId, TransferOp};
use crate::planted::{self, Planted};
use crate::proto::plan::Plan;
use crate::proto::transfer::{
    ChunkSet, Mover, Outgoing, OutgoingEvent, OutgoingPhase, Progress, TransferError,
};
use crate::proto::wire::DataHeader;

use super::{
    Action, CommandError, Endpoint, Flight, FlightKind, PLANS_KEPT, Placement, SEGMENTS_ASKED_MAX,
    SEGMENTS_KEPT, SMALL_BYTES, TRANSFERS_PER_PEER_MAX, check_message,
};

/// A planned transfer, ready to go.
#[derive(Debug)]
pub struct Submission {
    /// The loaded peer's name.
    pub peer: String,
    /// Direction.
    pub op: TransferOp,
    /// The lane that it takes: one of [`Endpoint::routes`].
    pub lane: usize,
    /// Chunks within that lane's bounds, or within those of its slots where it is gathered.
    pub plan: Plan,
    /// The kinds of memory, ours and the peer's, where it is to be gathered.
    pub gathered: Option<[MemoryKind; 2]>,
    /// Our regions that the plan touches.
    pub regions: Vec<RegionKey>,
    /// For the peer's host, after the data.
    pub sync_message: Option<Vec<u8>>,
}

impl Endpoint {
    /// Starts a transfer. [`Action::Ended`] tells its end, exactly once.
    pub fn submit(&mut self, submission: Submission, now: Instant) -> Result<TransferId, CommandError> {
        let Submission { peer: name, op, lane, plan, gathered, regions, sync_message } = submission;
        check_message(&name, sync_message.as_deref().unwrap_or_default())?;
        let (key, peer) = self.loaded_peer(&name)?;
        // The peer may have come back since its lanes were looked at.
        let spec = self.lanes.get(lane).filter(|_| peer.lanes.agreed().contains(&lane));
        let mover = match gathered {
            None => spec.and_then(|spec| spec.mover(op)),
            Some(kinds) => {
                spec.and_then(|spec| self.gathering(key, peer, spec, op, kinds)).map(|_| Mover::Gathered)
            }
        };
        let Some(mover) = mover else {
            let reasons = peer.lanes.reasons(&self.lanes);
            return Err(CommandError::LaneGone { name, reasons });
        };
        let count = peer.outgoing.len();
        if count >= TRANSFERS_PER_PEER_MAX {
            return Err(CommandError::TooMany { name, what: "unfinished transfers", count });
        }
        let number = peer.submitted + 1;
        if number > TransferId::NUMBER_MAX {
            return Err(CommandError::TooMany { name, what: "transfers behind it", count });
        }
        let number = if planted::is(Planted::TransferIdWraps) { number % 8 } else { number };
        let id = TransferId::new(key, number);
        // Deregistered since it was planned. A fabric would refuse to send it; what gathers it would copy what is there now.
        let is_gone = gathered.is_some() && regions.iter().any(|key| self.regions.by_key(*key).is_none());
        let transfer = Outgoing {
            id,
            op,
            lane,
            mover,
            gathered,
            plan,
            regions,
            their_regions: None,
            was_revoked: false,
            sync_message,
            phase: OutgoingPhase::Moving,
            committed: false,
            acknowledged: false,
            failure: None,
            progress: Progress::new(now),
            awaits_state: false,
            next_chunk: 0,
            in_flight: 0,
            done: ChunkSet::default(),
            landed: 0,
            their_missing: None,
            answers: 0,
            answers_owed: None,
        };
        self.owners.insert(id, key);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.submitted = number;
            peer.outgoing.insert(id, transfer);
        }
        if is_gone {
            self.break_off(id, TransferError::Deregistered);
        }
        Ok(id)
    }

    /// A plan to be rebuilt: memory that has been used before, where there is some.
    pub fn spare_plan(&mut self) -> Plan {
        self.spare_plans.pop().unwrap_or_default()
    }

    fn keep_plan(&mut self, plan: Plan) {
        if self.spare_plans.len() < PLANS_KEPT && plan.capacity() <= SEGMENTS_KEPT {
            self.spare_plans.push(plan);
        }
    }

    /// Cancels a transfer: nothing more is issued; [`Action::Ended`] comes once no byte can land any more.
    /// Unknown and ended ids are ignored.
    pub fn cancel(&mut self, id: TransferId) {
        self.break_off(id, TransferError::Cancelled);
    }

    /// Issues what is due and there is room for.
    pub(super) fn pump(&mut self, key: PeerKey, now: Instant) {
        self.pump_requests(key);
        let Some(peer) = self.peers.get(&key) else { return };
        let able = peer.outgoing.values().filter(|transfer| transfer.can_go_on());
        let ids: Vec<_> = able.map(|transfer| transfer.id).collect();
        let mut asked = match ids.is_empty() {
            true => 0,
            false => peer.outgoing.values().map(Outgoing::segments_asked).sum(),
        };
        self.issue_in_turns(key, &ids, &mut asked, now);
        for id in ids {
            self.settle(key, id, now);
        }
        self.release_regions(key);
    }

    /// Issues chunks of these transfers as long as there is room: in the order of their age, but for small ones, which have
    /// every other turn. Whose turn is next is remembered: where room comes chunk by chunk, neither shuts the other out.
    fn issue_in_turns(&mut self, key: PeerKey, ids: &[TransferId], asked: &mut usize, now: Instant) {
        let Some(peer) = self.peers.get(&key) else { return };
        let is_small = |id: &TransferId| {
            peer.outgoing.get(id).is_some_and(|transfer| transfer.plan.bytes() <= SMALL_BYTES)
        };
        let mut issued_small = peer.issued_small;
        let (small, large): (Vec<_>, Vec<_>) = ids.iter().copied().partition(is_small);
        let mut lines = [(true, small.into_iter().peekable()), (false, large.into_iter().peekable())];
        if issued_small {
            lines.reverse();
        }
        while lines.iter_mut().any(|(_, line)| line.peek().is_some()) {
            for (is_small, line) in &mut lines {
                while let Some(id) = line.peek() {
                    if self.issue_chunk(key, *id, asked, now) {
                        issued_small = *is_small;
                        break;
                    }
                    line.next();
                }
            }
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.issued_small = issued_small;
        }
    }

    /// Issues the next chunk of a transfer; false when there is none or no room. `asked` segments wait at the peer.
    fn issue_chunk(&mut self, key: PeerKey, id: TransferId, asked: &mut usize, now: Instant) -> bool {
        match self.peers.get(&key).and_then(|peer| peer.outgoing.get(&id)).map(|transfer| transfer.mover) {
            Some(Mover::Gathered) => self.gather_chunk(key, id, now),
            Some(Mover::Pulled | Mover::Answered) => self.request_chunk(key, id, asked, now),
            Some(Mover::Native | Mover::Framed) => self.post_chunk(key, id, now),
            None => false,
        }
    }

    /// Has the peer move the next chunk.
    fn request_chunk(&mut self, key: PeerKey, id: TransferId, asked: &mut usize, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.output_has_room()) else { return false };
        let transfer = peer.outgoing.get_mut(&id).filter(|transfer| transfer.has_chunk_to_issue());
        let Some(transfer) = transfer else { return false };
        let chunk = transfer.next_chunk;
        let Some(segments) = transfer.plan.chunk(chunk as usize) else { return false };
        if *asked > 0 && *asked + segments.len() > SEGMENTS_ASKED_MAX {
            return false;
        }
        *asked += segments.len();
        transfer.progress.note(now);
        transfer.next_chunk += chunks_at_once(chunk);
        peer.say_request(id, chunk);
        true
    }

    /// Posts the next chunk.
    fn post_chunk(&mut self, key: PeerKey, id: TransferId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let frame = (peer.tag(), peer.events_heard());
        let transfer = peer.outgoing.get_mut(&id).filter(|transfer| transfer.has_chunk_to_issue());
        let Some(transfer) = transfer else { return false };
        let (chunk, op, lane) = (transfer.next_chunk, transfer.op, transfer.lane);
        let Some(segments) = transfer.plan.chunk(chunk as usize) else { return false };
        if !peer.lanes.has_room(&self.lanes, lane) {
            return false;
        }
        let segments = segments.to_vec();
        transfer.progress.note(now);
        transfer.next_chunk += chunks_at_once(chunk);
        transfer.in_flight += 1;
        peer.lanes.note_posted(lane);
        let header = match transfer.mover {
            Mover::Framed => write_header(frame, id, chunk, &segments),
            _ => Vec::new(),
        };
        let bytes = segments.iter().map(|segment| segment.len).sum();
        let kind = FlightKind::OutgoingPost;
        let flight = Flight { peer: key, lane, id, chunk, bytes, kind, regions: Vec::new() };
        let token = OpToken(self.take_off(flight));
        self.actions.push_back(Action::Post { peer: key, lane, token, op, segments, header });
        true
    }

    /// Takes the steps that need no room: commit, abort, end.
    fn settle(&mut self, key: PeerKey, id: TransferId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(transfer) = peer.outgoing.get_mut(&id) else { return };
        if transfer.commit_is_due() {
            transfer.apply(OutgoingEvent::AllMoved);
            transfer.committed = true;
            transfer.progress.note(now);
            self.actions.push_back(Action::Committed { id });
            return peer.say_commit(id);
        }
        match transfer.phase {
            OutgoingPhase::Settling if transfer.in_flight == 0 => {
                transfer.apply(OutgoingEvent::Quiet);
                self.end(key, id, now);
            }
            OutgoingPhase::Draining if transfer.in_flight == 0 && planted::is(Planted::AbortUnsaid) => {
                self.end(key, id, now);
            }
            OutgoingPhase::Draining if transfer.in_flight == 0 || planted::is(Planted::EndBeforeDrain) => {
                transfer.apply(OutgoingEvent::Quiet);
                transfer.progress.note(now);
                peer.say_abort(id);
            }
            OutgoingPhase::Aborting if transfer.abort_is_settled() => {
                transfer.apply(OutgoingEvent::Aborted);
                self.end(key, id, now);
            }
            _ => {}
        }
    }

    fn end(&mut self, key: PeerKey, id: TransferId, now: Instant) {
        self.owners.remove(&id);
        let transfer = self.peers.get_mut(&key).and_then(|peer| {
            peer.last_end = Some(now);
            peer.outgoing.remove(&id)
        });
        if transfer.as_ref().is_some_and(|transfer| {
            transfer.op == TransferOp::Read && transfer.mover == Mover::Native && transfer.failure.is_none()
        }) {
            self.flush_gpus(key);
        }
        let failure = transfer.and_then(|transfer| {
            self.keep_plan(transfer.plan);
            transfer.failure
        });
        self.actions.push_back(Action::Ended { id, outcome: failure.map_or(Ok(()), Err) });
    }

    pub(super) fn break_off(&mut self, id: TransferId, reason: TransferError) {
        let Some(key) = self.owners.get(&id).copied() else { return };
        let transfer = self.peers.get_mut(&key).and_then(|peer| peer.outgoing.get_mut(&id));
        if let Some(transfer) = transfer {
            transfer.break_off(reason);
        }
    }

    pub(super) fn break_off_at(&mut self, id: TransferId, reason: TransferError, now: Instant) {
        let Some(key) = self.owners.get(&id).copied() else { return };
        if let Some(transfer) = self.peers.get_mut(&key).and_then(|peer| peer.outgoing.get_mut(&id)) {
            transfer.progress.note(now);
        }
        self.break_off(id, reason);
        self.settle(key, id, now);
    }

    /// A chunk of ours has been moved: a batch completed, or an answer landed.
    pub(super) fn outgoing_flight_done(
        &mut self,
        flight: &Flight,
        outcome: Result<(), String>,
        now: Instant,
    ) {
        let Some(transfer) = self.outgoing_mut(flight.peer, flight.id) else { return };
        transfer.in_flight = transfer.in_flight.saturating_sub(1);
        transfer.progress.note(now);
        match outcome {
            Ok(()) => _ = transfer.done.insert(flight.chunk),
            Err(text) => transfer.break_off(TransferError::Local(text)),
        }
    }

    /// The header of an answer to a read of ours has come.
    pub(super) fn place_answer(&mut self, key: PeerKey, header: &DataHeader, payload: u64) -> Placement {
        let (id, chunk) = (header.id, header.chunk);
        let Some(transfer) = self.outgoing_mut(key, id) else { return Placement::Discard };
        transfer.answers = transfer.answers.saturating_add(1);
        if transfer.phase != OutgoingPhase::Moving {
            return Placement::Discard;
        }
        let segments = transfer.plan.chunk(chunk as usize).filter(|_| chunk < transfer.next_chunk);
        let Some(segments) = segments.filter(|_| !transfer.done.contains(chunk)) else {
            transfer.break_off(TransferError::Remote(format!("it sent chunk {chunk}, which was not due")));
            return Placement::Discard;
        };
        let spans: Vec<_> = segments.iter().map(|s| Span { addr: s.dst, len: s.len }).collect();
        let bytes: u64 = spans.iter().map(|span| span.len).sum();
        if bytes != payload {
            let text = format!("chunk {chunk} came with {payload} bytes instead of {bytes}");
            transfer.break_off(TransferError::Remote(text));
            return Placement::Discard;
        }
        transfer.in_flight += 1;
        let kind = FlightKind::AnswerLanding;
        let flight = Flight { peer: key, lane: transfer.lane, id, chunk, bytes, kind, regions: Vec::new() };
        Placement::Scatter { ticket: self.take_off(flight), spans }
    }

    pub(super) fn handle_ack(&mut self, key: PeerKey, id: TransferId, events: u64, now: Instant) {
        if self.is_behind(key, events, now) {
            return; // memory that it speaks of may have been revoked before
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(transfer) = peer.outgoing.get_mut(&id) else { return };
        transfer.progress.note(now);
        // An owner waits for no reader before it uses a revoked region for something else.
        let revoked = transfer.op == TransferOp::Read && transfer.was_revoked;
        transfer.acknowledge(
            revoked.then(|| TransferError::Remote("it deregistered memory while we read it".into())),
        );
    }

    pub(super) fn handle_progress(&mut self, key: PeerKey, id: TransferId, done: u32, now: Instant) {
        if let Some(transfer) = self.outgoing_mut(key, id)
            && transfer.note_landed(done)
        {
            transfer.progress.note(now);
        }
    }

    pub(super) fn handle_fail(&mut self, key: PeerKey, id: TransferId, text: &str) {
        if let Some(transfer) = self.outgoing_mut(key, id) {
            transfer.break_off(TransferError::Remote(text.into()));
        }
    }

    pub(super) fn handle_aborted(&mut self, key: PeerKey, id: TransferId, sent: u32, now: Instant) {
        let transfer = self.outgoing_mut(key, id);
        if let Some(transfer) = transfer.filter(|transfer| transfer.phase == OutgoingPhase::Aborting) {
            // The same word again is no progress: answers that never come must not be waited for for ever.
            if transfer.answers_owed.replace(sent) != Some(sent) {
                transfer.progress.note(now);
            }
        }
    }

    pub(super) fn outgoing_mut(&mut self, key: PeerKey, id: TransferId) -> Option<&mut Outgoing> {
        self.peers.get_mut(&key)?.outgoing.get_mut(&id)
    }
}

/// How many chunks are issued as one.
pub(super) fn chunks_at_once(chunk: u32) -> u32 {
    if chunk == 0 && planted::is(Planted::ChunkSkipped) { 2 } else { 1 }
}

fn write_header((link, heard): (u64, u64), id: TransferId, chunk: u32, segments: &[Segment]) -> Vec<u8> {
    let spans = segments.iter().map(|s| Span { addr: s.dst, len: s.len }).collect();
    DataHeader { link, id, answer: false, heard, chunk, spans }.encode()
}
