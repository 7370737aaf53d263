//! The moving parts of an agent, under one lock: endpoint, fabrics, control streams. [`Core::drive`] is the
//! only thing that makes them move; it never blocks.

mod abandon;
mod door;
mod lanes;
mod parting;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::desc::{MemoryKind, PeerKey, TransferId};
use crate::device::Device;
use crate::fabric::{Batch, Bell, Fabric};
use crate::proto::endpoint::{Action, Endpoint, TICK};
use crate::proto::transfer::TransferError;
use crate::trust::Secret;

use super::Mishaps;
use super::control::ControlStream;
use super::crew::Crew;
use super::ghosts::Ghosts;
use super::inbox::Inbox;
use super::lobby::Lobby;
use super::marks::Marks;
use super::pollers::Pollers;
use super::regions::Registered;
use super::registration::{Pinner, Quarantine};
use super::signal::Signal;
use super::staging::Stock;
use super::transfer::Outcome;
use super::watch::{Interest, Ready, Source, Watch};

use self::lanes::LostLane;

/// Rounds of what a command brings that are its caller's to do; the progress thread does the rest.
const ROUNDS_AT_ONCE: usize = 16;
/// How soon whoever drives looks again, while something is being copied by those who may leave at any time.
const CREW_LOOK: Duration = Duration::from_millis(1);
/// Streams with frames left over that are served at a time.
const UNHEARD_AT_ONCE: usize = 64;

/// See the [module](self).
pub(super) struct Core {
    pub endpoint: Endpoint,
    pub fabrics: Vec<Box<dyn Fabric>>,
    /// Which of them the next drive polls: what is ready, what worked last time, what has been given something to do.
    due: Vec<bool>,
    /// A batch has been posted since the fabrics were last polled.
    has_posted: bool,
    /// As much was written for a peer at last as may wait: there may be more to say.
    has_unsaid: bool,
    /// Calls for another drive, where something is left over and nothing may come that would.
    again: Bell,
    /// Copies what the fabrics have queued.
    crew: Arc<Crew>,
    /// The progress thread knows that something is being copied, and looks at it soon.
    looks_at_crew: bool,
    /// Whom it leaves room.
    pollers: Arc<Pollers>,
    /// What pins memory for the fabrics; gone when the agent is shut down.
    pub pinners: Vec<Pinner>,
    pub registered: Registered,
    pub quarantine: Quarantine,
    pub ghosts: Ghosts,
    pub mishaps: Mishaps,
    pub marks: Marks,
    pub transfers: HashMap<TransferId, Outcome>,
    /// Why streams that somebody is waiting for have closed.
    pub farewells: HashMap<PeerKey, Option<String>>,
    streams: HashMap<PeerKey, ControlStream>,
    /// The processes at the other ends of streams on this host.
    processes: HashMap<PeerKey, OwnedFd>,
    pub(super) lobby: Lobby,
    /// Batches that a fabric handed back, by lane.
    handed_back: VecDeque<(usize, PeerKey, Batch)>,
    broken: Vec<(PeerKey, String)>,
    lost_lanes: Vec<LostLane>,
    /// Streams whose frames have been read and not all been handled.
    unheard: Vec<PeerKey>,
    inbox: Arc<Inbox>,
    signal: Arc<Signal>,
    /// What peers must have too.
    secret: Option<Arc<Secret>>,
    next_tick: Instant,
    /// Ends a park on the watch's handle.
    waker: Arc<OwnedFd>,
    watch: Watch,
    /// Those that a network card may write to.
    pub(super) gpus: Vec<Arc<Device>>,
    /// Behind the fabrics, which know it; none of a kind where it could not be had.
    pub(super) staging: BTreeMap<MemoryKind, Option<Stock>>,
}

/// Ends a park on the core's handle: the next look at `waker` finds it readable.
pub(super) fn wake(waker: &OwnedFd) {
    let _ = rustix::io::write(waker, &1u64.to_ne_bytes()); // full means that somebody is awake
}

