//! All that an endpoint knows of one peer, for the life of one control stream.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::desc::{MemoryKind, Region, RegionKey, SessionId, TransferId};
use crate::proto::events::{EventsIn, EventsOut};
use crate::proto::liveness::Liveness;
use crate::proto::regions::RegionTable;
use crate::proto::section::Section;
use crate::proto::session::SessionPhase;
use crate::proto::transfer::{End, EndedIds, Incoming, Mover, Outgoing, Runs};
use crate::proto::wire::{Event, Frame, Standing, State};

use super::events::Beat;
use super::lanes::{LaneSpec, PeerLanes, Unkeyed};
use super::requests::Requests;
use super::{OUTPUT_KEPT_BYTES, OUTPUT_SOFT_LIMIT_BYTES, TRANSFERS_PER_PEER_MAX};

/// All that an endpoint knows of one peer, for the life of one control stream.
#[derive(Debug)]
pub struct Peer {
    pub(super) name: String,
    pub(super) phase: SessionPhase,
    pub(super) liveness: Liveness,
    pub(super) link_id: [u8; 16],
    pub(super) expected: Option<[u8; 16]>,
    pub(super) section: Option<Section>,
    /// It has shown that it has our key.
    pub(super) authenticated: bool,
    pub(super) regions: Arc<RegionTable>,
    /// Those of its regions that some lane does not reach.
    pub(super) unkeyed: Arc<Unkeyed>,
    pub(super) lanes: PeerLanes,
    pub(super) loaded_by_us: bool,
    pub(super) loaded_by_them: bool,
    /// When a transfer of ours to it last ended.
    pub(super) last_end: Option<Instant>,
    /// When a batch last went over for it, or a chunk landed, that it had asked for.
    pub(super) last_served: Option<Instant>,
    /// Since when nobody has needed the stream.
    pub(super) idle_since: Option<Instant>,
    pub(super) events_out: EventsOut,
    pub(super) events_in: EventsIn,
    pub(super) beat: Beat,
    pub(super) outgoing: BTreeMap<TransferId, Outgoing>,
    pub(super) incoming: BTreeMap<TransferId, Incoming>,
    /// The peer's transfers that are over.
    pub(super) ended: EndedIds,
    /// Transfers of ours to it, so far.
    pub(super) submitted: u64,
    /// The last chunk of ours was one of a small transfer.
    pub(super) issued_small: bool,
    /// Chunks the peer has asked for and that wait for room on the lane.
    pub(super) requests: Requests,
    /// Regions of ours that the peer was told of by an event, and the number of that.
    pub(super) told_of: HashMap<RegionKey, u64>,
    /// Regions of ours that are revoked and that the peer has yet to let go of.
    pub(super) revoking: BTreeSet<RegionKey>,
    /// The kinds of memory of which it has been lent staging slots.
    pub(super) lent: BTreeSet<MemoryKind>,
    /// Regions that the peer has revoked and that batches of ours may still touch.
    pub(super) releasing: Vec<Releasing>,
    output: Vec<u8>,
}

/// A region of the peer's that we are letting go of.
#[derive(Debug)]
pub(super) struct Releasing {
    pub key: RegionKey,
    /// None where we never knew it.
    pub region: Option<Region>,
    /// Transfers of ours that used it.
    pub users: Vec<TransferId>,
}

impl Peer {
    pub(super) fn new(name: String, phase: SessionPhase, link_id: [u8; 16], now: Instant) -> Self {
        Self {
            name,
            phase,
            liveness: Liveness::new(now),
            link_id,
            expected: None,
            section: None,
            authenticated: false,
            regions: Arc::default(),
            unkeyed: Arc::default(),
            lanes: PeerLanes::default(),
            loaded_by_us: false,
            loaded_by_them: false,
            last_end: None,
            last_served: None,
            idle_since: None,
            events_out: EventsOut::default(),
            events_in: EventsIn::default(),
            beat: Beat::new(now),
            outgoing: BTreeMap::new(),
            incoming: BTreeMap::new(),
            ended: EndedIds::new(TRANSFERS_PER_PEER_MAX),
            submitted: 0,
            issued_small: false,
            requests: Requests::default(),
            told_of: HashMap::new(),
            revoking: BTreeSet::new(),
            lent: BTreeSet::new(),
            releasing: Vec::new(),
            output: Vec::new(),
        }
    }

