//! One owner of staging slots, a few senders, the wires between them and the memory that they write to.
//!
//! Everything that can go wrong does: messages are lost, doubled and reordered; writes land late, out of order, and after
//! their sender has died; senders fail and restart; requests are cancelled. The world knows which lease each
//! slot is under, from what the owner says, and holds every write that lands against that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use baton::desc::SessionId;
use baton::proto::grant::{
    Action, Admission, Health, HolderPhase, Loss, Pool, PoolLimits, RequestId, Slot, SlotPhase, ToHolder,
    ToOwner,
};

use super::sender::{Chunk, Sender, Stamp};
use crate::chance::Chance;

/// Slots of the pool.
const SLOTS: u32 = 4;
/// Chunks of a slot, each written by one operation.
pub const CHUNKS: u64 = 4;
const SENDERS: usize = 3;
const OWNER: SessionId = SessionId([0xFF; 16]);
/// Within this time a question is asked again and answered, where nothing is lost.
const ANSWERED_WITHIN: Duration = Duration::from_millis(600);
/// Rounds after which everything must have come to rest.
const ROUNDS_MAX: usize = 400;

/// Who puts the bytes into the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The senders, one-sided: what was posted lands, whatever the owner thinks of it.
    OneSided,
    /// The owner, which looks at each frame first.
    Checked,
}

/// A lease as the world knows it.
#[derive(Clone, Copy, Debug)]
struct Lease {
    session: SessionId,
    request: RequestId,
    generation: u32,
    sealed: Option<u64>,
    ended: bool,
}

/// All of it.
#[derive(Debug)]
pub struct World {
    chance: Chance,
    lane: Lane,
    now: Instant,
    pool: Pool,
    senders: Vec<Sender>,
    /// Who died, with writes of theirs that may still land.
    dead: BTreeSet<SessionId>,
    to_senders: Vec<(SessionId, ToHolder)>,
    to_owner: Vec<(SessionId, ToOwner)>,
    /// Posted and not landed.
    flying: Vec<Chunk>,
    memory: Vec<[Option<Stamp>; CHUNKS as usize]>,
    leases: BTreeMap<u32, Lease>,
    /// Requests that asked, and slots that are owed to each: granted ones that have not ended, and wanted ones.
    open: BTreeMap<(SessionId, RequestId), u32>,
    health: Health,
    /// Since when nothing is lost any more.
    healed: Option<Instant>,
    last_generation: u32,
    requests: u64,
    sessions: u8,
    /// Leases that were committed and read.
    pub read: u64,
}

impl World {
    /// A pool with all slots free, and senders that have just started.
    pub fn new(lane: Lane, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let limits = PoolLimits {
            waiters: 3,
            wait: Duration::from_secs(3),
            lease: Duration::from_secs(2),
            proof: Duration::from_secs(1),
            degraded_above: 1,
            failed_above: 2,
            last_generation: if chance.percent(20) { 3 } else { u32::MAX },
            ..PoolLimits::new(SLOTS, CHUNKS)
        };
        let mut world = Self {
            chance,
            lane,
            now: Instant::now(),
            pool: Pool::new(limits),
            senders: Vec::new(),
            dead: BTreeSet::new(),
            to_senders: Vec::new(),
            to_owner: Vec::new(),
            flying: Vec::new(),
            memory: vec![[None; CHUNKS as usize]; SLOTS as usize],
            leases: BTreeMap::new(),
            open: BTreeMap::new(),
            health: Health::Sound,
            healed: None,
            last_generation: limits.last_generation,
            requests: 0,
            sessions: 0,
            read: 0,
        };
        (0..SENDERS).for_each(|_| world.start_sender());
        world
    }

    /// One thing happens. `choice` says what, chance says to whom.
    pub fn step(&mut self, choice: u8) {
        match choice % 32 {
            0..=3 => self.ask(),
            4 => self.cancel(),
            5..=9 => self.deliver_to_sender(),
            10..=14 => self.deliver_to_owner(),
            15..=20 => self.work(),
            21..=24 => self.land(),
            25 | 26 => self.drain(),
            27 => self.spoil(),
            28 if self.chance.percent(40) => self.fail_a_sender(),
            29 if self.chance.percent(20) => self.kill(),
            28 | 29 => self.prove(),
            _ => {
                self.now += Duration::from_millis(self.chance.within(1..200) as u64);
                self.pool.handle_timeout(self.now);
            }
        }
        self.look();
    }

