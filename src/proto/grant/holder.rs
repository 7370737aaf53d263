//! The sender's half: what it may write to, and what it owes the owners of that memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::desc::SessionId;
use crate::planted::{self, Planted};
use crate::proto::transition::{named, table};

use super::{Dropped, RequestId, SLOTS_MAX, Slot, ToHolder, ToOwner};

named!(
    /// Where a grant stands at the sender.
    HolderPhase {
        /// Granted and not used.
        Held,
        /// Operations are being posted.
        Writing,
        /// Everything is posted; some of it has yet to be flushed.
        Flushing,
        /// Called back; what was posted has yet to be flushed.
        Revoked,
        /// COMMIT is said.
        Committed,
        /// REVOKED is said.
        Returned,
    }
);

named!(
    /// What happens to a grant at the sender.
    HolderEvent {
        /// It is used, for the only time.
        Use,
        /// Everything is posted.
        Posted,
        /// Nothing that was posted is in flight.
        Flushed,
        /// The owner, or our own side, wants it to end.
        Revoke,
    }
);

table!(HolderPhase, HolderEvent {
    Use: { Held => Writing },
    Posted: { Writing => Flushing },
    Flushed: { Flushing => Committed, Revoked => Returned },
    Revoke: {
        Held => Returned, Writing => Revoked, Flushing => Revoked, Revoked => Revoked,
        Committed => Returned, Returned => Returned,
    },
});

/// What is known of the latest lease of one slot.
#[derive(Debug)]
struct Holding {
    generation: u32,
    request: Option<RequestId>,
    phase: HolderPhase,
    in_flight: u32,
    bytes: u64,
}

/// The slots of one owner.
#[derive(Debug, Default)]
struct Owner {
    slots: BTreeMap<u32, Holding>,
    /// What is held and not used, by request.
    held: BTreeSet<(RequestId, u32)>,
}

/// All grants of one sender. In: `handle_*`; commands: [`take`](Self::take), [`post`](Self::post),
/// [`completed`](Self::completed), [`finish`](Self::finish), [`give_back`](Self::give_back); out:
/// [`poll_message`](Self::poll_message) after each.
#[derive(Debug, Default)]
pub struct Holdings {
    owners: BTreeMap<SessionId, Owner>,
    messages: VecDeque<(SessionId, ToOwner)>,
    dropped: Dropped,
}

impl Holdings {
    /// Messages that changed nothing.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Where the latest lease of a slot stands.
    pub fn phase(&self, owner: SessionId, index: u32) -> Option<(u32, HolderPhase)> {
        let holding = self.owners.get(&owner)?.slots.get(&index)?;
        Some((holding.generation, holding.phase))
    }

    /// From now on this owner's messages count.
    pub fn open(&mut self, owner: SessionId) {
        self.owners.entry(owner).or_default();
    }

    /// The session is over: its grants are gone, and whoever still has operations in flight owes nobody an answer.
    pub fn close(&mut self, owner: SessionId) {
        self.owners.remove(&owner);
        self.messages.retain(|(to, _)| *to != owner);
    }

    /// A message of an owner has come.
    pub fn handle(&mut self, from: SessionId, message: ToHolder) {
        let (ToHolder::Grant { slot, .. } | ToHolder::Revoke { slot }) = message;
        let is_revoke = matches!(message, ToHolder::Revoke { .. });
        let Some(owner) = self.owners.get_mut(&from) else {
            self.dropped.wrong_session += 1;
            return;
        };
        if slot.index >= SLOTS_MAX {
            self.dropped.no_such_slot += 1;
            return;
        }
        match owner.slots.get(&slot.index) {
            // The one before has not ended. The owner will ask again, and then it has.
            Some(old) if old.generation < slot.generation && is_busy(old.phase) => {
                self.dropped.out_of_phase += 1;
                return;
            }
            Some(old) if old.generation == slot.generation => {}
            Some(old) if old.generation > slot.generation => {
                self.dropped.wrong_generation += 1;
                return;
            }
            _ if slot.generation == 0 => {
                self.dropped.wrong_generation += 1;
                return;
            }
            _ if is_revoke && planted::is(Planted::GrantRevokeForgotten) => {
                return self.messages.push_back((from, ToOwner::Revoked { slot }));
            }
            _ => owner.begin(slot),
        }
        match message {
            ToHolder::Grant { request, .. } => self.granted(from, slot, request),
            ToHolder::Revoke { .. } => self.revoke(from, slot),
        }
    }

    /// Takes a grant for this request into use. Whoever gets it posts into it, and ends with [`finish`](Self::finish) or
    /// [`give_back`](Self::give_back).
    pub fn take(&mut self, owner: SessionId, request: RequestId) -> Option<Slot> {
        let grants = self.owners.get_mut(&owner)?;
        let index = grants.held.range((request, 0)..=(request, u32::MAX)).next()?.1;
        let generation = grants.slots.get(&index)?.generation;
        let slot = Slot { index, generation };
        self.step(owner, slot, HolderEvent::Use).then_some(slot)
    }