    /// The session that it told us of, once it has.
    pub fn session(&self) -> Option<SessionId> {
        self.section.as_ref().map(|section| section.session)
    }

    /// Its agent's name; empty before the handshake on an accepted stream.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its stream stands.
    pub fn phase(&self) -> SessionPhase {
        self.phase
    }

    /// What it says of itself, once known.
    pub fn section(&self) -> Option<&Section> {
        self.section.as_ref()
    }

    /// How many of its events have been taken.
    pub fn events_heard(&self) -> u64 {
        self.events_in.heard()
    }

    /// Its regions, as it has announced them.
    pub fn regions(&self) -> Arc<RegionTable> {
        Arc::clone(&self.regions)
    }

    /// The lanes to it.
    pub fn lanes(&self) -> &PeerLanes {
        &self.lanes
    }

    /// Whether our host has it loaded.
    pub fn is_loaded(&self) -> bool {
        self.loaded_by_us
    }

    /// Whether it has come as far as to agree on lanes.
    pub fn has_been_up(&self) -> bool {
        self.lanes.are_known()
    }

    /// Whether either side has the other loaded, or anything is unfinished: a region that it may still write to needs its
    /// word, too.
    pub(super) fn is_needed(&self) -> bool {
        self.loaded_by_us || self.loaded_by_them || self.is_unfinished()
    }

