//! The flow of staging slots between an endpoint and its peers: lent ahead, taken, filled, lent again, and what becomes of
//! them when a region is revoked or a stream ends.

use std::time::Instant;

use crate::desc::{MemoryKind, PeerKey, Region, RegionKey, SessionId, Span, TransferOp};
use crate::planted::{self, Planted};
use crate::proto::grant::{Action as PoolAction, SlotPhase, Tally, ToHolder, ToOwner};
use crate::proto::plan::PlanCaps;
use crate::proto::section::CAPABILITY_SLOTS;
use crate::proto::session::SessionPhase;
use crate::proto::wire::{DATA_SPANS_MAX, Event, StagingSlot};

use super::staging::{ANY, OurSlots, Place, Staging, StagingSpec};
use super::{Endpoint, Flight, FlightKind, Gathering, LaneSpec, Peer};

/// Slots that a peer is lent ahead.
const SLOTS_PER_PEER: u32 = 4;
/// Slots that are taken of a peer; more than any agent has.
const SLOTS_TAKEN_MAX: u32 = 1024;
/// Slots that are shorter than these, and than ours, are not worth their while.
const SLOT_BYTES_MIN: u64 = 64 << 10;

impl Endpoint {
    /// Gives it staging memory of a kind of which it has none.
    pub fn add_staging(&mut self, spec: StagingSpec) {
        self.staging.ours.push(OurSlots::new(spec));
        self.lend_ahead_to_all();
    }

    /// How many of our slots that peers write into stand where; all zero without staging memory.
    pub fn slots(&self, kind: MemoryKind) -> Tally {
        self.staging.of(kind).map_or(Tally::default(), |ours| ours.pool.tally())
    }

    /// Chunks of our transfers that have been gathered so far.
    pub fn gathered_chunks(&self) -> u64 {
        self.staging.chunks
    }

    /// How many slots of our own are free to gather in.
    pub fn free_slots(&self, kind: MemoryKind) -> usize {
        self.staging.of(kind).map_or(0, |ours| ours.free.len())
    }

    /// Our copier of a kind can serve a peer's transfers. Where it cannot, nothing of that peer's is gathered.
    pub fn handle_copier(&mut self, key: PeerKey, kind: MemoryKind) {
        self.staging.served.insert((key, kind));
        self.lend_ahead(key);
    }

    /// Sessions that were let go of while they held slots of ours, which wait for the proof that nothing lands there.
    pub fn holding_sessions(&self) -> impl Iterator<Item = SessionId> {
        self.staging.unproved.iter().map(|(_, session)| *session)
    }

