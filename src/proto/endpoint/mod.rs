//! The endpoint: the one that owns every peer's machines and is driven from outside.
//!
//! It is deterministic. Times and random bytes are arguments; nothing blocks, logs or touches memory.
//!
//! # Calling it
//! * *getters* look;
//! * *commands* are what the host asks for ([`Endpoint::submit`], [`Endpoint::notify`], ...);
//! * *handle_\** take in what happened: frames, fabric events, time, broken streams;
//! * *poll_\** give out what is to be done. After any command or handle, call [`Endpoint::poll_action`] until
//!   it returns `None`, then [`Endpoint::poll_output`] for each peer that [`Endpoint::peers_with_output`]
//!   names, and [`Endpoint::handle_timeout`] every [`TICK`].
//!
//! The flows of the two ends of a transfer are in `outgoing` and `incoming`, those of gathered ones in `gathered` and their
//! slots in `staging` and `lending`, the handshake is in
//! `handshake`, what time brings is in `clock`, what is done about silence in `stall` and `ask`.

mod action;
mod ask;
mod clock;
mod counters;
mod events;
#[cfg(test)]
mod fence_tests;
mod flight;
mod flush;
mod gathered;
mod handshake;
mod incoming;
mod lanes;
mod lending;
#[cfg(test)]
mod many_tests;
mod outgoing;
mod peer;
mod regions;
mod requests;
mod routes;
#[cfg(test)]
mod slot_tests;
mod staging;
mod stall;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod window_tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::desc::{OpToken, PeerKey, RegionKey, SessionId, TransferId};
use crate::planted::{self, Planted};

use super::blob::Blob;
use super::plan::Plan;
use super::regions::RegionTable;
use super::section::Section;
use super::session::{Deadlines, SessionPhase};
use super::transfer::TransferError;
use super::wire::{Event, Frame};

pub use action::{Action, CommandError, Placement, Stall, Standing};
pub use clock::TICK;
pub use counters::{Counters, FlightInfo};
pub use handshake::{CROSSED, KEY_WANTED};
pub use lanes::{LaneSpec, PeerLanes, Unkeyed};
pub use outgoing::Submission;
pub use peer::Peer;
pub use routes::{Gathering, Route, Routes};
pub use staging::StagingSpec;

use self::flight::{Flight, FlightKind};
use self::staging::Staging;

/// Who we are, as peers see it. Its regions are kept up to date by the endpoint.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The agent's name.
    pub name: String,
    /// What our blob says.
    pub section: Section,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Endpoint {
    identity: Identity,
    lanes: Vec<LaneSpec>,
    deadlines: Deadlines,
    regions: Arc<RegionTable>,
    /// Those of them that some lane does not reach.
    unkeyed: Arc<Unkeyed>,
    /// Regions that one peer alone has been told of.
    told_to: HashMap<RegionKey, PeerKey>,
    peers: BTreeMap<PeerKey, Peer>,
    names: HashMap<String, PeerKey>,
    lost: HashMap<String, String>,
    /// By name, the sessions that our host has dialed and that have answered that they dial us.
    vouched: HashMap<String, SessionId>,
    fences_refused: u64,
    flights: HashMap<u64, Flight>,
    owners: HashMap<TransferId, PeerKey>,
    next_peer: u32,
    next_flight: u64,
    actions: VecDeque<Action>,
    /// Plans of transfers that have ended, for their memory.
    spare_plans: Vec<Plan>,
    staging: Staging,
    /// Whose turn it was to be the first of those with something to do.
    pumped_first: PeerKey,
}

/// Transfers that one peer may have unfinished, in each direction.
pub const TRANSFERS_PER_PEER_MAX: usize = 4096;
/// Peers that an endpoint keeps.
pub const PEERS_MAX: usize = 1024;
/// Segments that one peer is asked for and that may be waiting there; more are asked for as it says that some are
/// done.
pub const SEGMENTS_ASKED_MAX: usize = 2 << 20;
/// Segments of chunk requests that may wait here for one peer: room for what a peer that keeps to the limit can
/// be wrong about. A transfer whose request would be one more fails.
pub const SEGMENTS_WAITING_MAX: usize = 2 * SEGMENTS_ASKED_MAX;
/// What moves at most so many bytes does not wait behind all that is larger.
const SMALL_BYTES: u64 = 128 << 10;
/// Control bytes waiting for a peer above which no further chunk request is issued.
pub const OUTPUT_SOFT_LIMIT_BYTES: usize = 64 << 10;
/// Plans whose memory is kept, to be used again,
const PLANS_KEPT: usize = 4;
/// and the most segments that one of them has room for.
const SEGMENTS_KEPT: usize = 1 << 17;
/// The largest memory for output that is kept, to be used again.
const OUTPUT_KEPT_BYTES: usize = 1 << 20;
/// Control bytes kept for a peer above which further commands are refused. An event that waits counts twice: it is
/// queued, and kept until it is confirmed.
pub const OUTPUT_HARD_LIMIT_BYTES: usize = 256 << 20;
/// Control bytes kept for a peer above which it is given up: commands are refused before, so these are
/// answers to a peer that asks and does not listen.
pub const OUTPUT_FATAL_BYTES: usize = OUTPUT_HARD_LIMIT_BYTES + 2 * MESSAGE_MAX_BYTES;
/// Longest notification or sync message.
pub const MESSAGE_MAX_BYTES: usize = 8 << 20;
/// Names of lost peers whose reason is remembered.
const LOST_MAX: usize = 1024;

