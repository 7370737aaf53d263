//! The moving parts of an agent, under one lock: endpoint, fabrics, control streams. [`Core::drive`] is the
//! only thing that makes them move; it never blocks.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::desc::{PeerKey, RegionKey, TransferId};
use crate::fabric::{Batch, Fabric, Link, Pinning, Posted};
use crate::proto::endpoint::{Action, CROSSED, Endpoint, TICK};
use crate::proto::section::AnnouncedRegion;
use crate::proto::transfer::TransferError;

use super::control::{ControlStream, Intake};
use super::inbox::Inbox;
use super::lobby::{Arrival, Lobby};
use super::progress::STEP_BYTES;
use super::regions::Registered;
use super::registration::Quarantine;
use super::signal::Signal;
use super::sockets::timespec;
use super::tap::Tap;
use super::transfer::Outcome;

/// See the [module](self).
pub(super) struct Core {
    pub endpoint: Endpoint,
    pub fabrics: Vec<Box<dyn Fabric>>,
    /// What pins memory for the fabrics; gone when the agent is shut down.
    pub pinnings: Vec<Arc<dyn Pinning>>,
    pub registered: Registered,
    pub quarantine: Quarantine,
    pub transfers: HashMap<TransferId, Outcome>,
    /// Why streams that somebody is waiting for have closed.
    pub farewells: HashMap<PeerKey, Option<String>>,
    streams: HashMap<PeerKey, ControlStream>,
    lobby: Lobby,
    /// Batches that a fabric handed back, by lane.
    handed_back: VecDeque<(usize, PeerKey, Batch)>,
    broken: Vec<(PeerKey, String)>,
    inbox: Arc<Inbox>,
    signal: Arc<Signal>,
    next_tick: Instant,
    /// Whether transfers are under way: what pollers look at before they lend a hand.
    busy: Arc<AtomicBool>,
    /// Ends a park on the epoll handle.
    waker: Arc<OwnedFd>,
    /// Last: a closed socket leaves the epoll set by itself.
    epoll: OwnedFd,
}

/// What an epoll event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Waker,
    Fabric,
    Lobby(u32),
    Peer(PeerKey),
}

const EVENTS_PER_DRIVE: usize = 64;
/// Reads from one control stream before the next one's turn.
const READS_PER_TURN: usize = 4;

impl Core {
    pub fn new(
        endpoint: Endpoint,
        fabrics: Vec<Box<dyn Fabric>>,
        lobby: Lobby,
        inbox: Arc<Inbox>,
        signal: Arc<Signal>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        watch(&epoll, &*waker, Source::Waker, false)?;
        for (token, listener) in lobby.listeners() {
            watch(&epoll, listener, Source::Lobby(token), false)?;
        }
        for fd in fabrics.iter().filter_map(|fabric| fabric.wake()) {
            watch(&epoll, fd, Source::Fabric, false)?;
        }
        Ok(Self {
            endpoint,
            pinnings: fabrics.iter().filter_map(|fabric| fabric.pinning()).collect(),
            fabrics,
            registered: Registered::default(),
            quarantine: Quarantine::default(),
            transfers: HashMap::new(),
            farewells: HashMap::new(),
            streams: HashMap::new(),
            lobby,
            handed_back: VecDeque::new(),
            broken: Vec::new(),
            inbox,
            signal,
            next_tick: Instant::now(),
            busy: Arc::default(),
            waker,
            epoll,
        })
    }