    /// A session that was let go of writes nothing any more that it had begun before.
    pub fn handle_let_go(&mut self, session: SessionId, now: Instant) {
        let all = std::mem::take(&mut self.staging.unproved);
        let (proved, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, of)| *of == session);
        self.staging.unproved = rest;
        for (holder, _) in proved {
            self.staging.ours.iter_mut().for_each(|ours| ours.note_quiet(holder, now));
        }
        self.lend_ahead_to_all();
    }

    fn lend_ahead_to_all(&mut self) {
        let keys: Vec<_> = self.peers.keys().copied().collect();
        keys.into_iter().for_each(|key| self.lend_ahead(key));
    }

    /// The bytes that pieces for this peer have at least, on average, where they are not gathered; `None` where none
    /// are: no lane to it gathers, or one of the two has no staging memory that serves the other.
    pub fn gathers_below(&self, key: PeerKey) -> Option<u64> {
        let peer = self.peers.get(&key).filter(|peer| lends_slots(peer))?;
        let serves = |spec: &&LaneSpec| {
            let is_of = |ours: &OurSlots| spec.carries([ours.spec.kind; 2]) && self.serves(key, ours);
            spec.gathers() && self.staging.ours.iter().any(is_of)
        };
        let agreed = peer.lanes.agreed().iter().map(|lane| &self.lanes[*lane]);
        agreed.filter(serves).map(|spec| spec.gathers_below).max()
    }

    /// Whether slots of ours are for this peer, too.
    fn serves(&self, key: PeerKey, ours: &OurSlots) -> bool {
        ours.region.is_none() && self.staging.served.contains(&(key, ours.spec.kind))
    }

    /// How a transfer between these kinds of memory can be gathered for a lane; `None` where it cannot.
    pub(super) fn gathering(
        &self,
        key: PeerKey,
        peer: &Peer,
        spec: &LaneSpec,
        op: TransferOp,
        [local, remote]: [MemoryKind; 2],
    ) -> Option<Gathering> {
        let serves = spec.gathers() && op == TransferOp::Write && self.staging.served.contains(&(key, local));
        let ours = self.staging.of(local).filter(|_| serves)?;
        let theirs = self.staging.theirs.get(&remote)?;
        let places = || theirs.places_of(peer.holder());
        let (shortest, first) = (places().map(|place| place.span.len).min()?, places().next()?);
        if shortest < ours.spec.slot_bytes.min(SLOT_BYTES_MIN) {
            return None; // a chunk for each few bytes gains nothing
        }
        let caps = PlanCaps {
            segments_per_chunk: ours.spec.segments_per_copy.min(DATA_SPANS_MAX),
            bytes_per_chunk: shortest.min(ours.spec.slot_bytes).min(spec.bytes_per_chunk),
        };
        Some(Gathering { below: spec.gathers_below, caps, devices: [ours.spec.device, first.device] })
    }

    /// A region of ours is revoked: if that is staging memory, nobody is lent any of it any more.
    pub(super) fn note_revoked(&mut self, region: Region) {
        let is_in =
            |ours: &&mut OurSlots| ours.spec.kind == region.kind && region.span.holds(ours.spec.memory);
        self.staging.ours.iter_mut().filter(is_in).for_each(|ours| ours.region = Some(region.key));
    }

    /// Lends a peer its first slots, if it is up over a lane that gathers.
    pub(super) fn lend_ahead(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.phase == SessionPhase::Up) else {
            return;
        };
        if !lends_slots(peer) {
            return;
        }
        let (holder, now) = (peer.holder(), peer.liveness.heard());
        let gathering: Vec<_> =
            peer.lanes.agreed().iter().map(|lane| &self.lanes[*lane]).filter(|spec| spec.gathers()).collect();
        for ours in &mut self.staging.ours {
            let kind = ours.spec.kind;
            let has_some = peer.lent.contains(&kind) || ours.region.is_some();
            let is_served = self.staging.served.contains(&(key, kind));
            let free = ours.pool.tally().of(SlotPhase::Free).min(SLOTS_PER_PEER);
            if has_some || !is_served || free == 0 || !gathering.iter().any(|spec| spec.carries([kind; 2])) {
                continue;
            }
            for (slot, span) in ours.lend(holder, free, now) {
                peer.lent.insert(kind);
                peer.tell(Event::SlotGranted { slot, span });
            }
        }
    }

    /// What was in a slot of ours has been read, or is worth nothing: it is the peer's again.
    pub(super) fn slot_read(&mut self, key: PeerKey, slot: StagingSlot, now: Instant) {
        if self.staging.of_mut(slot.kind).is_some_and(|ours| ours.pool.drained(slot.lease, now)) {
            self.lend_again(key, slot.kind, now);
        }
    }

    fn lend_again(&mut self, key: PeerKey, kind: MemoryKind, now: Instant) {
        let Some(ours) = self.staging.of_mut(kind) else { return };
        let Some(peer) = self.peers.get_mut(&key).filter(|_| ours.region.is_none()) else {
            return;
        };
        for (slot, span) in ours.lend(peer.holder(), 1, now) {
            peer.tell(Event::SlotGranted { slot, span });
        }
    }

    pub(super) fn handle_slot_granted(&mut self, key: PeerKey, slot: StagingSlot, span: Span) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let region = peer.regions.holding(span).filter(|region| region.kind == slot.kind && span.len > 0);
        if slot.lease.index >= SLOTS_TAKEN_MAX {
            return self.close(key, &format!("it lends {}, of more than {SLOTS_TAKEN_MAX}", slot.lease));
        }
        let Some(device) = region.map(|region| region.device) else {
            return self.close(key, &format!("it lends {}, {span}, which it has not announced", slot.lease));
        };
        let (holder, theirs) = (peer.holder(), self.staging.theirs.entry(slot.kind).or_default());
        theirs.holdings.open(holder);
        theirs.holdings.handle(holder, ToHolder::Grant { slot: slot.lease, request: ANY });
        while theirs.holdings.poll_message().is_some() {} // an answer to what is said twice is nobody's
        theirs.places.insert((holder, slot.lease.index), Place { span, device });
    }

    /// The peer has let go of a region: if that is our staging memory, it writes there no more.
    pub(super) fn note_released(&mut self, key: PeerKey, region: RegionKey) {
        let Some((holder, now)) = self.peers.get(&key).map(|peer| (peer.holder(), peer.liveness.heard()))
        else {
            return;
        };
        for ours in self.staging.ours.iter_mut().filter(|ours| ours.region == Some(region)) {
            ours.note_quiet(holder, now);
        }
    }

    pub(super) fn handle_slot_returned(&mut self, key: PeerKey, slot: StagingSlot, now: Instant) {
        let Some(holder) = self.peers.get(&key).map(Peer::holder) else { return };
        let Some(ours) = self.staging.of_mut(slot.kind) else { return };
        ours.pool.handle(holder, ToOwner::Revoked { slot: slot.lease }, now);
        if matches!(ours.pool.poll_action(), Some(PoolAction::Lost { .. })) {
            self.lend_again(key, slot.kind, now);
        }
    }

    /// The peer has revoked a region: what it has lent of it is gone. Returns whether there was anything.
    pub(super) fn forget_slots_in(&mut self, key: PeerKey, region: Region) -> bool {
        let Some(holder) = self.peers.get(&key).map(Peer::holder) else { return false };
        let Some(theirs) = self.staging.theirs.get_mut(&region.kind) else { return false };
        let gone = theirs.places_of(holder).any(|place| region.span.holds(place.span));
        if gone {
            theirs.forget(holder);
        }
        gone
    }

    /// A stream is over, and our fabrics have let go of the peer: it has no slots any more, but those that it may still be
    /// writing into are nobody's.
    pub(super) fn close_staging(&mut self, key: PeerKey, peer: &Peer) {
        let (holder, now) = (peer.holder(), peer.liveness.heard());
        let of_peer = |flight: &&Flight| flight.peer == key;
        for flight in self.flights.values().filter(of_peer) {
            match flight.kind {
                FlightKind::Gather(slots) | FlightKind::SlotWrite(slots) => self.staging.free_own(slots.own),
                FlightKind::Scatter(slot) => {
                    if let Some(ours) = self.staging.of_mut(slot.kind) {
                        ours.pool.drained(slot.lease, now);
                    }
                }
                _ => {}
            }
        }
        let quarantined = |staging: &Staging| {
            staging.ours.iter().map(|ours| ours.pool.tally().of(SlotPhase::Quarantined)).sum::<u32>()
        };
        let before = quarantined(&self.staging);
        for ours in &mut self.staging.ours {
            match planted::is(Planted::SlotsFreedWithStream) {
                true => ours.note_quiet(holder, now),
                false => ours.note_lost(holder, now),
            }
        }
        self.staging.theirs.values_mut().for_each(|theirs| theirs.forget(holder));
        self.staging.served.retain(|(of, _)| *of != key);
        if let Some(session) = peer.session().filter(|_| quarantined(&self.staging) > before) {
            self.staging.unproved.push((holder, session));
        }
    }
}

/// Whether a peer has staging memory of its own to lend, and understands what is said of slots.
fn lends_slots(peer: &Peer) -> bool {
    peer.section.as_ref().is_some_and(|section| section.capabilities & CAPABILITY_SLOTS != 0)
}
