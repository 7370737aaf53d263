//! Staging slots, ours and the peers': memory that small pieces pass through in bulk, and who may write into which of it.
//!
//! ```text
//!   ours, by kind of memory   | slots that peers write into | slots that we gather in |
//!                               lent ahead, a few a peer      free or in use
//! ```
//!
//! Who is up with us over a lane that gathers is lent a few slots at once, as long as there are any, and gets each back as
//! soon as we have read it: so no transfer begins with a round trip, and whoever has slots keeps them until its stream ends. Leases
//! are those of [`grant`](crate::proto::grant), held by a stream (its link id stands where a session could), and told by
//! events, which come once, in order: nothing of a lease has to be said again, and none runs out.
//!
//! A peer that is let go of while it holds slots may still be writing into them. They are quarantined until
//! [`Endpoint::handle_let_go`] brings the proof that it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::desc::{MemoryKind, PeerKey, Region, RegionKey, SessionId, Span, TransferOp};
use crate::planted::{self, Planted};
use crate::proto::grant::{
    Action as PoolAction, Holdings, Pool, PoolLimits, RequestId, SlotPhase, Tally, ToHolder, ToOwner,
};
use crate::proto::plan::PlanCaps;
use crate::proto::section::CAPABILITY_SLOTS;
use crate::proto::session::SessionPhase;
use crate::proto::wire::{DATA_SPANS_MAX, Event, StagingSlot};

use super::{Endpoint, Flight, FlightKind, Gathering, LaneSpec, Peer};

/// Staging memory of one kind, as the owner of an endpoint provides it: one half for peers to write into, one to gather in.
#[derive(Clone, Copy, Debug)]
pub struct StagingSpec {
    /// The kind of memory.
    pub kind: MemoryKind,
    /// The device that it is on: what is copied to and from slots lies there, too.
    pub device: u32,
    /// What copies memory of this kind within our process, as the lane of [`Action::Post`](super::Action::Post): behind
    /// the endpoint's lanes.
    pub copier: usize,
    /// All of the slots, one after the other, in a registered region.
    pub memory: Span,
    /// Bytes of a slot.
    pub slot_bytes: u64,
    /// Segments that the copier takes at a time.
    pub segments_per_copy: usize,
}

/// All slots that an endpoint knows of.
#[derive(Debug, Default)]
pub(super) struct Staging {
    ours: Vec<OurSlots>,
    theirs: BTreeMap<MemoryKind, TheirSlots>,
    /// Peers for which our copier of a kind is there.
    served: BTreeSet<(PeerKey, MemoryKind)>,
    /// Streams that ended while they held slots of ours, and the sessions that those were with.
    unproved: Vec<(SessionId, SessionId)>,
    /// Chunks of ours that have gone through slots so far.
    chunks: u64,
}

/// Our slots of one kind.
#[derive(Debug)]
struct OurSlots {
    spec: StagingSpec,
    /// Those that peers write into,
    pool: Pool,
    /// and those that we gather in and that are free, by number.
    free: Vec<u32>,
    /// The region that they are in, once that is revoked.
    region: Option<RegionKey>,
}

/// The slots of one kind that peers have lent us.
#[derive(Debug, Default)]
struct TheirSlots {
    holdings: Holdings,
    /// Where each is.
    places: BTreeMap<(SessionId, u32), Place>,
}

/// Where a slot of a peer's is.
#[derive(Clone, Copy, Debug)]
struct Place {
    span: Span,
    device: u32,
}

/// The two slots that a chunk of ours passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotPair {
    /// The kind and the number of our own.
    pub own: (MemoryKind, u32),
    /// The peer's.
    pub theirs: StagingSlot,
}

/// Slots that a peer is lent ahead.
const SLOTS_PER_PEER: u32 = 4;
/// Slots that are taken of a peer; one that lends more is out of its mind.
const SLOTS_TAKEN_MAX: u32 = 1024;
/// All grants are for whatever comes.
const ANY: RequestId = RequestId(0);
/// A lease ends with its stream, and has no time of its own.
const FOR_GOOD: Duration = Duration::from_secs(10 * 365 * 86400);

impl OurSlots {
    fn new(spec: StagingSpec) -> Self {
        let slots = (spec.memory.len / spec.slot_bytes.max(1)) as u32;
        let limits = PoolLimits {
            wait: FOR_GOOD,
            lease: FOR_GOOD,
            again: FOR_GOOD,
            // What is left serves; those for whom nothing is left write piece by piece.
            degraded_above: slots,
            failed_above: slots,
            ..PoolLimits::new(slots / 2, spec.slot_bytes)
        };
        Self { spec, pool: Pool::new(limits), free: (slots / 2..slots).rev().collect(), region: None }
    }

    fn place(&self, index: u32) -> Span {
        let StagingSpec { memory, slot_bytes, .. } = self.spec;
        Span { addr: memory.addr + u64::from(index) * slot_bytes, len: slot_bytes }
    }

