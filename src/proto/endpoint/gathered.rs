//! Gathered transfers: writes of many small pieces over a lane on which each piece would cost an operation.
//!
//! ```text
//!   initiator                                                 responder
//!   pieces --copy--> own slot ==one write==> slot of the responder's --copy--> pieces
//!                                            SLOT FILLED (event)  ----------->
//!                  <----------------------------------------------------  SLOT GRANTED (event), once it is read
//! ```
//!
//! As many chunks are on their way as there are slots, each at another step, so that copies and writes overlap. The responder
//! lands the bytes itself, and so counts chunks, as over a framed lane.

use std::borrow::Cow;
use std::time::Instant;

use crate::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferId, TransferOp};
use crate::planted::{self, Planted};
use crate::proto::transfer::{IncomingPhase, OutgoingPhase, TransferError};
use crate::proto::wire::{Event, Filled};

use super::incoming::{impossible, incoming_entry};
use super::outgoing::chunks_at_once;
use super::staging::SlotPair;
use super::{Action, Endpoint, Flight, FlightKind, Peer};

impl Endpoint {
    /// Issues the next chunk of a gathered transfer; false when there is none, or no room or slot for it.
    pub(super) fn gather_chunk(&mut self, key: PeerKey, id: TransferId, now: Instant) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let holder = peer.holder();
        let Some(transfer) = peer.outgoing.get_mut(&id).filter(|transfer| transfer.has_chunk_to_issue())
        else {
            return false;
        };
        let (chunk, lane) = (transfer.next_chunk, transfer.lane);
        let (Some(kinds), Some(segments)) = (transfer.gathered, transfer.plan.chunk(chunk as usize)) else {
            return false;
        };
        if !peer.lanes.has_room(&self.lanes, lane) {
            return false;
        }
        let Some(slots) = self.staging.take(holder, kinds) else { return false };
        let own = self.staging.own_slot(slots.own);
        let theirs = self.staging.their_slot(holder, slots.theirs);
        let bytes: u64 = segments.iter().map(|segment| segment.len).sum();
        let Some(((copier, own), _)) =
            own.zip(theirs).filter(|((_, own), theirs)| bytes <= own.len.min(theirs.len))
        else {
            let text =
                format!("chunk {chunk} of {bytes} bytes is longer than the slots that it was planned for");
            transfer.break_off(TransferError::Local(text));
            self.drop_slots(key, slots, false);
            return false;
        };
        let mut end = own.addr;
        let segments = segments.iter().map(|segment| {
            let dst = end;
            end += segment.len;
            Segment { dst, ..*segment }
        });
        let segments = segments.collect();
        transfer.next_chunk += chunks_at_once(chunk);
        transfer.in_flight += 1;
        transfer.progress.note(now);
        peer.lanes.note_posted(lane);
        self.post_copy((key, id, chunk), copier, segments, FlightKind::Gather(slots), Vec::new());
        true
    }

    /// A chunk is in a slot of our own, or could not be copied there.
    pub(super) fn chunk_gathered(
        &mut self,
        flight: Flight,
        slots: SlotPair,
        outcome: Result<(), String>,
        now: Instant,
    ) {
        let Flight { peer: key, id, chunk, bytes, .. } = flight;
        let Some(peer) = self.peers.get(&key) else { return };
        let holder = peer.holder();
        let transfer = peer.outgoing.get(&id);
        let lane = transfer.map(|transfer| transfer.lane);
        let is_moving = transfer.is_some_and(|transfer| transfer.phase == OutgoingPhase::Moving);
        let own = self.staging.own_slot(slots.own);
        let places = own.zip(self.staging.their_slot(holder, slots.theirs));
        let goes_on = outcome.is_ok() && is_moving && places.is_some();
        let posts = goes_on && self.staging.note_write(holder, slots.theirs);
        let (Some(((_, own), theirs)), Some(lane), true) = (places, lane, posts) else {
            if let (Some(lane), Some(peer)) = (lane, self.peers.get_mut(&key)) {
                peer.lanes.note_completed(lane);
            }
            let outcome = match goes_on {
                true => Err("the peer has taken back the slot that it was to be written to".to_owned()),
                false => outcome,
            };
            self.drop_slots(key, slots, false);
            return self.slot_flight_over(&flight, outcome, false, now);
        };
        let segments = vec![Segment { src: own.addr, dst: theirs.addr, len: bytes }];
        let (op, header) = (TransferOp::Write, Vec::new());
        let token = OpToken(self.take_off(Flight { lane, kind: FlightKind::SlotWrite(slots), ..flight }));
        if planted::is(Planted::SlotFilledUnwritten) {
            self.say_filled(key, id, chunk, slots, bytes);
        }
        self.actions.push_back(Action::Post { peer: key, lane, token, op, segments, header });
    }

    /// What was gathered is in the peer's slot, or could not be written there.
    pub(super) fn slot_written(
        &mut self,
        flight: &Flight,
        slots: SlotPair,
        outcome: Result<(), String>,
        now: Instant,
    ) {
        let (key, id) = (flight.peer, flight.id);
        let transfer = self.outgoing_mut(key, id);
        let is_moving = transfer.is_some_and(|transfer| transfer.phase == OutgoingPhase::Moving);
        let is_filled = outcome.is_ok() && is_moving;
        match is_filled {
            true => {
                self.staging.free_own(slots.own);
                self.say_filled(key, id, flight.chunk, slots, flight.bytes);
            }
            false => self.drop_slots(key, slots, true),
        }
        self.slot_flight_over(flight, outcome, is_filled, now);
    }

    /// COMMIT of a slot of the peer's.
    fn say_filled(&mut self, key: PeerKey, id: TransferId, chunk: u32, slots: SlotPair, bytes: u64) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let (holder, heard) = (peer.holder(), peer.events_heard());
        if !self.staging.end_use(holder, slots.theirs, true, Some(bytes)) {
            return;
        }
        let segments = peer.outgoing.get(&id).and_then(|transfer| transfer.plan.chunk(chunk as usize));
        let spans = segments.unwrap_or_default().iter().map(|s| Span { addr: s.dst, len: s.len }).collect();
        peer.tell(Event::SlotFilled(Filled {
            slot: slots.theirs,
            id,
            chunk,
            heard,
            spans: Cow::Owned(spans),
        }));
    }

    /// Neither of two slots is used after all.
    fn drop_slots(&mut self, key: PeerKey, slots: SlotPair, was_posted: bool) {
        self.staging.free_own(slots.own);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if self.staging.end_use(peer.holder(), slots.theirs, was_posted, None) {
            peer.tell(Event::SlotReturned { slot: slots.theirs });
        }
    }

    fn slot_flight_over(
        &mut self,
        flight: &Flight,
        outcome: Result<(), String>,
        is_done: bool,
        now: Instant,
    ) {
        let Some(transfer) = self.outgoing_mut(flight.peer, flight.id) else { return };
        transfer.in_flight = transfer.in_flight.saturating_sub(1);
        transfer.progress.note(now);
        match outcome {
            Ok(()) if is_done => _ = transfer.done.insert(flight.chunk),
            Ok(()) => {} // it is being broken off
            Err(text) => transfer.break_off(TransferError::Local(text)),
        }
    }

    /// A slot of ours is filled with a chunk: it is copied to where it belongs.
    pub(super) fn handle_slot_filled(&mut self, key: PeerKey, filled: Filled<'_>, now: Instant) {
        let Some(holder) = self.peers.get(&key).map(Peer::holder) else { return };
        let slot = filled.slot;
        let bytes = filled.spans.iter().try_fold(0u64, |sum, span| sum.checked_add(span.len));
        let sealed = bytes.and_then(|bytes| self.staging.seal(holder, slot, bytes, now));
        let Some((copier, place)) = sealed else {
            return self.close(
                key,
                &format!("it has filled {}, which it has not been lent, or with too much", slot.lease),
            );
        };
        if planted::is(Planted::SlotReadTooEarly) {
            self.slot_read(key, slot, now);
        }
        if !self.scatter(key, filled, copier, place) {
            self.slot_read(key, slot, now);
        }
    }

    /// Begins to scatter a slot; false where there is nothing to be done with it.
    fn scatter(&mut self, key: PeerKey, filled: Filled<'_>, copier: usize, place: Span) -> bool {
        let Filled { slot, id, chunk, heard, spans } = filled;
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        if peer.ended.end(id).is_some() {
            return false;
        }
        let now = peer.liveness.heard();
        let lane = peer.lanes.agreed().iter().copied().find(|lane| self.lanes[*lane].gathers());
        let Some(incoming) = incoming_entry(peer, id, TransferOp::Write) else {
            self.close(key, "it has too many unfinished transfers");
            return false;
        };
        if incoming.phase != IncomingPhase::Receiving {
            return false;
        }
        incoming.lane = incoming.lane.or(lane);
        incoming.progress.note(now);
        let regions = match impossible(chunk, spans.is_empty()) {
            Some(text) => Err(text),
            None if !incoming.see(chunk) => Err(format!("chunk {chunk} came twice")),
            None => self.check_spans(key, heard, spans.iter().copied()),
        };
        let is_alike = |key: &RegionKey| {
            self.regions.by_key(*key).is_some_and(|region| self.staging.is_alike(slot.kind, region))
        };
        let regions = regions.and_then(|regions| match regions.iter().all(is_alike) {
            true => Ok(regions),
            false => Err(format!("chunk {chunk} came through a slot in memory of another kind or device")),
        });
        let regions = match regions {
            Ok(regions) => regions,
            Err(text) => {
                self.fault(key, id, text);
                return false;
            }
        };
        if let Some(incoming) = self.peers.get_mut(&key).and_then(|peer| peer.incoming.get_mut(&id)) {
            incoming.in_flight += 1;
        }
        if slot.kind == MemoryKind::Vram {
            self.actions.push_back(Action::Flush { peer: key });
        }
        let mut start = place.addr;
        let segments = spans.iter().map(|span| {
            let src = start;
            start += span.len;
            Segment { src, dst: span.addr, len: span.len }
        });
        self.post_copy((key, id, chunk), copier, segments.collect(), FlightKind::Scatter(slot), regions);
        true
    }

    /// Posts a copy within our process.
    fn post_copy(
        &mut self,
        (key, id, chunk): (PeerKey, TransferId, u32),
        copier: usize,
        segments: Vec<Segment>,
        kind: FlightKind,
        regions: Vec<RegionKey>,
    ) {
        let bytes = segments.iter().map(|segment| segment.len).sum();
        let flight = Flight { peer: key, lane: copier, id, chunk, bytes, kind, regions };
        let (token, op, header) = (OpToken(self.take_off(flight)), TransferOp::Read, Vec::new());
        self.actions.push_back(Action::Post { peer: key, lane: copier, token, op, segments, header });
    }
}