    /// How long nothing has been heard of it.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.liveness.heard())
    }

    /// Whether anything of either side is unfinished, or a region of ours is being revoked that it may still write to.
    pub fn is_unfinished(&self) -> bool {
        !(self.outgoing.is_empty() && self.incoming.is_empty() && self.revoking.is_empty())
    }

    /// Whether it has yet to let go of memory of ours that is revoked, and that it could write to by itself.
    pub fn may_still_write(&self) -> bool {
        !self.revoking.is_empty()
    }

    /// Whether transfers of ours to it are unfinished.
    pub fn has_transfers(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the peer has to let go of memory of this kind before it is ours alone: it may be writing there by itself, or
    /// have it mapped. It is up, or may be before we know.
    pub(super) fn holds(&self, kind: MemoryKind, lanes: &[LaneSpec]) -> bool {
        let reaches =
            |lane: &LaneSpec| (lane.native_write || lane.maps_regions) && lane.kinds.contains(&kind);
        match self.phase {
            SessionPhase::Announced => lanes.iter().any(reaches),
            SessionPhase::Up => self.lanes.agreed().iter().any(|lane| reaches(&lanes[*lane])),
            _ => false,
        }
    }

    /// Whether the peer may be moving bytes by itself, on an agreed lane or, before we know which those are, on any that we
    /// have announced; then also whether it pulls what we write to it.
    pub(super) fn moves_by_itself(&self, lanes: &[LaneSpec]) -> Option<bool> {
        let relied_on = lanes.iter().enumerate().filter(|(index, _)| self.lanes.may_be_agreed(lanes, *index));
        let native = relied_on.filter(|(_, lane)| lane.native_read || lane.native_write);
        native.map(|(_, lane)| !lane.native_write).reduce(|one, other| one | other)
    }

    /// Whether the peer may be pulling what we write to it.
    pub fn may_still_pull(&self, lanes: &[LaneSpec]) -> bool {
        !self.outgoing.is_empty() && self.moves_by_itself(lanes) == Some(true)
    }

    /// Whether a batch of this transfer of ours is on its way.
    pub(super) fn is_moving(&self, id: TransferId) -> bool {
        self.outgoing.get(&id).is_some_and(|transfer| transfer.in_flight > 0)
    }

    /// Who holds the staging slots that are lent over this stream, by either side: a stream that follows it begins anew.
    pub(super) fn holder(&self) -> SessionId {
        SessionId(self.link_id)
    }

    /// The tag that frames of this stream carry.
    pub(super) fn tag(&self) -> u64 {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.link_id[..8]);
        u64::from_le_bytes(tag)
    }

    /// Whether a frame belongs to this stream.
    pub(super) fn accepts(&self, link: u64, frame: &Frame<'_>) -> bool {
        link == self.tag() || matches!(frame, Frame::Hello(_) | Frame::Refuse { .. })
    }

    /// Queues a frame for the stream.
    pub(super) fn say(&mut self, frame: &Frame<'_>) {
        if self.phase != SessionPhase::Over {
            frame.encode(self.tag(), &mut self.output);
        }
    }

    /// Queues an event for the stream, and keeps it until the peer has confirmed it.
    pub(super) fn tell(&mut self, event: Event<'_>) {
        if self.phase == SessionPhase::Over {
            return;
        }
        let (start, number) = (self.output.len(), self.events_out.said() + 1);
        Frame::Event { number, event }.encode(self.tag(), &mut self.output);
        self.events_out.say(&self.output[start..]);
    }

    /// Says those events again that the peer has not confirmed, as far as the stream has room.
    pub(super) fn tell_again(&mut self) {
        if self.phase == SessionPhase::Over {
            return;
        }
        for frame in self.events_out.again() {
            if self.output.len() >= OUTPUT_SOFT_LIMIT_BYTES {
                return;
            }
            self.output.extend_from_slice(frame);
        }
    }

    /// Says, for the first time or again, how a transfer of the peer's has ended here.
    pub(super) fn say_end(&mut self, id: TransferId, end: End) {
        match end {
            End::Acknowledged => self.say(&Frame::Ack { id, events: self.events_out.said() }),
            End::Aborted { sent } => self.say(&Frame::Aborted { id, sent }),
            // Whichever it was, nothing of it moves any more.
            End::Forgotten => self.say(&Frame::State(State {
                id,
                standing: Standing::Forgotten,
                committed: false,
                done: 0,
                unheard: Runs::default(),
                missing: Runs::default(),
            })),
        }
    }

    /// Asks for a chunk of a transfer of ours that the peer pulls or sends.
    pub(super) fn say_request(&mut self, id: TransferId, chunk: u32) {
        let (tag, heard) = (self.tag(), self.events_heard());
        let transfer = self.outgoing.get(&id).filter(|_| self.phase != SessionPhase::Over);
        let Some(transfer) = transfer else { return };
        let Some(segments) = transfer.plan.chunk(chunk as usize).map(Cow::Borrowed) else { return };
        let frame = match transfer.mover {
            Mover::Pulled => Frame::Pull { id, chunk, heard, segments },
            Mover::Answered => Frame::Send { id, chunk, heard, segments },
            Mover::Native | Mover::Framed | Mover::Gathered => return, // it asks for nothing
        };
        frame.encode(tag, &mut self.output);
    }

    /// Says COMMIT of a transfer of ours.
    pub(super) fn say_commit(&mut self, id: TransferId) {
        let tag = self.tag();
        if let Some(transfer) = self.outgoing.get(&id).filter(|_| self.phase != SessionPhase::Over) {
            Frame::Commit(transfer.commit(self.events_out.said())).encode(tag, &mut self.output);
        }
    }

    /// Says ABORT of a transfer of ours.
    pub(super) fn say_abort(&mut self, id: TransferId) {
        if let Some(issued) = self.outgoing.get(&id).map(Outgoing::frames_issued) {
            self.say(&Frame::Abort { id, issued });
        }
    }

    /// Takes back what has been said and not been taken for the stream yet.
    pub(super) fn unsay(&mut self) {
        self.output.clear();
    }

    pub(super) fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Bytes that are kept for the peer: said and not taken for the stream, or not confirmed.
    pub(super) fn kept_bytes(&self) -> usize {
        self.output.len() + self.events_out.kept_bytes()
    }

    pub(super) fn take_output(&mut self, now: Instant) -> Vec<u8> {
        self.liveness.speak(now);
        std::mem::take(&mut self.output)
    }

    /// Takes back the memory of what [`Peer::take_output`] gave.
    pub(super) fn reuse_output(&mut self, mut bytes: Vec<u8>) {
        if self.output.capacity() == 0 && bytes.capacity() <= OUTPUT_KEPT_BYTES {
            bytes.clear();
            self.output = bytes;
        }
    }

    /// Whether another chunk request may be queued on the stream.
    pub(super) fn output_has_room(&self) -> bool {
        self.output.len() < OUTPUT_SOFT_LIMIT_BYTES
    }

    pub(super) fn wants_pump(&self) -> bool {
        self.phase == SessionPhase::Up
            && !(self.outgoing.is_empty() && self.requests.is_empty() && self.releasing.is_empty())
    }
}
