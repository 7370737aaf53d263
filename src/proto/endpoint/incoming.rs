//! Transfers of a peer: its frames, its chunks, their landing, and the answers.

use std::time::Instant;

use crate::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferId, TransferOp};
use crate::planted::{self, Planted};
use crate::proto::plan::MAX_SEGMENTS;
use crate::proto::regions::RegionTable;
use crate::proto::transfer::{Committed, End, Incoming, IncomingEvent, IncomingPhase, Mover};
use crate::proto::wire::{Commit, DataHeader, Frame};

use super::requests::ChunkRequest;
use super::{
    Action, Endpoint, Flight, FlightKind, MESSAGE_MAX_BYTES, Peer, Placement, TRANSFERS_PER_PEER_MAX,
};

/// Characters of a text of the peer's that are kept: enough for any text of ours.
const TEXT_MAX_CHARS: usize = 1000;
/// Chunks that a transfer may have: no plan has more segments.
const CHUNKS_MAX: u32 = MAX_SEGMENTS as u32;

impl Endpoint {
    /// A data frame's header has come over a framed lane.
    pub fn handle_arrived(&mut self, key: PeerKey, header: &[u8], payload_bytes: u64) -> Placement {
        let header = match DataHeader::decode(header) {
            Ok(header) => header,
            Err(error) => {
                self.close(key, &format!("a data frame cannot be understood: {error}"));
                return Placement::Discard;
            }
        };
        match self.peers.get(&key) {
            Some(peer) if peer.tag() == header.link => {}
            _ => return Placement::Discard,
        }
        match header.answer {
            true => self.place_answer(key, &header, payload_bytes),
            false => self.place_write(key, header, payload_bytes),
        }
    }

    pub(super) fn handle(&mut self, key: PeerKey, frame: Frame<'_>, now: Instant) {
        let known = self.peers.get(&key).is_some_and(|peer| peer.phase.is_known());
        match frame {
            Frame::Hello(hello) => self.handle_hello(key, &hello, now),
            Frame::Welcome { name, section } => self.handle_welcome(key, name, section, now),
            Frame::Refuse { reason, text } => self.handle_refuse(key, reason, shortened(text)),
            _ if !known => {} // it has overtaken the handshake, and will be said or asked for again
            Frame::Ready { lanes, again } => self.handle_ready(key, &lanes, again),
            Frame::Heartbeat { said, heard, again } => self.handle_heartbeat(key, said, heard, again, now),
            Frame::Event { number, event } => self.handle_event(key, number, event, now),
            Frame::Pull { id, chunk, heard, segments } => {
                let (segments, answer) = (segments.into_owned(), false);
                self.handle_request(key, ChunkRequest { id, chunk, heard, segments, answer, lane: 0 });
            }
            Frame::Send { id, chunk, heard, segments } => {
                let (segments, answer) = (segments.into_owned(), true);
                self.handle_request(key, ChunkRequest { id, chunk, heard, segments, answer, lane: 0 });
            }
            Frame::Commit(commit) => self.handle_commit(key, &commit, now),
            Frame::Ack { id, events } => self.handle_ack(key, id, events, now),
            Frame::Progress { id, done } => self.handle_progress(key, id, done, now),
            Frame::Ask { id } => self.handle_ask(key, id, now),
            Frame::State(state) => self.handle_state(key, state, now),
            Frame::Fail { id, text } => self.handle_fail(key, id, shortened(text)),
            Frame::Abort { id, issued } => self.handle_abort(key, id, issued),
            Frame::Aborted { id, sent } => self.handle_aborted(key, id, sent, now),
            Frame::Goodbye { text } => self.close(key, &format!("it said goodbye: {}", shortened(text))),
            Frame::Fetch | Frame::Blob { .. } => self.close(key, "a blob was asked for on an agent's stream"),
        }
    }