impl Core {
    pub fn new(
        endpoint: Endpoint,
        fabrics: Vec<Box<dyn Fabric>>,
        lobby: Lobby,
        inbox: Arc<Inbox>,
        signal: Arc<Signal>,
        secret: Option<Arc<Secret>>,
        copiers: usize,
    ) -> io::Result<Self> {
        let watch = Watch::new()?;
        let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        watch.add(&*waker, Source::Waker, Interest::Read)?;
        let again = Bell::new()?;
        watch.add(&again, Source::Again, Interest::Read)?;
        for (token, listener) in lobby.listeners() {
            watch.add(listener, Source::Lobby(token), Interest::Read)?;
        }
        for (index, fd) in (0..).zip(&fabrics).filter_map(|(index, fabric)| Some((index, fabric.wake()?))) {
            watch.add(fd, Source::Fabric(index), Interest::Read)?;
        }
        let hands = fabrics.iter().filter_map(|fabric| fabric.hand()).collect();
        let pollers = Arc::<Pollers>::default();
        Ok(Self {
            endpoint,
            due: vec![true; fabrics.len()],
            looks_at_crew: false,
            has_posted: false,
            has_unsaid: false,
            again,
            crew: Arc::new(Crew::new(hands, Arc::clone(&pollers), copiers)),
            pollers,
            pinners: fabrics.iter().filter_map(|fabric| Pinner::of(&**fabric)).collect(),
            fabrics,
            registered: Registered::default(),
            quarantine: Quarantine::default(),
            ghosts: Ghosts::default(),
            mishaps: Mishaps::default(),
            marks: Marks::default(),
            transfers: HashMap::new(),
            farewells: HashMap::new(),
            streams: HashMap::new(),
            processes: HashMap::new(),
            lobby,
            handed_back: VecDeque::new(),
            broken: Vec::new(),
            lost_lanes: Vec::new(),
            unheard: Vec::new(),
            inbox,
            signal,
            secret,
            next_tick: Instant::now(),
            waker,
            watch,
            gpus: Vec::new(),
            staging: BTreeMap::new(),
        })
    }