impl Endpoint {
    /// An endpoint without peers. `lanes` are in order of preference, the same on every agent.
    pub fn new(identity: Identity, lanes: Vec<LaneSpec>, deadlines: Deadlines) -> Self {
        Self {
            identity,
            lanes,
            deadlines,
            regions: Arc::default(),
            unkeyed: Arc::default(),
            told_to: HashMap::new(),
            peers: BTreeMap::new(),
            names: HashMap::new(),
            lost: HashMap::new(),
            vouched: HashMap::new(),
            fences_refused: 0,
            flights: HashMap::new(),
            owners: HashMap::new(),
            next_peer: 1,
            next_flight: 1,
            actions: VecDeque::new(),
            spare_plans: Vec::new(),
            staging: Staging::default(),
            pumped_first: PeerKey(0),
        }
    }

    // ---- getters ------------------------------------------------------------------------------------

    /// Who we are, regions included.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What hosts hand each other so that one can load the other.
    pub fn blob(&self) -> Blob {
        Blob { name: self.identity.name.clone(), section: self.identity.section.clone() }
    }

    /// Our registered regions, as they are now.
    pub fn regions(&self) -> Arc<RegionTable> {
        Arc::clone(&self.regions)
    }

    /// The lanes, in order of preference.
    pub fn lanes(&self) -> &[LaneSpec] {
        &self.lanes
    }

    /// A peer by key.
    pub fn peer(&self, key: PeerKey) -> Option<&Peer> {
        self.peers.get(&key)
    }

    /// Every peer with a stream, known or not.
    pub fn peers(&self) -> impl Iterator<Item = (PeerKey, &Peer)> {
        self.peers.iter().map(|(key, peer)| (*key, peer))
    }

    /// Where the peer of this name stands.
    pub fn standing(&self, name: &str) -> Standing {
        match self.names.get(name).and_then(|key| Some((*key, self.peers.get(key)?))) {
            None => Standing::Absent,
            Some((key, peer)) if peer.phase == SessionPhase::Up => Standing::Up(key),
            Some((key, _)) => Standing::Connecting(key),
        }
    }

    /// Where the agent of this name and session stands: absent while another instance of it has the name.
    pub fn standing_of(&self, name: &str, session: SessionId) -> Standing {
        match self.standing(name) {
            Standing::Up(key) | Standing::Connecting(key)
                if self.peers.get(&key).is_none_or(|peer| peer.session() != Some(session))
                    && !planted::is(Planted::OldSessionKept) =>
            {
                Standing::Absent
            }
            standing => standing,
        }
    }

    /// How often a stream was refused that would have fenced off a live peer of the same name.
    pub fn fences_refused(&self) -> u64 {
        self.fences_refused
    }

    /// The loaded peer of this name, or the error that says why there is none.
    pub fn loaded_peer(&self, name: &str) -> Result<(PeerKey, &Peer), CommandError> {
        let found = self.names.get(name).and_then(|key| Some((*key, self.peers.get(key)?)));
        match found {
            Some((key, peer)) if peer.loaded_by_us => Ok((key, peer)),
            _ => Err(match self.lost.get(name) {
                Some(reason) => CommandError::PeerLost { name: name.into(), reason: reason.clone() },
                None => CommandError::UnknownPeer { name: name.into() },
            }),
        }
    }

    /// Whether any transfer is unfinished or any batch in flight.
    pub fn is_busy(&self) -> bool {
        !self.flights.is_empty()
            || self.peers.values().any(|peer| !peer.outgoing.is_empty() || !peer.incoming.is_empty())
    }

    // ---- commands -----------------------------------------------------------------------------------

    /// Marks a known peer as loaded by our host.
    pub fn mark_loaded(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        self.lost.remove(&peer.name);
        if !peer.loaded_by_us {
            (peer.loaded_by_us, peer.idle_since) = (true, None);
            if peer.phase.is_known() {
                peer.tell(Event::Loaded { loaded: true });
            }
        }
    }