    /// A chunk to pull (a write of the peer's) or to send (a read).
    fn handle_request(&mut self, key: PeerKey, mut request: ChunkRequest) {
        let ChunkRequest { id, chunk, answer, .. } = request;
        let lane = self.lane_of_request(key, &request);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.ended.end(id).is_some() {
            return;
        }
        let (op, heard) = (if answer { TransferOp::Read } else { TransferOp::Write }, peer.liveness.heard());
        let Some(incoming) = incoming_entry(peer, id, op) else {
            return self.close(key, "it has too many unfinished transfers");
        };
        if incoming.phase != IncomingPhase::Receiving {
            return;
        }
        // What has no segments would wait outside the bound on segments, and a number costs as much as a set has room for.
        if let Some(fault) = impossible(chunk, request.segments.is_empty()) {
            return self.fault(key, id, fault);
        }
        if !incoming.see(chunk) {
            return;
        }
        incoming.in_flight += 1;
        incoming.progress.note(heard);
        let Some(lane) = lane else {
            self.drop_flight(key, id, 1);
            return self.fault(key, id, format!("no lane in common serves chunk {chunk}"));
        };
        (incoming.lane, request.lane) = (Some(lane), lane);
        if !peer.requests.push(request) {
            self.drop_flight(key, id, 1);
            self.fault(key, id, format!("chunk {chunk} is one too many: too much waits already"));
        }
    }

    /// The lane that the peer means: the first that serves such a request between those kinds of memory. What lies nowhere
    /// is found out when its turn comes.
    fn lane_of_request(&self, key: PeerKey, request: &ChunkRequest) -> Option<usize> {
        let peer = self.peers.get(&key)?;
        let (op, mover) = match request.answer {
            true => (TransferOp::Read, Mover::Answered),
            false => (TransferOp::Write, Mover::Pulled),
        };
        let kind = |regions: &RegionTable, addr, len| {
            regions.holding(Span { addr, len }).map_or(MemoryKind::Dram, |region| region.kind)
        };
        let first = request.segments.first().copied().unwrap_or(Segment { src: 0, dst: 0, len: 0 });
        let (ours, theirs) = if request.answer { (first.src, first.dst) } else { (first.dst, first.src) };
        let kinds = [kind(&self.regions, ours, first.len), kind(&peer.regions, theirs, first.len)];
        let mut serving = peer.lanes.carrying(&self.lanes, op, kinds);
        serving.find(|(_, _, by)| *by == mover).map(|(lane, ..)| lane)
    }

    /// Posts requested chunks while their lanes have room.
    pub(super) fn pump_requests(&mut self, key: PeerKey) {
        while let Some(peer) = self.peers.get_mut(&key) {
            let has_room = |lane| peer.lanes.has_room(&self.lanes, lane);
            let Some(request) = peer.requests.pop(has_room) else { return };
            let tag = peer.tag();
            let alive = peer.incoming.get(&request.id).map(|incoming| incoming.phase);
            if alive != Some(IncomingPhase::Receiving) {
                self.drop_flight(key, request.id, 1);
                continue;
            }
            match self.check_request(key, &request) {
                Ok(regions) => self.post_request(key, request, regions, tag),
                Err(text) => {
                    self.drop_flight(key, request.id, 1);
                    self.fault(key, request.id, text);
                }
            }
        }
    }

    fn post_request(&mut self, key: PeerKey, request: ChunkRequest, regions: Vec<RegionKey>, tag: u64) {
        let ChunkRequest { id, chunk, segments, answer, lane, .. } = request;
        let bytes = segments.iter().map(|segment| segment.len).sum();
        let (kind, op, header) = match answer {
            true => {
                let header = DataHeader { link: tag, id, answer, heard: 0, chunk, spans: Vec::new() };
                (FlightKind::AnswerPost, TransferOp::Write, header.encode())
            }
            false => (FlightKind::PullPost, TransferOp::Read, Vec::new()),
        };
        let token = OpToken(self.take_off(Flight { peer: key, lane, id, chunk, bytes, kind, regions }));
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.lanes.note_posted(lane);
        self.actions.push_back(Action::Post { peer: key, lane, token, op, segments, header });
    }