    /// The next slot that has been granted, once the pool has been asked.
    fn granted(&mut self) -> Option<StagingSlot> {
        while let Some(action) = self.pool.poll_action() {
            if let PoolAction::Say(_, ToHolder::Grant { slot: lease, .. }) = action {
                return Some(StagingSlot { kind: self.spec.kind, lease });
            }
        }
        None
    }
}

impl Staging {
    fn ours(&mut self, kind: MemoryKind) -> Option<&mut OurSlots> {
        self.ours.iter_mut().find(|ours| ours.spec.kind == kind)
    }

    /// Slots of ours that are not free and not at a peer's disposal either.
    pub fn in_use(&self) -> usize {
        let of_kind = |ours: &OurSlots| {
            let tally = ours.pool.tally();
            let own = (ours.spec.memory.len / ours.spec.slot_bytes.max(1)) as usize - tally.all() as usize;
            own - ours.free.len() + (tally.of(SlotPhase::Sealed) + tally.of(SlotPhase::Quarantined)) as usize
        };
        self.ours.iter().map(of_kind).sum()
    }

    /// A slot of our own and one of the peer's for a chunk, if both are to be had.
    pub fn take(&mut self, holder: SessionId, [local, remote]: [MemoryKind; 2]) -> Option<SlotPair> {
        let index = *self.ours(local)?.free.last()?;
        let lease = self.theirs.get_mut(&remote)?.holdings.take(holder, ANY)?;
        self.ours(local)?.free.pop();
        Some(SlotPair { own: (local, index), theirs: StagingSlot { kind: remote, lease } })
    }

    /// What copies to and from our own slots of this kind, and where one of them is.
    pub fn own_slot(&self, (kind, index): (MemoryKind, u32)) -> Option<(usize, Span)> {
        let ours = self.ours.iter().find(|ours| ours.spec.kind == kind)?;
        Some((ours.spec.copier, ours.place(index)))
    }

    /// Where a slot of the peer's is.
    pub fn their_slot(&self, holder: SessionId, slot: StagingSlot) -> Option<Span> {
        self.theirs.get(&slot.kind)?.places.get(&(holder, slot.lease.index)).map(|place| place.span)
    }

    /// A slot of our own is free again.
    pub fn free_own(&mut self, (kind, index): (MemoryKind, u32)) {
        if let Some(ours) = self.ours(kind) {
            ours.free.push(index);
        }
    }

    /// Notes that a write into a peer's slot is about to be posted; false where it must not be.
    #[must_use]
    pub fn note_write(&mut self, holder: SessionId, slot: StagingSlot) -> bool {
        let theirs = self.theirs.get_mut(&slot.kind);
        theirs.is_some_and(|theirs| theirs.holdings.post(holder, slot.lease))
    }

    /// The write is over. With the number of `bytes` in place, whether the peer is to be told of them; without, whether it is to
    /// have its slot back.
    #[must_use]
    pub fn end_use(
        &mut self,
        holder: SessionId,
        slot: StagingSlot,
        was_posted: bool,
        bytes: Option<u64>,
    ) -> bool {
        let Some(TheirSlots { holdings, .. }) = self.theirs.get_mut(&slot.kind) else { return false };
        if was_posted {
            holdings.completed(holder, slot.lease);
        }
        match bytes {
            Some(bytes) => {
                self.chunks += 1;
                holdings.finish(holder, slot.lease, bytes);
            }
            None => holdings.give_back(holder, slot.lease),
        }
        holdings.poll_message().is_some()
    }

    /// Whether a region of ours is memory like that of our slots of a kind: one copier reaches both.
    pub fn is_alike(&self, kind: MemoryKind, region: &Region) -> bool {
        let ours = self.ours.iter().find(|ours| ours.spec.kind == kind);
        ours.is_some_and(|ours| region.kind == kind && region.device == ours.spec.device)
    }

    /// The peer says that so many bytes are in a slot of ours; `None` where it cannot have filled it.
    pub fn seal(
        &mut self,
        holder: SessionId,
        slot: StagingSlot,
        bytes: u64,
        now: Instant,
    ) -> Option<(usize, Span)> {
        let ours = self.ours(slot.kind)?;
        ours.pool.handle(holder, ToOwner::Commit { slot: slot.lease, bytes }, now);
        match ours.pool.poll_action() {
            Some(PoolAction::Sealed { .. }) => Some((ours.spec.copier, ours.place(slot.lease.index))),
            _ => None,
        }
    }
}

impl Endpoint {
    /// Gives it staging memory of a kind of which it has none.
    pub fn add_staging(&mut self, spec: StagingSpec) {
        self.staging.ours.push(OurSlots::new(spec));
        let up: Vec<_> = self.peers.keys().copied().collect();
        up.into_iter().for_each(|key| self.lend_ahead(key));
    }

