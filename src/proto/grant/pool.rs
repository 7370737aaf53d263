//! The owner's half: which slot is leased to whom, who waits, and what may be given again.

use std::collections::VecDeque;
use std::time::Instant;

use crate::desc::SessionId;
use crate::planted::{self, Planted};

use super::lease::{SlotEvent, SlotPhase, Tally};
use super::outcome::{Action, Admission, Health, Loss, PoolError, PoolLimits};
use super::waiters::{Waiter, Waiters};
use super::{Dropped, RequestId, SLOTS_MAX, Slot, ToHolder, ToOwner};

/// A lease that is not over.
#[derive(Clone, Copy, Debug)]
struct Lease {
    session: SessionId,
    request: RequestId,
    /// Until when the next step must have come: COMMIT, or the proof.
    deadline: Instant,
    /// When the message that it waits on is said again; `None` when nobody is there to answer.
    again: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    phase: SlotPhase,
    lease: Option<Lease>,
}

/// The slots of one staging memory. In: `handle_*`; commands: [`ask`](Self::ask), [`cancel`](Self::cancel),
/// [`drained`](Self::drained); out: [`poll_action`](Self::poll_action) after each, and [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Pool {
    limits: PoolLimits,
    entries: Vec<Entry>,
    free: Vec<u32>,
    tally: Tally,
    waiters: Waiters,
    health: Health,
    dropped: Dropped,
    actions: VecDeque<Action>,
}

impl Pool {
    /// A pool whose slots are all free.
    pub fn new(limits: PoolLimits) -> Self {
        let slots = limits.slots.min(SLOTS_MAX);
        let limits = PoolLimits { slots, ..limits };
        let entry = |_| Entry { generation: 0, phase: SlotPhase::Free, lease: None };
        Self {
            limits,
            entries: (0..slots).map(entry).collect(),
            free: (0..slots).rev().collect(),
            tally: Tally::of_free(slots),
            waiters: Waiters::default(),
            health: Health::Sound,
            dropped: Dropped::default(),
            actions: VecDeque::new(),
        }
    }

    /// How many slots stand where.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How much of it is lost.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Messages that changed nothing.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// The generation and the phase of a slot.
    pub fn slot(&self, index: u32) -> Option<(u32, SlotPhase)> {
        let entry = self.entries.get(index as usize)?;
        Some((entry.generation, entry.phase))
    }

    /// Whether bytes of this lease may be put into its slot now: what an owner that lands the bytes itself asks for each frame.
    /// Where it does, the end of a session is a proof, and nothing is quarantined.
    pub fn admits(&self, session: SessionId, slot: Slot) -> bool {
        let entry = self.entries.get(slot.index as usize);
        entry.is_some_and(|entry| {
            entry.phase == SlotPhase::Granted
                && entry.generation == slot.generation
                && entry.lease.is_some_and(|lease| lease.session == session)
        })
    }

    /// A message of a sender has come.
    pub fn handle(&mut self, from: SessionId, message: ToOwner, now: Instant) {
        let (ToOwner::Commit { slot, .. } | ToOwner::Revoked { slot }) = message;
        let Some(lease) = self.lease_of(from, slot) else { return };
        let Lease { session, request, .. } = lease;
        let (event, loss) = match message {
            ToOwner::Commit { bytes, .. } if bytes > self.limits.slot_bytes => {
                (SlotEvent::Returned, Loss::TooLong)
            }
            ToOwner::Commit { .. } => (SlotEvent::Committed, Loss::Returned),
            ToOwner::Revoked { .. } => (SlotEvent::Returned, Loss::Returned),
        };
        match (self.step(slot.index, event), message) {
            (None, _) => self.dropped.out_of_phase += 1,
            (Some((SlotPhase::Granted, SlotPhase::Sealed)), ToOwner::Commit { bytes, .. }) => {
                self.actions.push_back(Action::Sealed { session, request, slot, bytes });
            }
            (Some((SlotPhase::Granted, _)), _) => {
                self.actions.push_back(Action::Lost { session, request, slot, why: loss });
            }
            (Some(_), _) => {}
        }
        self.serve(now);
    }

    /// A session is over, and what it posted may still land: its leases are quarantined, until
    /// [`handle_quiet`](Self::handle_quiet) if ever.
    pub fn handle_lost(&mut self, session: SessionId, now: Instant) {
        self.end_session(session, SlotEvent::Unproved, now);
    }

    /// A session is over, and no write of it can land any more: its endpoint is closed with everything flushed, or the
    /// owner lands all bytes itself.
    pub fn handle_quiet(&mut self, session: SessionId, now: Instant) {
        self.end_session(session, SlotEvent::Quiet, now);
    }