    /// Forgets what we may do to a peer: its transfers of ours are broken off, its notifications stay, the
    /// stream lives on while the peer has us loaded. Unknown names are ignored.
    pub fn invalidate(&mut self, name: &str) {
        self.lost.remove(name);
        self.vouched.remove(name);
        let Some(key) = self.names.get(name).copied() else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.loaded_by_us {
            peer.loaded_by_us = false;
            peer.tell(Event::Loaded { loaded: false });
        }
        let ids: Vec<_> = peer.outgoing.keys().copied().collect();
        ids.into_iter().for_each(|id| self.break_off(id, TransferError::Invalidated));
    }

    /// Queues a notification for a loaded peer's host.
    pub fn notify(&mut self, name: &str, message: &[u8]) -> Result<(), CommandError> {
        check_message(name, message)?;
        let (key, peer) = self.loaded_peer(name)?;
        let count = peer.kept_bytes();
        if count > OUTPUT_HARD_LIMIT_BYTES {
            return Err(CommandError::TooMany { name: name.into(), what: "bytes of control data", count });
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.tell(Event::Notify { message });
        }
        Ok(())
    }

    /// Says goodbye to everybody; transfers are broken off first.
    pub fn shutdown(&mut self) {
        let ids: Vec<_> = self.owners.keys().copied().collect();
        ids.into_iter().for_each(|id| self.break_off(id, TransferError::Shutdown));
    }

    /// Closes every stream, for the end of [`Endpoint::shutdown`].
    pub fn close_all(&mut self) {
        let keys: Vec<_> = self.peers.keys().copied().collect();
        keys.into_iter().for_each(|key| self.close(key, "the agent was shut down"));
    }

    // ---- what to do ---------------------------------------------------------------------------------

    /// The next thing to do, until `None`.
    #[must_use]
    pub fn poll_action(&mut self, now: Instant) -> Option<Action> {
        if self.actions.is_empty() {
            let mut keys: Vec<_> =
                self.peers.iter().filter(|(_, peer)| peer.wants_pump()).map(|(key, _)| *key).collect();
            // What all of them share, slots to gather in, is for whoever comes first: each is, in turn.
            let turn = keys.partition_point(|key| *key <= self.pumped_first);
            let turn = turn % keys.len().max(1);
            keys.rotate_left(turn);
            self.pumped_first = keys.first().copied().unwrap_or(self.pumped_first);
            keys.into_iter().for_each(|key| self.pump(key, now));
        }
        self.actions.pop_front()
    }

    /// Peers whose stream has bytes to take.
    pub fn peers_with_output(&self) -> impl Iterator<Item = PeerKey> {
        self.peers.iter().filter(|(_, peer)| peer.output_bytes() > 0).map(|(key, _)| *key)
    }

    /// Takes the bytes to write to a peer's stream, in order after those taken before.
    #[must_use]
    pub fn poll_output(&mut self, key: PeerKey, now: Instant) -> Vec<u8> {
        match self.peers.get_mut(&key) {
            Some(peer) => peer.take_output(now),
            None => Vec::new(),
        }
    }