    /// Counts an operation that is about to be posted. False: it must not be, the lease is called back or over.
    #[must_use]
    pub fn post(&mut self, owner: SessionId, slot: Slot) -> bool {
        let stubborn = planted::is(Planted::GrantUsedAfterRevoke);
        match self.holding(owner, slot).filter(|holding| holding.phase == HolderPhase::Writing || stubborn) {
            Some(holding) => {
                holding.in_flight += 1;
                true
            }
            None => false,
        }
    }

    /// An operation has been flushed, or is known never to land: completed by the fabric in the sense that it cannot
    /// touch the owner's memory any more.
    pub fn completed(&mut self, owner: SessionId, slot: Slot) {
        if let Some(holding) = self.holding(owner, slot) {
            holding.in_flight = holding.in_flight.saturating_sub(1);
        }
        self.settle(owner, slot);
    }

    /// Everything is posted: COMMIT follows when it is flushed.
    pub fn finish(&mut self, owner: SessionId, slot: Slot, bytes: u64) {
        if let Some(holding) = self.holding(owner, slot) {
            holding.bytes = bytes;
        }
        self.step(owner, slot, HolderEvent::Posted);
        self.settle(owner, slot);
    }

    /// The sender's side cannot or will not go on: this lease ends without a COMMIT, unless that is said already.
    pub fn give_back(&mut self, owner: SessionId, slot: Slot) {
        let committed = |holding: &mut Holding| holding.phase == HolderPhase::Committed;
        if !self.holding(owner, slot).is_some_and(committed) {
            self.revoke(owner, slot);
        }
    }

    /// Gives back all that is held for a request and not used.
    pub fn give_back_unused(&mut self, owner: SessionId, request: RequestId) {
        while let Some(slot) = self.take(owner, request) {
            self.give_back(owner, slot);
        }
    }

    /// The next message to send, and to whom.
    pub fn poll_message(&mut self) -> Option<(SessionId, ToOwner)> {
        self.messages.pop_front()
    }

    /// The lease is here, again perhaps: then its owner wants to know what became of it.
    fn granted(&mut self, from: SessionId, slot: Slot, request: RequestId) {
        let Some(owner) = self.owners.get_mut(&from) else { return };
        let Some(holding) = owner.slots.get_mut(&slot.index) else { return };
        if holding.request.is_none() && holding.phase == HolderPhase::Held {
            holding.request = Some(request);
            owner.held.insert((request, slot.index));
        } else if !planted::is(Planted::GrantAnswerLost) {
            self.answer(from, slot);
        }
    }

    fn revoke(&mut self, owner: SessionId, slot: Slot) {
        if self.step(owner, slot, HolderEvent::Revoke) && !self.settle(owner, slot) {
            self.answer(owner, slot);
        }
    }

    /// Says what there is to say of a lease that is over.
    fn answer(&mut self, owner: SessionId, slot: Slot) {
        let message = match self.holding(owner, slot) {
            Some(Holding { phase: HolderPhase::Committed, bytes, .. }) => {
                ToOwner::Commit { slot, bytes: *bytes }
            }
            Some(Holding { phase: HolderPhase::Returned, .. }) => ToOwner::Revoked { slot },
            _ => return,
        };
        self.messages.push_back((owner, message));
    }

    /// Ends a lease whose operations have all been flushed; false where that has to wait.
    fn settle(&mut self, owner: SessionId, slot: Slot) -> bool {
        let idle = self.holding(owner, slot).is_some_and(|holding| match holding.phase {
            HolderPhase::Flushing if planted::is(Planted::GrantCommitBeforeFlush) => true,
            HolderPhase::Revoked if planted::is(Planted::GrantRevokedBeforeFlush) => true,
            _ => holding.in_flight == 0,
        });
        let ended = idle && self.step(owner, slot, HolderEvent::Flushed);
        if ended {
            self.answer(owner, slot);
        }
        ended
    }

    fn holding(&mut self, owner: SessionId, slot: Slot) -> Option<&mut Holding> {
        let holding = self.owners.get_mut(&owner)?.slots.get_mut(&slot.index)?;
        (holding.generation == slot.generation).then_some(holding)
    }

    /// Whether the event had a place.
    fn step(&mut self, from: SessionId, slot: Slot, event: HolderEvent) -> bool {
        let Some(owner) = self.owners.get_mut(&from) else { return false };
        let Some(holding) = owner.slots.get_mut(&slot.index) else { return false };
        if holding.generation != slot.generation {
            return false;
        }
        let Ok(to) = holding.phase.on(event) else { return false };
        if let (HolderPhase::Held, Some(request)) = (holding.phase, holding.request) {
            owner.held.remove(&(request, slot.index));
        }
        holding.phase = to;
        true
    }
}

impl Owner {
    /// A lease that was not known; the one before it is over.
    fn begin(&mut self, slot: Slot) {
        let fresh = Holding {
            generation: slot.generation,
            request: None,
            phase: HolderPhase::Held,
            in_flight: 0,
            bytes: 0,
        };
        if let Some(Holding { request: Some(request), .. }) = self.slots.insert(slot.index, fresh) {
            self.held.remove(&(request, slot.index));
        }
    }
}

/// Whether operations of a lease in this phase may be in flight, or may yet be posted.
fn is_busy(phase: HolderPhase) -> bool {
    matches!(phase, HolderPhase::Writing | HolderPhase::Flushing | HolderPhase::Revoked)
}
