//! What one poll of a stream fabric does: events in, bytes moved, the sink told.
//!
//! Events decide (links come up, fail, end; connections become ready), then ready connections take turns
//! within the budget. Before and after that, copies of GPU memory that have ended are told of, and who waits for a slot
//! goes on. All branching on what is ready stands here; the leaves do not know of each other.

use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::copies::Ended;
use super::peer::Peer;
use super::readiness::Source;
use super::receiver::Memory;
use super::{StreamFabric, fault};
use crate::desc::PeerKey;
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::Sink;

/// One of the two connections of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Send(PeerKey),
    Receive(PeerKey),
}

impl Side {
    /// Whose it is.
    pub(super) fn peer(self) -> PeerKey {
        let (Self::Send(peer) | Self::Receive(peer)) = self;
        peer
    }

    /// The place of its direction where there is one for each.
    pub(super) fn index(self) -> usize {
        matches!(self, Self::Receive(_)).into()
    }
}

impl StreamFabric {
    /// One poll: news first, then what became ready, then bytes within the budget. Whether anything happened.
    pub(super) fn drive(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        let mut did = self.tell_news(sink);
        let mut events = std::mem::take(&mut self.events);
        if let Err(error) = self.readiness.ready(&mut events) {
            tracing::error!(%error, "epoll_wait failed: the stream fabric cannot see its sockets");
        }
        for (source, flags) in events.drain(..) {
            did |= self.dispatch(source, flags, sink);
        }
        self.events = events;
        did |= self.tend_copies(sink);
        self.move_bytes(budget_bytes, sink);
        did |= self.tend_copies(sink);
        self.watch_copies();
        did
    }

    /// Tells of copies that have ended, and lets those go on that wait for slots; whether anything happened.
    fn tend_copies(&mut self, sink: &mut dyn Sink) -> bool {
        let mut any = false;
        loop {
            while let Some(ended) = self.staging.ended() {
                any = true;
                self.on_copied(ended, sink);
            }
            let Some(next) = self.staging.next_in_line() else { return any };
            any = true;
            self.go_on(next, sink);
            // Whoever has got one has left the line, to stand at its end for another; this one wants none any more.
            if self.staging.next_in_line() == Some(next) {
                self.staging.leave_line(next);
            }
        }
    }

    fn on_copied(&mut self, ended: Ended, sink: &mut dyn Sink) {
        let side = ended.side;
        let Some(peer) = self.peers.get_mut(&side.peer()) else { return };
        match side {
            Side::Send(_) => peer.staged(ended),
            Side::Receive(_) => peer.copied(ended, sink),
        }
        self.go_on(side, sink);
    }

    /// One side of a link may have got what it has waited for.
    fn go_on(&mut self, side: Side, sink: &mut dyn Sink) {
        let key = side.peer();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let memory = &mut Memory {
            regions: &self.regions,
            workspace: &mut self.workspace,
            staging: &mut self.staging,
        };
        let can_move = match side {
            Side::Send(_) => peer.stage(memory, &self.readiness),
            Side::Receive(_) => peer.resume(memory, &self.readiness, sink),
        };
        match can_move {
            Ok(true) if !self.turns.contains(&side) => self.turns.push_back(side),
            Ok(_) => {}
            Err(error) => self.lose(key, error, sink),
        }
    }

    /// Sees to it that copies are looked at again, should the device not tell.
    pub(super) fn watch_copies(&mut self) {
        if self.staging.is_copying() {
            self.readiness.wake_by(Instant::now() + COPY_ALARM);
        }
    }

    fn tell_news(&mut self, sink: &mut dyn Sink) -> bool {
        let any = !self.news.is_empty();
        for (peer, outcome) in self.news.drain(..) {
            sink.connected(peer, outcome);
        }
        any
    }

    fn dispatch(&mut self, source: Source, flags: EventFlags, sink: &mut dyn Sink) -> bool {
        match source {
            Source::Timer => self.on_timer(sink),
            Source::Copies => {
                self.staging.hush();
                return false;
            }
            Source::UnixListener | Source::TcpListener => {
                self.listener.accept(source, &mut self.readiness, Instant::now());
            }
            Source::Caller(id) => self.on_caller(id, flags, sink),
            Source::Inbound(key) => self.turns.push_back(Side::Receive(key)),
            Source::Outbound(key) => return self.on_outbound(key, flags, sink),
        }
        true
    }