    /// The handle that becomes readable when [`Core::drive`] has something to do.
    pub fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// The handle that, when written to, ends a park on [`Core::epoll`]. Whoever parks empties it.
    pub fn waker(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.waker)
    }

    /// Whether transfers are under way, as of the last drive.
    pub fn busy(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.busy)
    }

    /// Whether any stream is open.
    pub fn has_peers(&self) -> bool {
        !self.streams.is_empty() || !self.lobby.is_idle()
    }

    /// Takes over a socket that was dialed for `key`; forgets the peer where it cannot be watched.
    pub fn adopt(&mut self, key: PeerKey, socket: OwnedFd) -> io::Result<()> {
        let adopted = self.insert_stream(key, ControlStream::new(socket));
        if let Err(error) = &adopted {
            self.let_go(key, &error.to_string());
        }
        adopted
    }

    /// One bounded step of everything. Returns whether anything happened.
    pub fn drive(&mut self, now: Instant) -> bool {
        let mut worked = self.poll_sockets(now);
        worked |= self.poll_fabrics(now);
        worked |= self.act(now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.endpoint.handle_timeout(now);
            if self.lobby.expire(now) {
                self.watch_listeners(epoll::EventFlags::IN);
            }
            worked |= self.act(now);
        }
        self.busy.store(self.endpoint.is_busy(), Ordering::Release);
        worked
    }

    /// Says goodbye to everybody and lets go of every socket and fabric.
    pub fn close(&mut self) {
        let now = Instant::now();
        self.endpoint.close_all();
        let _ = self.act(now); // nobody drives after this
        for (_, outcome) in self.transfers.drain() {
            let _ = outcome.set(Err(TransferError::Shutdown)); // nobody who waits for one waits for ever
        }
        self.lobby = Lobby::default();
        self.fabrics.clear();
        self.pinnings.clear();
    }

    /// Makes every fabric forget these regions of ours.
    pub fn deregister_below(&mut self, keys: &[RegionKey]) {
        for fabric in &mut self.fabrics {
            keys.iter().for_each(|key| fabric.deregister(*key));
        }
    }

    fn poll_sockets(&mut self, now: Instant) -> bool {
        let mut buffer = [MaybeUninit::uninit(); EVENTS_PER_DRIVE];
        let at_once = timespec(Duration::ZERO);
        // An interrupted wait finds nothing; the next drive looks again.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut buffer[..], Some(&at_once)) else { return false };
        let mut worked = false;
        for event in events {
            match Source::from_data(event.data.u64()) {
                Source::Waker | Source::Fabric => {}
                Source::Lobby(token) => worked |= self.serve_lobby(token, now),
                Source::Peer(key) => worked |= self.serve_stream(key, event.flags, now),
            }
        }
        worked
    }

    fn serve_lobby(&mut self, token: u32, now: Instant) -> bool {
        let blob = || self.endpoint.blob().encode();
        for arrival in self.lobby.serve(token, now, blob) {
            match arrival {
                Arrival::Agent(stream, hello) => self.welcome(stream, &hello, now),
                Arrival::Guest(token) => {
                    let watched = self
                        .lobby
                        .guest(token)
                        .map(|guest| watch(&self.epoll, guest, Source::Lobby(token), false));
                    if let Some(Err(error)) = watched {
                        tracing::warn!(%error, "an incoming connection cannot be watched");
                    }
                }
                Arrival::Served(token) => {
                    let flags = flags(self.lobby.is_blocked(token));
                    if let Some(guest) = self.lobby.guest(token)
                        && let Err(error) =
                            epoll::modify(&self.epoll, guest, Source::Lobby(token).data(), flags)
                    {
                        tracing::warn!(%error, "a connection that asks for our blob cannot be watched");
                    }
                }
                Arrival::Rest => self.watch_listeners(epoll::EventFlags::empty()),
            }
        }
        true
    }

    fn watch_listeners(&self, flags: epoll::EventFlags) {
        for (token, listener) in self.lobby.listeners() {
            if let Err(error) = epoll::modify(&self.epoll, listener, Source::Lobby(token).data(), flags) {
                tracing::error!(%error, "a listening socket cannot be watched: peers may fail to connect");
            }
        }
    }

    fn welcome(&mut self, stream: ControlStream, hello: &[u8], now: Instant) {
        let _ = epoll::delete(&self.epoll, &stream); // the lobby's watch; it comes back under its own key
        let Some(key) = self.endpoint.open_accepted(now) else {
            tracing::warn!("an incoming connection was closed: there are too many peers already");
            return;
        };
        if let Err(error) = self.insert_stream(key, stream) {
            self.broken.push((key, error.to_string()));
        }
        self.endpoint.handle_frame(key, hello, now);
        self.take_frames(key, now);
    }

    fn insert_stream(&mut self, key: PeerKey, stream: ControlStream) -> io::Result<()> {
        watch(&self.epoll, &stream, Source::Peer(key), false)?;
        self.streams.insert(key, stream);
        Ok(())
    }

    fn serve_stream(&mut self, key: PeerKey, flags: epoll::EventFlags, now: Instant) -> bool {
        if flags.contains(epoll::EventFlags::OUT) {
            self.write_stream(key, &[]);
        }
        if flags == epoll::EventFlags::OUT {
            return true;
        }
        for _ in 0..READS_PER_TURN {
            let Some(stream) = self.streams.get_mut(&key) else { return true };
            let intake = stream.fill();
            self.take_frames(key, now);
            match intake {
                Ok(Intake::Some) => {}
                Ok(Intake::Nothing) => break,
                Ok(Intake::Closed) => {
                    self.broken.push((key, "its process closed the connection or ended".into()));
                    break;
                }
                Err(error) => {
                    self.broken.push((key, format!("its connection broke: {error}")));
                    break;
                }
            }
        }
        true
    }

    /// Hands every whole frame to the endpoint.
    fn take_frames(&mut self, key: PeerKey, now: Instant) {
        let Some(mut stream) = self.streams.remove(&key) else { return };
        loop {
            match stream.next_frame() {
                Ok(Some(frame)) => self.endpoint.handle_frame(key, frame, now),
                Ok(None) => break,
                Err(error) => {
                    self.broken.push((key, error.to_string()));
                    break;
                }
            }
        }
        self.streams.insert(key, stream);
    }

    fn poll_fabrics(&mut self, now: Instant) -> bool {
        let mut worked = false;
        for fabric in &mut self.fabrics {
            let lane = fabric.name();
            let mut tap = Tap::new(&mut self.endpoint, lane, now);
            worked |= fabric.poll(STEP_BYTES, &mut tap);
        }
        for _ in 0..self.handed_back.len() {
            let Some((lane, peer, batch)) = self.handed_back.pop_front() else { break };
            self.post(lane, peer, batch, now);
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
                self.let_go(key, &reason);
            }
        }
    }

    fn carry_out(&mut self, action: Action, now: Instant) {
        match action {
            Action::Link { peer, link_id } => self.link(peer, link_id),
            Action::Import { peer, announced } => self.import(peer, &announced),
            Action::Withdraw { peer, region } => {
                for fabric in &mut self.fabrics {
                    let _ = fabric.import(peer, &region, None); // withdrawing what was never there is no error
                }
            }
            Action::Post { peer, lane, token, op, segments, header } => {
                self.post(lane, peer, Batch { token, op, segments, header }, now);
            }
            Action::Deliver { peer, message } => {
                if !self.inbox.put(peer.clone(), message) {
                    tracing::error!(peer, "its notifications are not being read and have filled the inbox");
                    self.endpoint.handle_undelivered(&peer);
                }
                self.signal.raise();
            }
            Action::Ended { id, outcome } => {
                if let Err(error) = &outcome {
                    tracing::warn!(transfer = %id, %error, "transfer failed");
                }
                if let Some(cell) = self.transfers.remove(&id) {
                    let _ = cell.set(outcome); // invariant: an end is told once
                }
                self.signal.raise();
            }
            Action::Up { peer } => {
                if let Some(stream) = self.streams.get_mut(&peer) {
                    stream.handshake_is_over();
                }
                self.signal.raise();
            }
            Action::Silent { peer, silent_ms } => {
                let name = self.endpoint.peer(peer).map_or("", |peer| peer.name());
                tracing::warn!(peer = name, silent_ms, "nothing has been heard of the peer");
            }
            Action::Stalled(stall) => super::stall::warn(&self.endpoint, &stall),
            Action::Close { peer, reason } => {
                let goodbye = self.endpoint.poll_output(peer, now);
                self.write_stream(peer, &goodbye);
                self.let_go(peer, &reason);
            }
        }
    }

    fn link(&mut self, key: PeerKey, link_id: [u8; 16]) {
        let credentials = self.streams.get(&key).and_then(ControlStream::credentials);
        let Some(section) = self.endpoint.peer(key).and_then(|peer| peer.section()) else { return };
        for fabric in &mut self.fabrics {
            if let Some(theirs) = section.fabrics.iter().find(|theirs| theirs.name == fabric.name()) {
                fabric.connect(key, Link { address: theirs.address.clone(), link_id, credentials });
            }
        }
    }

    fn import(&mut self, key: PeerKey, announced: &AnnouncedRegion) {
        let Some(section) = self.endpoint.peer(key).and_then(|peer| peer.section()) else { return };
        for their_key in &announced.keys {
            let name = section.fabrics.get(usize::from(their_key.fabric)).map(|fabric| fabric.name.as_str());
            let Some(fabric) = self.fabrics.iter_mut().find(|fabric| Some(fabric.name()) == name) else {
                continue;
            };
            if let Err(error) = fabric.import(key, &announced.region, Some(&their_key.bytes)) {
                let region = announced.region.span;
                tracing::warn!(peer = key.0, %region, %error, "a region of the peer cannot be reached");
            }
        }
    }

    fn post(&mut self, lane: usize, peer: PeerKey, batch: Batch, now: Instant) {
        let token = batch.token;
        let Some(fabric) = self.fabrics.get_mut(lane) else {
            return self.endpoint.handle_completed(token, Err("the agent was shut down".into()), now);
        };
        match fabric.post(peer, batch) {
            Ok(Posted::Accepted) => {}
            Ok(Posted::Full(batch)) => self.handed_back.push_back((lane, peer, batch)),
            Err(error) => self.endpoint.handle_completed(token, Err(error.to_string()), now),
        }
    }

    fn write_streams(&mut self, now: Instant) -> bool {
        let keys: Vec<_> = self.endpoint.peers_with_output().collect();
        let mut wrote = false;
        for key in keys {
            if self.streams.get(&key).is_some_and(ControlStream::has_room) {
                let bytes = self.endpoint.poll_output(key, now);
                self.write_stream(key, &bytes);
                wrote = true;
            }
        }
        wrote
    }

    fn write_stream(&mut self, key: PeerKey, bytes: &[u8]) {
        let Some(stream) = self.streams.get_mut(&key) else { return };
        let was_blocked = stream.is_blocked();
        if let Err(error) = stream.send(bytes) {
            self.broken.push((key, format!("its connection broke: {error}")));
        } else if stream.is_blocked() != was_blocked {
            let (flags, data) = (flags(stream.is_blocked()), Source::Peer(key).data());
            if let Err(error) = epoll::modify(&self.epoll, &*stream, data, flags) {
                self.broken.push((key, format!("its connection cannot be watched: {error}")));
            }
        }
    }

    /// Lets every fabric go of the peer, then tells the endpoint.
    fn let_go(&mut self, key: PeerKey, reason: &str) {
        let Some(peer) = self.endpoint.peer(key) else { return };
        let (name, loaded) = (peer.name(), peer.is_loaded());
        match loaded {
            _ if reason == CROSSED => tracing::debug!(peer = name, "stream gave way to the peer's"),
            true => tracing::warn!(peer = name, reason, "peer lost"),
            false => tracing::info!(peer = name, reason, "stream closed"),
        }
        self.fabrics.iter_mut().for_each(|fabric| fabric.disconnect(key));
        self.handed_back.retain(|(_, peer, _)| *peer != key);
        self.streams.remove(&key);
        self.endpoint.handle_closed(key, reason);
        if let Some(farewell) = self.farewells.get_mut(&key) {
            *farewell = Some(reason.into());
        }
        self.signal.raise();
    }
}

impl Source {
    fn data(self) -> epoll::EventData {
        epoll::EventData::new_u64(match self {
            Self::Waker => 0,
            Self::Fabric => 1,
            Self::Lobby(token) => 1 << 32 | u64::from(token),
            Self::Peer(key) => 2 << 32 | u64::from(key.0),
        })
    }

    fn from_data(data: u64) -> Self {
        match (data >> 32, data as u32) {
            (0, 0) => Self::Waker,
            (1, token) => Self::Lobby(token),
            (2, key) => Self::Peer(PeerKey(key)),
            _ => Self::Fabric,
        }
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn watch(epoll: &OwnedFd, fd: impl AsFd, source: Source, write: bool) -> io::Result<()> {
    Ok(epoll::add(epoll, fd, source.data(), flags(write))?)
}

fn flags(write: bool) -> epoll::EventFlags {
    if write { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN }
}