    /// The wires heal, everything that is on its way arrives, and nobody asks for more: then all must end.
    pub fn settle(&mut self) {
        self.senders.iter_mut().for_each(Sender::hurry);
        self.healed = Some(self.now);
        let at_rest = (0..ROUNDS_MAX).any(|_| {
            while !self.to_senders.is_empty() {
                self.deliver_to_sender();
            }
            while !self.to_owner.is_empty() {
                self.deliver_to_owner();
            }
            for _ in 0..SENDERS * 4 {
                self.work();
            }
            while !self.flying.is_empty() {
                self.land();
            }
            self.drain();
            self.now += Duration::from_millis(100);
            self.pool.handle_timeout(self.now);
            self.look();
            self.is_at_rest()
        });
        if !at_rest {
            fail("hang", format!("not at rest: {:?}\n{:?}\n{:?}", self.open, self.pool, self.senders));
        }
        self.check_over();
    }

    fn is_at_rest(&self) -> bool {
        let tally = self.pool.tally();
        let out = [SlotPhase::Granted, SlotPhase::Revoking, SlotPhase::Sealed].map(|phase| tally.of(phase));
        self.to_senders.is_empty() && self.to_owner.is_empty() && out == [0; 3] && self.pool.waiting() == 0
    }

    /// At rest, only what the dead held is missing; and what is proved of them gives it back.
    fn check_over(&mut self) {
        if let Some((request, owed)) = self.open.iter().find(|(_, owed)| **owed > 0) {
            fail("hang", format!("{request:?} is still owed {owed} slots"));
        }
        for index in 0..SLOTS {
            let (_, phase) = self.pool.slot(index).expect("a slot of the pool");
            let holder = self.leases.get(&index).map(|lease| lease.session);
            let dead = holder.is_some_and(|session| self.dead.contains(&session));
            if phase == SlotPhase::Quarantined && !dead {
                fail("leak", format!("slot {index} is quarantined, and {holder:?} is alive"));
            }
        }
        for session in std::mem::take(&mut self.dead) {
            self.pool.handle_quiet(session, self.now);
        }
        self.look();
        let tally = self.pool.tally();
        let back = tally.of(SlotPhase::Free) + tally.of(SlotPhase::Retired);
        if back != SLOTS || self.pool.health() != Health::Sound {
            fail("leak", format!("{back} of {SLOTS} slots came back: {:?}", self.pool));
        }
    }

    fn start_sender(&mut self) {
        self.sessions += 1;
        self.senders.push(Sender::new(SessionId([self.sessions; 16]), OWNER));
    }

    fn ask(&mut self) {
        let at = self.chance.within(0..self.senders.len());
        let session = self.senders[at].session;
        let slots = self.chance.within(1..4) as u32;
        self.requests += 1;
        let request = RequestId(self.requests);
        match self.pool.ask(session, request, slots, self.now) {
            Ok(Admission::Granted | Admission::Waiting { .. }) => {
                self.open.insert((session, request), slots);
                self.senders[at].requests.push(request);
            }
            Ok(Admission::Full) | Err(_) => {}
        }
    }

    fn cancel(&mut self) {
        let open: Vec<_> = self.open.iter().filter(|(_, owed)| **owed > 0).map(|(key, _)| *key).collect();
        if !open.is_empty() {
            let (session, request) = self.chance.pick(&open);
            self.pool.cancel(session, request, self.now);
        }
    }

    fn deliver_to_sender(&mut self) {
        if self.to_senders.is_empty() {
            return;
        }
        let at = self.chance.within(0..self.to_senders.len());
        let (to, message) = self.to_senders.swap_remove(at);
        if let Some(sender) = self.senders.iter_mut().find(|sender| sender.session == to) {
            sender.holdings.handle(OWNER, message);
        }
    }

    fn deliver_to_owner(&mut self) {
        if self.to_owner.is_empty() {
            return;
        }
        let at = self.chance.within(0..self.to_owner.len());
        let (from, message) = self.to_owner.swap_remove(at);
        self.pool.handle(from, message, self.now);
    }

    /// A sender does a piece of its work.
    fn work(&mut self) {
        let at = self.chance.within(0..self.senders.len());
        let posted = self.senders[at].work(&mut self.chance);
        self.flying.extend(posted);
    }

    /// A posted write lands, any of them, and its sender is told some time later.
    fn land(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.chance.within(0..self.flying.len());
        let chunk = self.flying.swap_remove(at);
        let Stamp { session, slot, .. } = chunk.stamp;
        if self.lane == Lane::OneSided || self.pool.admits(session, slot) {
            self.check_landing(&chunk);
            self.memory[slot.index as usize][chunk.at as usize] = Some(chunk.stamp);
        }
        if let Some(sender) = self.senders.iter_mut().find(|sender| sender.session == session) {
            sender.landed.push(slot);
        }
    }

