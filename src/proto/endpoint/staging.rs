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
//! [`Endpoint::handle_let_go`](super::Endpoint::handle_let_go) brings the proof that it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::desc::{MemoryKind, PeerKey, Region, RegionKey, SessionId, Span};
use crate::proto::grant::{
    Action as PoolAction, Holdings, Pool, PoolLimits, RequestId, Slot, SlotPhase, ToHolder, ToOwner,
};
use crate::proto::wire::StagingSlot;

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
    pub ours: Vec<OurSlots>,
    pub theirs: BTreeMap<MemoryKind, TheirSlots>,
    /// Peers for which our copier of a kind is there.
    pub served: BTreeSet<(PeerKey, MemoryKind)>,
    /// Streams that ended while they held slots of ours, and the sessions that those were with.
    pub unproved: Vec<(SessionId, SessionId)>,
    /// Chunks of ours that have gone through slots so far.
    pub chunks: u64,
}

/// Our slots of one kind.
#[derive(Debug)]
pub(super) struct OurSlots {
    pub spec: StagingSpec,
    /// Those that peers write into,
    pub pool: Pool,
    /// and those that we gather in and that are free, by number.
    pub free: Vec<u32>,
    /// The region that they are in, once that is revoked.
    pub region: Option<RegionKey>,
}

/// The slots of one kind that peers have lent us.
#[derive(Debug, Default)]
pub(super) struct TheirSlots {
    pub holdings: Holdings,
    /// Where each is.
    pub places: BTreeMap<(SessionId, u32), Place>,
}

/// Where a slot of a peer's is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub span: Span,
    pub device: u32,
}

/// The two slots that a chunk of ours passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SlotPair {
    /// The kind and the number of our own.
    pub own: (MemoryKind, u32),
    /// The peer's.
    pub theirs: StagingSlot,
}

/// A lease ends with its stream, and has no time of its own.
const FOR_GOOD: Duration = Duration::from_secs(10 * 365 * 86400);

/// All grants are for whatever comes.
pub(super) const ANY: RequestId = RequestId(0);

impl StagingSpec {
    fn slots(&self) -> u32 {
        (self.memory.len / self.slot_bytes.max(1)) as u32
    }
}

impl OurSlots {
    pub fn new(spec: StagingSpec) -> Self {
        let slots = spec.slots();
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

    pub fn place(&self, index: u32) -> Span {
        let StagingSpec { memory, slot_bytes, .. } = self.spec;
        Span { addr: memory.addr + u64::from(index) * slot_bytes, len: slot_bytes }
    }

    /// Lends so many slots, which are free. The holder is to be told of each, with its place.
    pub fn lend(&mut self, holder: SessionId, count: u32, now: Instant) -> Vec<(StagingSlot, Span)> {
        let _ = self.pool.ask(holder, ANY, count, now); // a pool of free slots grants them
        let actions = std::iter::from_fn(|| self.pool.poll_action());
        let leases: Vec<_> = actions
            .filter_map(|action| match action {
                PoolAction::Say(_, ToHolder::Grant { slot, .. }) => Some(slot),
                _ => None,
            })
            .collect();
        let placed = |lease: Slot| (StagingSlot { kind: self.spec.kind, lease }, self.place(lease.index));
        leases.into_iter().map(placed).collect()
    }

    /// Nothing of this holder's lands in any of them any more.
    pub fn note_quiet(&mut self, holder: SessionId, now: Instant) {
        self.pool.handle_quiet(holder, now);
        self.ignore_actions();
    }

    /// This holder is lost, and may still be writing.
    pub fn note_lost(&mut self, holder: SessionId, now: Instant) {
        self.pool.handle_lost(holder, now);
        self.ignore_actions();
    }

    /// What the pool says of leases that have ended is nobody's business: whoever had them is gone.
    fn ignore_actions(&mut self) {
        while self.pool.poll_action().is_some() {}
    }
}

impl TheirSlots {
    /// Where the slots of one holder are.
    pub fn places_of(&self, holder: SessionId) -> impl Iterator<Item = &Place> {
        self.places.range((holder, 0)..=(holder, u32::MAX)).map(|(_, place)| place)
    }

    /// The slots of one holder are gone.
    pub fn forget(&mut self, holder: SessionId) {
        self.places.retain(|(of, _), _| *of != holder);
        self.holdings.close(holder);
    }
}

impl Staging {
    /// Our slots of a kind.
    pub fn of(&self, kind: MemoryKind) -> Option<&OurSlots> {
        self.ours.iter().find(|ours| ours.spec.kind == kind)
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, kind: MemoryKind) -> Option<&mut OurSlots> {
        self.ours.iter_mut().find(|ours| ours.spec.kind == kind)
    }

    /// Whether this region of ours is staging memory.
    pub fn is_staging(&self, region: &Region) -> bool {
        self.of(region.kind).is_some_and(|ours| ours.spec.memory == region.span)
    }

    /// Slots of ours that are not free and not at a peer's disposal either.
    pub fn in_use(&self) -> usize {
        let of_kind = |ours: &OurSlots| {
            let tally = ours.pool.tally();
            let own = (ours.spec.slots() - tally.all()) as usize;
            own - ours.free.len() + (tally.of(SlotPhase::Sealed) + tally.of(SlotPhase::Quarantined)) as usize
        };
        self.ours.iter().map(of_kind).sum()
    }

    /// A slot of our own and one of the peer's for a chunk, if both are to be had.
    pub fn take(&mut self, holder: SessionId, [local, remote]: [MemoryKind; 2]) -> Option<SlotPair> {
        let index = *self.of_mut(local)?.free.last()?;
        let lease = self.theirs.get_mut(&remote)?.holdings.take(holder, ANY)?;
        self.of_mut(local)?.free.pop();
        Some(SlotPair { own: (local, index), theirs: StagingSlot { kind: remote, lease } })
    }

    /// What copies to and from our own slots of this kind, and where one of them is.
    pub fn own_slot(&self, (kind, index): (MemoryKind, u32)) -> Option<(usize, Span)> {
        let ours = self.of(kind)?;
        Some((ours.spec.copier, ours.place(index)))
    }

    /// Where a slot of the peer's is.
    pub fn their_slot(&self, holder: SessionId, slot: StagingSlot) -> Option<Span> {
        self.theirs.get(&slot.kind)?.places.get(&(holder, slot.lease.index)).map(|place| place.span)
    }

    /// A slot of our own is free again.
    pub fn free_own(&mut self, (kind, index): (MemoryKind, u32)) {
        if let Some(ours) = self.of_mut(kind) {
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
        let is_there = |ours: &OurSlots| kind != MemoryKind::Vram || region.device == ours.spec.device;
        region.kind == kind && self.of(kind).is_some_and(is_there)
    }

    /// The peer says that so many bytes are in a slot of ours; `None` where it cannot have filled it.
    pub fn seal(
        &mut self,
        holder: SessionId,
        slot: StagingSlot,
        bytes: u64,
        now: Instant,
    ) -> Option<(usize, Span)> {
        let ours = self.of_mut(slot.kind)?;
        ours.pool.handle(holder, ToOwner::Commit { slot: slot.lease, bytes }, now);
        match ours.pool.poll_action() {
            Some(PoolAction::Sealed { .. }) => Some((ours.spec.copier, ours.place(slot.lease.index))),
            _ => None,
        }
    }
}