    /// Takes back the memory of what [`Endpoint::poll_output`] gave, for what is said next.
    pub fn reuse_output(&mut self, key: PeerKey, bytes: Vec<u8>) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.reuse_output(bytes);
        }
    }

    // ---- what happened ------------------------------------------------------------------------------

    /// One frame of a peer's stream, without its length. An error means that the stream cannot go on: the
    /// endpoint has asked for [`Action::Close`].
    pub fn handle_frame(&mut self, key: PeerKey, bytes: &[u8], now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(silence) = peer.liveness.hear(now) {
            self.actions.push_back(Action::Silent { peer: key, silent_ms: silence.as_millis() as u64 });
        }
        match Frame::decode(bytes) {
            // It has overtaken the HELLO that says which stream this is.
            Ok((_, frame)) if peer.phase == SessionPhase::Listening && !matches!(frame, Frame::Hello(_)) => {}
            Ok((link, frame)) if peer.accepts(link, &frame) => self.handle(key, frame, now),
            Ok((link, _)) => self.close(key, &format!("a frame carries the tag {link:#x} of another stream")),
            Err(error) => self.handle_nonsense(key, &error),
        }
    }

    /// A posted batch is over.
    pub fn handle_completed(&mut self, token: OpToken, outcome: Result<(), String>, now: Instant) {
        let Some(flight) = self.end_flight(token.0) else { return };
        if let Some(peer) = self.peers.get_mut(&flight.peer) {
            peer.lanes.note_completed(flight.lane);
        }
        match flight.kind {
            FlightKind::OutgoingPost => self.outgoing_flight_done(&flight, outcome, now),
            FlightKind::Gather(slots) => self.chunk_gathered(flight, slots, outcome, now),
            FlightKind::SlotWrite(slots) => self.slot_written(&flight, slots, outcome, now),
            FlightKind::Scatter(slot) => {
                self.slot_read(flight.peer, slot, now);
                self.incoming_flight_done(&flight, outcome, now);
            }
            _ => self.incoming_flight_done(&flight, outcome, now),
        }
    }

    /// A landing payload is in place, or could not be placed.
    pub fn handle_landed(&mut self, ticket: u64, outcome: Result<(), String>, now: Instant) {
        let Some(flight) = self.end_flight(ticket) else { return };
        match flight.kind {
            FlightKind::AnswerLanding => self.outgoing_flight_done(&flight, outcome, now),
            _ => self.incoming_flight_done(&flight, outcome, now),
        }
    }

    /// Our host had no room for a message of this peer's. The stream ends, and what was still to be said on it is
    /// not said: it may acknowledge that very message.
    pub fn handle_undelivered(&mut self, name: &str) {
        let Some(key) = self.names.get(name).copied() else { return };
        let own = self.identity.name.clone();
        self.cut_off(
            key,
            &format!("the notifications of '{name}' are not being read at '{own}' and have piled up"),
        );
    }

    /// Closes a stream without what was still to be said or delivered: it may speak of what has not come.
    fn cut_off(&mut self, key: PeerKey, reason: &str) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.unsay();
        peer.events_in.confirm(); // nor with the goodbye
        let name = peer.name.clone();
        self.actions.retain(|action| match action {
            Action::Deliver { peer, .. } => *peer != name,
            Action::Post { peer, .. } => *peer != key,
            _ => true,
        });
        self.close(key, reason);
    }

    /// The stream is closed and the fabrics have let go of the peer: everything that hung on it ends.
    pub fn handle_closed(&mut self, key: PeerKey, reason: &str) {
        let Some(peer) = self.peers.remove(&key) else { return };
        if self.names.get(&peer.name) == Some(&key) {
            self.names.remove(&peer.name);
            if peer.loaded_by_us {
                self.remember_lost(&peer.name, reason);
            }
        }
        self.close_staging(key, &peer);
        self.flights.retain(|_, flight| flight.peer != key || planted::is(Planted::FlightsForgotten));
        for (id, transfer) in peer.outgoing.into_iter().filter(|_| !planted::is(Planted::PeerLossForgotten)) {
            self.owners.remove(&id);
            let outcome = match (transfer.acknowledged, transfer.failure) {
                (true, None) => Ok(()),
                (_, failure) => Err(lost(failure, reason)),
            };
            self.actions.push_back(Action::Ended { id, outcome });
        }
    }

    fn remember_lost(&mut self, name: &str, reason: &str) {
        if self.lost.len() >= LOST_MAX {
            self.lost.clear();
        }
        self.lost.insert(name.into(), reason.into());
    }

    /// Asks for a stream to be closed, with a goodbye where the peer can read one.
    fn close(&mut self, key: PeerKey, reason: &str) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.phase == SessionPhase::Over {
            return;
        }
        if peer.phase.is_known() {
            peer.confirm_the_last();
            peer.say(&Frame::Goodbye { text: reason });
        }
        peer.phase = SessionPhase::Over;
        self.actions.push_back(Action::Close { peer: key, reason: reason.into() });
    }

    /// Begins a flight. Its number comes back to [`Endpoint::end_flight`].
    fn take_off(&mut self, flight: Flight) -> u64 {
        let ticket = self.next_flight;
        self.next_flight += 1;
        self.flights.insert(ticket, flight);
        ticket
    }

    /// Takes out a flight that is over. Whoever waits for a revoked region that it has touched is told.
    fn end_flight(&mut self, number: u64) -> Option<Flight> {
        let flight = self.flights.remove(&number)?;
        if flight.regions.iter().any(|key| self.regions.by_key(*key).is_none()) {
            self.note_quieter();
        }
        Some(flight)
    }
}

/// Why a transfer fails whose stream is gone. What broke on our side just before was the same loss, seen first
/// by the lane.
fn lost(failure: Option<TransferError>, reason: &str) -> TransferError {
    match failure {
        None => TransferError::PeerLost(reason.into()),
        Some(TransferError::Local(text)) => TransferError::PeerLost(format!("{reason} (first: {text})")),
        Some(other) => other,
    }
}

fn check_message(name: &str, message: &[u8]) -> Result<(), CommandError> {
    if message.len() <= MESSAGE_MAX_BYTES {
        return Ok(());
    }
    let (len_bytes, max_bytes) = (message.len(), MESSAGE_MAX_BYTES);
    Err(CommandError::MessageTooLong { name: name.into(), len_bytes, max_bytes })
}