    /// How many of our slots that peers write into stand where; all zero without staging memory.
    pub fn slots(&self, kind: MemoryKind) -> Tally {
        let ours = self.staging.ours.iter().find(|ours| ours.spec.kind == kind);
        ours.map_or(Tally::default(), |ours| ours.pool.tally())
    }

    /// Chunks of our transfers that have been gathered so far.
    pub fn gathered_chunks(&self) -> u64 {
        self.staging.chunks
    }

    /// How many slots of our own are free to gather in.
    pub fn free_slots(&self, kind: MemoryKind) -> usize {
        self.staging.ours.iter().filter(|ours| ours.spec.kind == kind).map(|ours| ours.free.len()).sum()
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
        let (proved, rest) =
            std::mem::take(&mut self.staging.unproved).into_iter().partition(|(_, of)| *of == session);
        self.staging.unproved = rest;
        for (holder, _) in Vec::from_iter::<Vec<_>>(proved) {
            for ours in &mut self.staging.ours {
                ours.pool.handle_quiet(holder, now);
                while ours.pool.poll_action().is_some() {}
            }
        }
        let up: Vec<_> = self.peers.keys().copied().collect();
        up.into_iter().for_each(|key| self.lend_ahead(key));
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
        let ours = self.staging.ours.iter().find(|ours| serves && ours.spec.kind == local)?;
        let (holder, theirs) = (peer.holder(), self.staging.theirs.get(&remote)?);
        let places = || theirs.places.range((holder, 0)..=(holder, u32::MAX)).map(|(_, place)| place);
        let (shortest, first) = (places().map(|place| place.span.len).min()?, places().next()?);
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
        if peer.section.as_ref().is_none_or(|section| section.capabilities & CAPABILITY_SLOTS == 0) {
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
            let _ = ours.pool.ask(holder, ANY, free, now); // so many are free
            while let Some(slot) = ours.granted() {
                peer.lent.insert(kind);
                peer.tell(Event::SlotGranted { slot, span: ours.place(slot.lease.index) });
            }
        }
    }

    /// What was in a slot of ours has been read, or is worth nothing: it is the peer's again.
    pub(super) fn slot_read(&mut self, key: PeerKey, slot: StagingSlot, now: Instant) {
        if self.staging.ours(slot.kind).is_some_and(|ours| ours.pool.drained(slot.lease, now)) {
            self.lend_again(key, slot.kind, now);
        }
    }

    fn lend_again(&mut self, key: PeerKey, kind: MemoryKind, now: Instant) {
        let Some(ours) = self.staging.ours(kind) else { return };
        let Some(peer) = self.peers.get_mut(&key).filter(|_| ours.region.is_none()) else {
            return;
        };
        let _ = ours.pool.ask(peer.holder(), ANY, 1, now); // one has just become free
        while let Some(slot) = ours.granted() {
            peer.tell(Event::SlotGranted { slot, span: ours.place(slot.lease.index) });
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
            ours.pool.handle_quiet(holder, now);
            while ours.pool.poll_action().is_some() {}
        }
    }

    pub(super) fn handle_slot_returned(&mut self, key: PeerKey, slot: StagingSlot, now: Instant) {
        let Some(holder) = self.peers.get(&key).map(Peer::holder) else { return };
        let Some(ours) = self.staging.ours(slot.kind) else { return };
        ours.pool.handle(holder, ToOwner::Revoked { slot: slot.lease }, now);
        if matches!(ours.pool.poll_action(), Some(PoolAction::Lost { .. })) {
            self.lend_again(key, slot.kind, now);
        }
    }

    /// The peer has revoked a region: what it has lent of it is gone. Returns whether there was anything.
    pub(super) fn forget_slots_in(&mut self, key: PeerKey, region: Region) -> bool {
        let Some(holder) = self.peers.get(&key).map(Peer::holder) else { return false };
        let Some(theirs) = self.staging.theirs.get_mut(&region.kind) else { return false };
        let is_gone = |place: &Place| region.span.holds(place.span);
        let gone = theirs.places.range((holder, 0)..=(holder, u32::MAX)).any(|(_, place)| is_gone(place));
        if gone {
            theirs.places.retain(|(of, _), _| *of != holder);
            theirs.holdings.close(holder);
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
                    if let Some(ours) = self.staging.ours(slot.kind) {
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
                true => ours.pool.handle_quiet(holder, now),
                false => ours.pool.handle_lost(holder, now),
            }
            while ours.pool.poll_action().is_some() {}
        }
        for theirs in self.staging.theirs.values_mut() {
            theirs.holdings.close(holder);
            theirs.places.retain(|(of, _), _| *of != holder);
        }
        self.staging.served.retain(|(of, _)| *of != key);
        if let Some(session) = peer.session().filter(|_| quarantined(&self.staging) > before) {
            self.staging.unproved.push((holder, session));
        }
    }
}