    /// No byte of one lease in a slot that is under another one, or under none.
    fn check_landing(&self, chunk: &Chunk) {
        let Stamp { session, request, slot, .. } = chunk.stamp;
        let open = matches!(
            self.pool.slot(slot.index),
            Some((_, SlotPhase::Granted | SlotPhase::Revoking | SlotPhase::Quarantined))
        );
        let lease = self.leases.get(&slot.index);
        let own = lease.is_some_and(|lease| {
            (lease.session, lease.request, lease.generation) == (session, request, slot.generation)
        });
        if !open || !own {
            let phase = self.pool.slot(slot.index);
            fail("late write", format!("{chunk:?} lands in a slot that is {phase:?}, leased to {lease:?}"));
        }
    }

    /// The owner reads what is sealed.
    fn drain(&mut self) {
        let sealed = |(index, lease): (&u32, &Lease)| {
            let slot = Slot { index: *index, generation: lease.generation };
            lease.sealed.is_some().then_some(slot)
        };
        let sealed: Vec<_> = self.leases.iter().filter_map(sealed).collect();
        for slot in sealed {
            self.check_sealed(slot);
            self.read += 1;
            if let Some(lease) = self.leases.get_mut(&slot.index) {
                lease.sealed = None;
            }
            if !self.pool.drained(slot, self.now) {
                fail("reuse", format!("{slot} was being read, and is {:?}", self.pool.slot(slot.index)));
            }
            self.look();
        }
    }

    /// What is committed is whole, and of that lease.
    fn check_sealed(&self, slot: Slot) {
        let Some(Lease { session, request, sealed: Some(bytes), .. }) = self.leases.get(&slot.index) else {
            return;
        };
        let chunks = &self.memory[slot.index as usize][..*bytes as usize];
        let of_it = |stamp: &Option<Stamp>| {
            stamp.is_some_and(|s| (s.session, s.request, s.slot) == (*session, *request, slot))
        };
        if !chunks.iter().all(of_it) {
            fail("torn commit", format!("{slot} is committed for request {request}, and holds {chunks:?}"));
        }
    }

    /// The wire loses, or doubles; or somebody lies.
    fn spoil(&mut self) {
        let chance = &mut self.chance;
        match chance.within(0..5) {
            0 => drop_one(chance, &mut self.to_senders),
            1 => drop_one(chance, &mut self.to_owner),
            2 => double_one(chance, &mut self.to_senders),
            3 => double_one(chance, &mut self.to_owner),
            _ => self.lie(),
        }
    }

    /// A sender speaks of a lease that is not its own.
    fn lie(&mut self) {
        let sessions: Vec<_> = self.senders.iter().map(|sender| sender.session).collect();
        let liar = self.chance.pick(&sessions);
        let index = self.chance.within(0..SLOTS as usize) as u32;
        if let Some(lease) = self.leases.get(&index).filter(|lease| lease.session != liar) {
            let slot = Slot { index, generation: lease.generation };
            let bytes = self.chance.within(0..CHUNKS as usize + 2) as u64;
            self.to_owner.push((liar, ToOwner::Commit { slot, bytes }));
        }
    }

    fn fail_a_sender(&mut self) {
        let at = self.chance.within(0..self.senders.len());
        self.senders[at].fail(&mut self.chance);
    }

    /// A sender dies. What it posted may land as long as nobody has proved otherwise; what it said may arrive.
    fn kill(&mut self) {
        let at = self.chance.within(0..self.senders.len());
        let Sender { session, .. } = self.senders.swap_remove(at);
        self.start_sender();
        match self.lane {
            Lane::OneSided => {
                self.pool.handle_lost(session, self.now);
                self.dead.insert(session);
            }
            Lane::Checked => self.pool.handle_quiet(session, self.now),
        }
    }

    /// The fabric has closed the endpoint of a dead one: nothing of it is under way any more.
    fn prove(&mut self) {
        let dead: Vec<_> = self.dead.iter().copied().collect();
        if !dead.is_empty() {
            let session = self.chance.pick(&dead);
            self.dead.remove(&session);
            self.flying.retain(|chunk| chunk.stamp.session != session);
            self.pool.handle_quiet(session, self.now);
        }
    }