    /// The handle that becomes readable when [`Core::drive`] has something to do.
    pub fn handle(&self) -> BorrowedFd<'_> {
        self.watch.handle()
    }

    /// The handle that, when written to, ends a park on [`Core::handle`]. Whoever parks empties it.
    pub fn waker(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.waker)
    }

    /// Those who drive by polling.
    pub fn pollers(&self) -> Arc<Pollers> {
        Arc::clone(&self.pollers)
    }

    /// Those who copy beside whoever drives.
    pub fn crew(&self) -> Arc<Crew> {
        Arc::clone(&self.crew)
    }

    /// By when there is something to do, though nothing becomes ready: nobody may park for longer. `None` while nobody
    /// is there.
    pub fn longest_park(&mut self) -> Option<Duration> {
        let has_peers = !self.streams.is_empty() || !self.lobby.is_idle();
        self.looks_at_crew = self.crew.is_busy();
        match self.looks_at_crew {
            true => Some(CREW_LOOK),
            false => has_peers.then_some(TICK),
        }
    }

    /// Takes over a stream that was dialed for `key`; forgets the peer where it cannot be watched.
    pub fn adopt(&mut self, key: PeerKey, stream: ControlStream) -> io::Result<()> {
        let adopted = self.insert_stream(key, stream);
        if let Err(error) = &adopted {
            self.let_go(key, &error.to_string());
        }
        adopted
    }

    /// One bounded step of everything. Returns whether anything happened. Whoever drives need not come again: what is
    /// left over calls for the progress thread.
    pub fn drive(&mut self, now: Instant) -> bool {
        let mut worked = self.poll_sockets(now);
        worked |= self.poll_fabrics(now);
        worked |= self.act_and_move(1, now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.due.fill(true);
            self.endpoint.handle_timeout(now);
            self.reclaim_slots(now);
            self.lobby.late(now).for_each(|guest| self.watch.forget(guest));
            if self.lobby.expire(now) {
                self.watch_listeners(Interest::Read);
            }
            worked |= self.act(now);
        }
        self.call_others();
        worked
    }

    /// Carries out what a command of the host's brings, as far as that takes no time, and looks at nothing that has come.
    pub fn carry_on(&mut self, now: Instant) {
        self.carry_on_for(ROUNDS_AT_ONCE, now);
    }

    fn carry_on_for(&mut self, rounds: usize, now: Instant) {
        self.act_and_move(rounds, now);
        self.call_others();
    }

    /// Carries out what the endpoint wants, and takes a step with what has been posted with it: what is small is done at
    /// once, and told at once. Does that so often at most. Returns whether anything was wanted.
    fn act_and_move(&mut self, rounds: usize, now: Instant) -> bool {
        let mut acted = false;
        for _ in 0..rounds {
            if !self.act(now) {
                return acted;
            }
            acted = true;
            if !self.poll_fabrics(now) {
                return acted;
            }
        }
        self.act(now);
        true
    }

    /// Calls those who copy, and for another drive where something is left over: nothing may come that would.
    fn call_others(&mut self) {
        self.crew.call();
        if self.has_posted || self.has_unsaid {
            self.again.ring();
        }
        if !self.looks_at_crew && self.crew.is_busy() {
            self.looks_at_crew = true;
            wake(&self.waker);
        }
    }

    /// Says goodbye to everybody and lets go of every socket and fabric.
    pub fn close(&mut self) {
        let now = Instant::now();
        let has_regions = self.registered.len() > 0;
        self.ghosts.complain(&self.endpoint.identity().name, has_regions, &self.watch);
        self.endpoint.close_all();
        let _ = self.act(now); // nobody drives after this
        for (_, outcome) in self.transfers.drain() {
            let _ = outcome.set(Err(TransferError::Shutdown)); // nobody who waits for one waits for ever
        }
        self.marks.clear();
        self.registered = Registered::default();
        self.quarantine.clear();
        self.leave_lobby();
        self.fabrics.iter().filter_map(|fabric| fabric.wake()).for_each(|fd| self.watch.forget(fd));
        let closing = self.close_fabrics(); // one that panics has said so, and nobody is left to be told
        self.pinners.clear();
        self.free_staging(closing.have_closed);
    }

    fn poll_sockets(&mut self, now: Instant) -> bool {
        let mut worked = false;
        self.again.hush(|| false);
        let later = self.unheard.split_off(self.unheard.len().min(UNHEARD_AT_ONCE));
        for key in std::mem::replace(&mut self.unheard, later) {
            self.serve_stream(key, Ready { source: Source::Peer(key), readable: true, writable: false }, now);
            worked = true;
        }
        if !self.unheard.is_empty() {
            self.again.ring();
        }
        for ready in self.watch.ready() {
            match ready.source {
                Source::Waker | Source::Again => continue,
                Source::Fabric(index) => {
                    if let Some(due) = self.due.get_mut(index as usize) {
                        *due = true;
                    }
                    continue;
                }
                Source::Lobby(token) => self.serve_lobby(token, now),
                Source::Peer(key) => self.serve_stream(key, ready, now),
                Source::Process(key) => self.bury(key),
                Source::Ghost(key) => {
                    self.ghosts.hear(key, &self.watch);
                    self.signal.raise();
                }
            }
            worked = true;
        }
        worked
    }

    /// Carries out what the endpoint wants, until it wants nothing. Returns whether it wanted anything: written
    /// output makes room for more, so that whoever drives has to look again.
    fn act(&mut self, now: Instant) -> bool {
        let mut acted = false;
        loop {
            while let Some(action) = self.endpoint.poll_action(now) {
                self.carry_out(action, now);
                acted = true;
            }
            acted |= self.write_streams(now);
            if self.broken.is_empty() {
                return acted;
            }
            for (key, reason) in std::mem::take(&mut self.broken) {
                let _ = self.hear_out(key, now); // it is known to be broken
                while let Some(action) = self.endpoint.poll_action(now) {
                    self.carry_out(action, now); // a goodbye is the better reason
                }
                self.let_go(key, &reason);
            }
        }
    }

    fn carry_out(&mut self, action: Action, now: Instant) {
        let wakes = action.wakes();
        match action {
            Action::Link { peer, link_id } => self.link(peer, link_id),
            Action::Import { peer, announced } => self.import(peer, &announced),
            Action::Withdraw { peer, region } => {
                for fabric in self.lanes() {
                    let _ = fabric.import(peer, &region, None); // withdrawing what was never there is no error
                }
            }
            Action::Quieter => {} // nothing but that
            Action::Post { peer, lane, token, op, segments, header } => {
                self.post(lane, peer, Batch { token, op, segments, header }, now);
            }
            Action::Flush { peer } => self.flush_gpus(peer),
            Action::Deliver { peer, message } => {
                if !self.inbox.put(peer.clone(), message) {
                    tracing::error!(peer, "its notifications are not being read and have filled the inbox");
                    self.endpoint.handle_undelivered(&peer);
                }
            }
            Action::Committed { id } => self.marks.committed(id),
            Action::Ended { id, outcome } => {
                self.marks.ended(id);
                if let Err(error) = &outcome {
                    self.mishaps.transfers_failed += 1;
                    tracing::warn!(transfer = %id, %error, "transfer failed");
                }
                if let Some(cell) = self.transfers.remove(&id) {
                    let _ = cell.set(outcome); // invariant: an end is told once
                }
            }
            Action::Up { peer } => {
                if let Some(stream) = self.streams.get_mut(&peer) {
                    stream.handshake_is_over();
                }
                // Who comes by itself without a key only says which session it is.
                let is_known = self.farewells.contains_key(&peer)
                    || self.streams.get(&peer).is_some_and(ControlStream::is_secured);
                if let Some(session) =
                    self.endpoint.peer(peer).and_then(|peer| peer.session()).filter(|_| is_known)
                {
                    self.ghosts.lay(session, &self.watch);
                }
            }
            Action::Silent { peer, silent_ms } => {
                self.mishaps.silences += 1;
                let name = self.endpoint.peer(peer).map_or("", |peer| peer.name());
                tracing::warn!(peer = name, silent_ms, "nothing has been heard of the peer");
            }
            Action::Stalled(stall) => {
                self.mishaps.stalls += 1;
                super::stall::warn(&self.endpoint, &stall);
            }
            Action::Close { peer, reason } => {
                self.unlink(peer); // before the goodbye, which says that it is done
                let goodbye = self.endpoint.poll_output(peer, now);
                self.write_stream(peer, &goodbye);
                self.let_go(peer, &reason);
            }
        }
        if wakes {
            self.signal.raise();
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