    /// Does what is due: says again what was not answered, calls back what has expired, quarantines what was
    /// not proved over, lets those go that have waited long enough.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.stop_waiting(Loss::NoneFree, |waiter| waiter.until <= now);
        for index in 0..self.limits.slots {
            let Some(entry) = self.entries.get_mut(index as usize) else { return };
            let slot = Slot { index, generation: entry.generation };
            let Some(lease) = &mut entry.lease else { continue };
            match entry.phase {
                SlotPhase::Granted if lease.deadline <= now => self.revoke(slot, Loss::Expired, now),
                SlotPhase::Revoking if lease.deadline <= now => {
                    self.step(index, SlotEvent::Unproved);
                }
                SlotPhase::Granted | SlotPhase::Revoking | SlotPhase::Quarantined
                    if lease.again.is_some_and(|again| again <= now) =>
                {
                    lease.again = Some(now + self.limits.again);
                    let request = lease.request;
                    let message = match entry.phase {
                        SlotPhase::Granted => ToHolder::Grant { slot, request },
                        _ if planted::is(Planted::GrantRevokeSaidOnce) => continue,
                        _ => ToHolder::Revoke { slot },
                    };
                    self.actions.push_back(Action::Say(lease.session, message));
                }
                _ => {}
            }
        }
        self.serve(now);
    }

    /// Asks for slots that this session shall write to, for one request. What cannot be granted at once waits its turn.
    pub fn ask(
        &mut self,
        session: SessionId,
        request: RequestId,
        slots: u32,
        now: Instant,
    ) -> Result<Admission, PoolError> {
        let (all, usable) = (self.limits.slots, self.limits.slots - self.tally.of(SlotPhase::Retired));
        if usable == 0 {
            return Err(PoolError::WornOut { slots: all });
        }
        if self.health == Health::Failed {
            let quarantined = self.tally.of(SlotPhase::Quarantined);
            return Err(PoolError::Quarantined { quarantined, slots: all, spare: self.limits.failed_above });
        }
        let at_once = self.waiters.is_empty() && self.free.len() >= slots as usize;
        let has_place = self.waiters.holds(session, request) || self.waiters.len() < self.limits.waiters;
        if slots == 0 || !at_once && !has_place {
            return Ok(if slots == 0 { Admission::Granted } else { Admission::Full });
        }
        let until = now + self.limits.wait;
        self.waiters.push(Waiter { session, request, slots, until });
        self.serve(now);
        Ok(match self.waiters.holds(session, request) {
            true => Admission::Waiting { behind: self.waiters.len() - 1 },
            false => Admission::Granted,
        })
    }

    /// A request is over for our side: it waits for nothing any more, and its leases are called back. What is sealed
    /// stays so until [`drained`](Self::drained).
    pub fn cancel(&mut self, session: SessionId, request: RequestId, now: Instant) {
        self.stop_waiting(Loss::Cancelled, |waiter| (waiter.session, waiter.request) == (session, request));
        for slot in self.leases(|lease| (lease.session, lease.request) == (session, request)) {
            self.revoke(slot, Loss::Cancelled, now);
        }
    }

    /// What was in a sealed slot has been read: it may be given again. False: this lease is not sealed.
    pub fn drained(&mut self, slot: Slot, now: Instant) -> bool {
        let current = self.slot(slot.index) == Some((slot.generation, SlotPhase::Sealed));
        if current {
            self.step(slot.index, SlotEvent::Drained);
            self.serve(now);
        }
        current
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = |entry: &Entry| {
            let lease = entry.lease?;
            match entry.phase {
                SlotPhase::Granted | SlotPhase::Revoking => {
                    Some(lease.again.map_or(lease.deadline, |again| again.min(lease.deadline)))
                }
                SlotPhase::Quarantined => lease.again,
                SlotPhase::Free | SlotPhase::Sealed | SlotPhase::Retired => None,
            }
        };
        self.entries.iter().filter_map(due).chain(self.waiters.due()).min()
    }

    /// The lease that a message of this session speaks of; what speaks of another one is counted.
    fn lease_of(&mut self, from: SessionId, slot: Slot) -> Option<Lease> {
        let Some(entry) = self.entries.get(slot.index as usize) else {
            self.dropped.no_such_slot += 1;
            return None;
        };
        let unchecked = planted::is(Planted::GrantGenerationUnchecked);
        if slot.generation == 0 || entry.generation != slot.generation && !unchecked {
            self.dropped.wrong_generation += 1;
            return None;
        }
        let Some(lease) = entry.lease else {
            self.dropped.out_of_phase += 1;
            return None;
        };
        if lease.session != from && !planted::is(Planted::GrantSessionUnchecked) {
            self.dropped.wrong_session += 1;
            return None;
        }
        Some(lease)
    }

    /// Grants free slots to those whose turn it is.
    fn serve(&mut self, now: Instant) {
        self.look_at_health();
        if self.health == Health::Failed {
            return self.stop_waiting(Loss::PoolFailed, |_| true);
        }
        while !self.free.is_empty() && !self.waiters.is_empty() {
            let (Some(index), Some((session, request))) =
                (self.free.pop(), self.waiters.next(now, self.limits.wait))
            else {
                return;
            };
            self.step(index, SlotEvent::Grant);
            let Some(entry) = self.entries.get_mut(index as usize) else { return };
            entry.generation +=
                u32::from(entry.generation == 0 || !planted::is(Planted::GrantGenerationKept));
            let slot = Slot { index, generation: entry.generation };
            let (deadline, again) = (now + self.limits.lease, Some(now + self.limits.again));
            entry.lease = Some(Lease { session, request, deadline, again });
            self.actions.push_back(Action::Say(session, ToHolder::Grant { slot, request }));
        }
    }

    /// Calls a lease back; one that is not out any more is left alone.
    fn revoke(&mut self, slot: Slot, why: Loss, now: Instant) {
        if self.step(slot.index, SlotEvent::Cancelled).is_none() {
            return;
        }
        let lease = self.entries.get_mut(slot.index as usize).and_then(|entry| entry.lease.as_mut());
        let Some(lease) = lease else { return };
        (lease.deadline, lease.again) = (now + self.limits.proof, Some(now + self.limits.again));
        let Lease { session, request, .. } = *lease;
        self.actions.push_back(Action::Lost { session, request, slot, why });
        self.actions.push_back(Action::Say(session, ToHolder::Revoke { slot }));
        if planted::is(Planted::GrantFreedOnCancel) {
            self.step(slot.index, SlotEvent::Quiet);
        }
    }

    fn end_session(&mut self, session: SessionId, event: SlotEvent, now: Instant) {
        self.stop_waiting(Loss::SessionOver, |waiter| waiter.session == session);
        for slot in self.leases(|lease| lease.session == session) {
            if let Some(lease) = &mut self.entries[slot.index as usize].lease {
                lease.again = None;
                let Lease { request, .. } = *lease;
                if let Some((SlotPhase::Granted, _)) = self.step(slot.index, event) {
                    let why = Loss::SessionOver;
                    self.actions.push_back(Action::Lost { session, request, slot, why });
                }
            }
        }
        self.serve(now);
    }

    fn stop_waiting(&mut self, why: Loss, matches: impl Fn(&Waiter) -> bool) {
        for Waiter { session, request, slots, .. } in self.waiters.remove(matches) {
            self.actions.push_back(Action::Unserved { session, request, slots, why });
        }
    }

    fn leases(&self, matches: impl Fn(&Lease) -> bool) -> Vec<Slot> {
        let slot = |(index, entry): (usize, &Entry)| {
            let slot = Slot { index: index as u32, generation: entry.generation };
            entry.lease.filter(&matches).map(|_| slot)
        };
        self.entries.iter().enumerate().filter_map(slot).collect()
    }

    /// The only way from one phase to another. Returns both, or `None` where the event has no place.
    fn step(&mut self, index: u32, event: SlotEvent) -> Option<(SlotPhase, SlotPhase)> {
        let entry = self.entries.get_mut(index as usize)?;
        let from = entry.phase;
        let event = match event {
            SlotEvent::Unproved if planted::is(Planted::GrantQuarantineSkipped) => SlotEvent::Quiet,
            event => event,
        };
        let to = from.on(event).ok()?;
        entry.phase = to;
        self.tally.step(from, to);
        if to == SlotPhase::Free {
            entry.lease = None;
            match entry.generation {
                _ if planted::is(Planted::GrantNeverRetired) => self.free.push(index),
                last if last >= self.limits.last_generation => drop(self.step(index, SlotEvent::WornOut)),
                _ => self.free.push(index),
            }
        }
        Some((from, to))
    }

    fn look_at_health(&mut self) {
        let quarantined = self.tally.of(SlotPhase::Quarantined);
        let health = match quarantined {
            many if many > self.limits.failed_above => Health::Failed,
            some if some > self.limits.degraded_above => Health::Degraded,
            _ => Health::Sound,
        };
        if std::mem::replace(&mut self.health, health) != health {
            self.actions.push_back(Action::Health(health));
        }
    }
}