    fn on_timer(&mut self, sink: &mut dyn Sink) {
        let now = Instant::now();
        self.listener.expire(&self.readiness, now);
        let waiting = || self.peers.values().filter(|peer| !peer.announced);
        let late: Vec<_> = waiting().filter(|peer| peer.deadline <= now).map(|peer| peer.key).collect();
        for key in late {
            let missing = self.peers.get(&key).map_or("", Peer::missing);
            let within = self.config.connect_deadline.as_millis();
            let detail = format!("no link within {within} ms: {missing}");
            self.lose(key, fault::of_kind("connect", FabricErrorKind::Timeout, detail), sink);
        }
        let peers = self.peers.values().filter(|peer| !peer.announced).map(|peer| peer.deadline);
        self.readiness.rearm(peers.chain(self.listener.next_deadline()).min());
    }

    fn on_caller(&mut self, id: u32, flags: EventFlags, sink: &mut dyn Sink) {
        let Some(link_id) = self.listener.read_preface(id, &self.readiness) else {
            if flags.contains(EventFlags::HUP) {
                self.listener.dismiss(id);
            }
            return;
        };
        let Some(peer) = self.peers.values_mut().find(|peer| peer.link_id == link_id) else { return };
        let Some(socket) = self.listener.claim(link_id, peer.keys.as_deref()) else { return };
        let key = peer.key;
        match peer.attach(socket, &self.readiness) {
            Ok(()) => self.announce(key, sink),
            Err(error) => self.lose(key, error, sink),
        }
    }

    fn on_outbound(&mut self, key: PeerKey, flags: EventFlags, sink: &mut dyn Sink) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        if peer.is_dialing() {
            match peer.finish_dial(&self.readiness) {
                Ok(()) => self.announce(key, sink),
                Err(error) => self.lose(key, error, sink),
            }
            return true;
        }
        let ended = EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let alive = if flags.intersects(ended) { peer.outbound_ended() } else { Ok(()) };
        match alive.and_then(|()| peer.wants_to_send(&self.readiness)) {
            Ok(true) => self.turns.push_back(Side::Send(key)),
            Ok(false) => return false,
            Err(error) => self.lose(key, error, sink),
        }
        true
    }

    /// Tells the agent that a link is up, once both its connections are there.
    fn announce(&mut self, key: PeerKey, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.is_linked() && !peer.announced {
            peer.announced = true;
            tracing::debug!(peer = %key, carrier = peer.carrier(), "data link is up");
            sink.connected(key, Ok(()));
        }
    }

    /// Ends a link that failed, and tells the agent what of it will not happen.
    fn lose(&mut self, key: PeerKey, error: FabricError, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.remove(&key) else { return };
        let announced = peer.announced;
        let (tokens, tickets) = peer.close();
        self.staging.forget(key);
        if !announced {
            return sink.connected(key, Err(error));
        }
        for token in tokens {
            sink.completed(token, Err(error.clone()));
        }
        for ticket in tickets {
            sink.landed(key, ticket, Err(error.clone()));
        }
        sink.lost(key, error);
    }

    /// Lets the ready connections take turns until they or the budget are exhausted.
    fn move_bytes(&mut self, budget_bytes: u64, sink: &mut dyn Sink) {
        if let Some(first) = self.turns.iter().position(|side| Some(*side) == self.next_turn) {
            self.turns.rotate_left(first);
        }
        let mut left = budget_bytes.max(1);
        while left > 0
            && let Some(side) = self.turns.pop_front()
        {
            let key = side.peer();
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            let memory = &mut Memory {
                regions: &self.regions,
                workspace: &mut self.workspace,
                staging: &mut self.staging,
            };
            let most = left.min(TURN_BYTES);
            let turn = match side {
                Side::Send(_) => peer.send(memory, most, sink),
                Side::Receive(_) => peer.receive(memory, most, &self.readiness, sink),
            };
            match turn {
                Ok(turn) => {
                    left = left.saturating_sub(turn.bytes);
                    if turn.more {
                        self.turns.push_back(side);
                    }
                }
                Err(error) => self.lose(key, error, sink),
            }
        }
        self.next_turn = self.turns.front().copied();
        self.turns.clear();
    }
}

/// Most bytes of one turn. On loopback 512 KiB measured better than 128 or 256 KiB and no worse than 1 MiB.
const TURN_BYTES: u64 = 512 * 1024;
/// How long copies of GPU memory may have ended unnoticed: after some errors no device calls.
const COPY_ALARM: Duration = Duration::from_millis(10);