    /// Carries out what both sides want, and looks at the books.
    fn look(&mut self) {
        while let Some(action) = self.pool.poll_action() {
            self.carry_out(action);
        }
        for sender in &mut self.senders {
            let session = sender.session;
            let messages = std::iter::from_fn(|| sender.holdings.poll_message());
            self.to_owner.extend(messages.map(|(_, message)| (session, message)));
        }
        self.check_books();
    }

    fn check_books(&self) {
        let tally = self.pool.tally();
        let phases: Vec<_> = (0..SLOTS).filter_map(|index| self.pool.slot(index)).collect();
        for phase in SlotPhase::ALL {
            let count = phases.iter().filter(|(_, other)| other == phase).count();
            if count != tally.of(*phase) as usize || tally.all() != SLOTS {
                fail("books", format!("{count} slots are {phase:?}, the books say {tally:?}"));
            }
        }
        let quarantined = tally.of(SlotPhase::Quarantined);
        let expected = [Health::Sound, Health::Sound, Health::Degraded].get(quarantined as usize);
        if self.health != *expected.unwrap_or(&Health::Failed) {
            fail("books", format!("{quarantined} are quarantined, and the pool says {:?}", self.health));
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Say(to, message) => {
                if let ToHolder::Grant { slot, request } = message {
                    self.leased(to, slot, request);
                }
                self.to_senders.push((to, message));
            }
            Action::Sealed { session, request, slot, bytes } => {
                self.ended((session, request), slot).sealed = Some(bytes);
                self.check_sealed(slot);
            }
            Action::Lost { session, request, slot, why } => {
                self.ended((session, request), slot);
                if why == Loss::Expired {
                    self.check_expired(session, slot);
                }
            }
            Action::Unserved { session, request, slots, .. } => self.pay((session, request), slots),
            Action::Health(health) => self.health = health,
        }
    }

    /// A grant is said: of a new lease, or once more.
    fn leased(&mut self, session: SessionId, slot: Slot, request: RequestId) {
        let fresh = Lease { session, request, generation: slot.generation, sealed: None, ended: false };
        if let Some(old) = self.leases.get(&slot.index) {
            let same = (old.session, old.request, old.generation) == (session, request, slot.generation);
            if same && !old.ended {
                return;
            }
            if slot.generation <= old.generation || !old.ended || old.sealed.is_some() {
                fail("generation", format!("{slot} is granted to {session:?} for {request} after {old:?}"));
            }
        }
        if slot.generation > self.last_generation {
            fail("generation", format!("{slot} is granted beyond the last"));
        }
        self.leases.insert(slot.index, fresh);
    }

    /// A lease has ended at its owner: once.
    fn ended(&mut self, key: (SessionId, RequestId), slot: Slot) -> &mut Lease {
        self.pay(key, 1);
        match self.leases.get_mut(&slot.index) {
            Some(lease) if lease.generation == slot.generation && !lease.ended => {
                lease.ended = true;
                lease
            }
            other => fail("ended twice", format!("{slot}, request {}: {other:?}", key.1)),
        }
    }

    /// A lease may expire for want of a COMMIT only while messages are lost.
    fn check_expired(&self, session: SessionId, slot: Slot) {
        let sender = self.senders.iter().find(|sender| sender.session == session);
        let holding = sender.and_then(|sender| sender.holdings.phase(OWNER, slot.index));
        let committed = holding == Some((slot.generation, HolderPhase::Committed));
        let heard = self.healed.is_some_and(|since| self.now > since + ANSWERED_WITHIN);
        if committed && heard {
            fail("lost answer", format!("{slot} expires, and its sender has committed it"));
        }
    }

    /// One slot less is owed to a request.
    fn pay(&mut self, key: (SessionId, RequestId), slots: u32) {
        match self.open.get_mut(&key).map(|owed| owed.checked_sub(slots).map(|rest| *owed = rest)) {
            Some(Some(())) => {}
            other => fail("ended twice", format!("{slots} slots too many of {key:?}: {other:?}")),
        }
    }
}

/// Ends the run with the name of the check that failed.
fn fail(check: &str, text: String) -> ! {
    panic!("[{check}] {text}");
}

fn drop_one<T>(chance: &mut Chance, queue: &mut Vec<T>) {
    if !queue.is_empty() {
        queue.swap_remove(chance.within(0..queue.len()));
    }
}

fn double_one<T: Clone>(chance: &mut Chance, queue: &mut Vec<T>) {
    if !queue.is_empty() {
        queue.push(chance.pick(queue));
    }
}