    /// The regions of ours that a request touches: the destination of a pull, the source of an answer. It has to
    /// be within our own bounds of its lane.
    fn check_request(&self, key: PeerKey, request: &ChunkRequest) -> Result<Vec<RegionKey>, String> {
        let lane = self.lanes.get(request.lane);
        let bytes = request.segments.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.len));
        let fits = lane.zip(bytes).is_some_and(|(lane, bytes)| {
            bytes <= lane.bytes_per_chunk && request.segments.len() <= lane.segments_per_chunk
        });
        if !fits {
            let ChunkRequest { chunk, segments, .. } = request;
            let bytes = bytes.map_or("countless".to_owned(), |bytes| bytes.to_string());
            return Err(format!(
                "chunk {chunk} of {} segments, {bytes} bytes, is no chunk of this lane",
                segments.len()
            ));
        }
        let wraps = |s: &&Segment| s.src.checked_add(s.len).is_none() || s.dst.checked_add(s.len).is_none();
        if let Some(Segment { src, dst, len }) = request.segments.iter().find(wraps) {
            return Err(format!(
                "{len} bytes from {src:#x} to {dst:#x} run past the end of the address space"
            ));
        }
        let spans = request.segments.iter().map(|segment| Span {
            addr: if request.answer { segment.src } else { segment.dst },
            len: segment.len,
        });
        self.check_spans(key, request.heard, spans)
    }

    fn place_write(&mut self, key: PeerKey, header: DataHeader, payload: u64) -> Placement {
        let DataHeader { id, heard, chunk, spans, .. } = header;
        let lane = self.lanes.iter().position(|spec| spec.framed);
        let Some(peer) = self.peers.get_mut(&key) else { return Placement::Discard };
        if peer.ended.end(id).is_some() {
            return Placement::Discard;
        }
        let Some(incoming) = incoming_entry(peer, id, TransferOp::Write) else {
            self.close(key, "it has too many unfinished transfers");
            return Placement::Discard;
        };
        incoming.arrived = incoming.arrived.saturating_add(1);
        incoming.lane = incoming.lane.or(lane);
        if incoming.phase != IncomingPhase::Receiving {
            self.settle_incoming(key, id);
            return Placement::Discard;
        }
        let total = spans.iter().try_fold(0u64, |sum, span| sum.checked_add(span.len));
        let fault = match impossible(chunk, spans.is_empty()) {
            Some(text) => Err(text),
            None if total != Some(payload) => {
                Err(format!("chunk {chunk} has a payload of {payload} bytes for other spans"))
            }
            None if !incoming.see(chunk) => Err(format!("chunk {chunk} came twice")),
            // Last, for it may cost a walk over all regions: not for what is thrown away whatever it says.
            None => self.check_spans(key, heard, spans.iter().copied()),
        };
        match fault {
            Ok(regions) => {
                if let Some(incoming) = self.peers.get_mut(&key).and_then(|peer| peer.incoming.get_mut(&id)) {
                    incoming.in_flight += 1;
                }
                let kind = FlightKind::WriteLanding;
                let lane = lane.unwrap_or_default(); // invariant: it has come over one
                let flight = Flight { peer: key, lane, id, chunk, bytes: payload, kind, regions };
                Placement::Scatter { ticket: self.take_off(flight), spans }
            }
            Err(text) => {
                self.fault(key, id, text);
                Placement::Discard
            }
        }
    }

    pub(super) fn incoming_flight_done(
        &mut self,
        flight: &Flight,
        outcome: Result<(), String>,
        now: Instant,
    ) {
        let (key, id) = (flight.peer, flight.id);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.last_served = Some(now);
        let Some(incoming) = peer.incoming.get_mut(&id) else { return };
        incoming.in_flight = incoming.in_flight.saturating_sub(1);
        incoming.progress.note(now);
        match outcome {
            Err(text) => return self.fault(key, id, text),
            Ok(()) if flight.kind == FlightKind::AnswerPost => _ = incoming.answered.insert(flight.chunk),
            Ok(()) => {
                incoming.landed.insert(flight.chunk);
                incoming.bytes += flight.bytes;
            }
        }
        self.settle_incoming(key, id);
    }

    fn handle_commit(&mut self, key: PeerKey, commit: &Commit<'_>, now: Instant) {
        if let Some(message) = commit.sync_message.filter(|message| message.len() > MESSAGE_MAX_BYTES) {
            return self.close_for_message(key, message);
        }
        if self.is_behind(key, commit.events, now) {
            return; // its message must not overtake those before it
        }
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(end) = peer.ended.end(commit.id) {
            if planted::is(Planted::EndSaidOnce) {
                return;
            }
            return peer.say_end(commit.id, end);
        }
        if let Some(message) = commit.sync_message.filter(|_| planted::is(Planted::SyncMessageBeforeData)) {
            self.actions.push_back(Action::Deliver { peer: peer.name.clone(), message: message.to_vec() });
        }
        let Some(incoming) = incoming_entry(peer, commit.id, commit.op) else {
            return self.close(key, "it has too many unfinished transfers");
        };
        let committed = Committed {
            chunks: commit.chunks,
            bytes: commit.bytes,
            sync_message: commit.sync_message.map(<[u8]>::to_vec),
        };
        match incoming.commit(committed) {
            Ok(()) => self.settle_incoming(key, commit.id),
            Err(text) => self.fault(key, commit.id, text),
        }
    }

    fn handle_abort(&mut self, key: PeerKey, id: TransferId, issued: u32) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(end) = peer.ended.end(id) {
            return peer.say_end(id, end);
        }
        let Some(incoming) = incoming_entry(peer, id, TransferOp::Write) else {
            return self.close(key, "it has too many unfinished transfers");
        };
        incoming.owed = incoming.owed.max(issued);
        match incoming.phase.on(IncomingEvent::Abort) {
            Ok(phase) => incoming.phase = phase,
            Err(bad) => return self.close(key, &bad.to_string()),
        }
        let dropped = peer.requests.drop_of(id);
        self.drop_flight(key, id, dropped);
    }

    /// Fails a transfer of the peer's on our side: it is told, and what still comes is discarded.
    pub(super) fn fault(&mut self, key: PeerKey, id: TransferId, text: String) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(incoming) = peer.incoming.get_mut(&id) else { return };
        let was = incoming.phase;
        incoming.phase = was.on(IncomingEvent::Fault).unwrap_or(was);
        if was == IncomingPhase::Receiving {
            incoming.failure = Some(text.clone());
            if !planted::is(Planted::FailUnsaid) {
                peer.say(&Frame::Fail { id, text: &text });
            }
        }
        self.settle_incoming(key, id);
    }

    /// So many chunks of a transfer will not be posted.
    fn drop_flight(&mut self, key: PeerKey, id: TransferId, chunks: u32) {
        let incoming = self.peers.get_mut(&key).and_then(|peer| peer.incoming.get_mut(&id));
        if let Some(incoming) = incoming {
            incoming.in_flight = incoming.in_flight.saturating_sub(chunks);
        }
        self.settle_incoming(key, id);
    }

    /// Sends ACK or ABORTED when it is due, and forgets the transfer then.
    fn settle_incoming(&mut self, key: PeerKey, id: TransferId) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(incoming) = peer.incoming.get_mut(&id) else { return };
        if incoming.is_quiet() {
            let sent = incoming.answered.len();
            return self.end_incoming(key, id, End::Aborted { sent });
        }
        match incoming.is_whole() {
            Ok(false) => {}
            Err(text) => self.fault(key, id, text),
            Ok(true) => {
                let landed_by_peer = incoming.op == TransferOp::Write && incoming.landed.is_empty();
                if landed_by_peer {
                    self.flush_gpus(key);
                }
                let Some(peer) = self.peers.get_mut(&key) else { return };
                let Some(incoming) = peer.incoming.get_mut(&id) else { return };
                let message = incoming.commit.take().and_then(|commit| commit.sync_message);
                if let Some(message) = message {
                    self.actions.push_back(Action::Deliver { peer: peer.name.clone(), message });
                }
                self.end_incoming(key, id, End::Acknowledged);
            }
        }
    }

    /// Forgets a transfer of the peer's but for its end, and says that.
    fn end_incoming(&mut self, key: PeerKey, id: TransferId, end: End) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.incoming.remove(&id);
        peer.say_end(id, end);
        if !peer.ended.insert(id, end) {
            self.close(key, "it does not number its transfers one after the other");
        }
    }
}

/// Why there can be no chunk like this, if there can be none.
pub(super) fn impossible(chunk: u32, is_empty: bool) -> Option<String> {
    match is_empty {
        true => Some(format!("chunk {chunk} is of no bytes")),
        false if chunk >= CHUNKS_MAX => {
            Some(format!("chunk {chunk} is beyond the {CHUNKS_MAX} that a transfer may have"))
        }
        false => None,
    }
}

/// A text of the peer's at a length that errors and logs can bear.
fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(TEXT_MAX_CHARS);
    end.map_or(text, |(end, _)| &text[..end])
}

/// The incoming transfer with this id, new if need be; `None` when there are too many.
pub(super) fn incoming_entry(peer: &mut Peer, id: TransferId, op: TransferOp) -> Option<&mut Incoming> {
    if peer.incoming.len() >= TRANSFERS_PER_PEER_MAX && !peer.incoming.contains_key(&id) {
        return None;
    }
    let heard = peer.liveness.heard();
    Some(peer.incoming.entry(id).or_insert_with(|| Incoming::new(id, op, heard)))
}
