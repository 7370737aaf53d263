//! The handshake's flow: hello, welcome, lanes, ready; and the small frames of a session's life.

use std::time::Instant;

use crate::desc::{PeerKey, SessionId, TransferId};
use crate::planted::{self, Planted};
use crate::proto::blob::check_name;
use crate::proto::codec::DecodeError;
use crate::proto::section::Section;
use crate::proto::session::{SessionEvent, SessionPhase};
use crate::proto::wire::{Frame, Hello, MAJOR_FIELD, RefuseReason, VERSION};

use super::lanes::LaneState;
use super::{Action, Endpoint, PEERS_MAX, Peer};

/// The reason of a stream that closed only because both sides dialed at once.
pub const CROSSED: &str = "crossed";
/// Reason of a stream that closed because the peer wants a key shown.
pub const KEY_WANTED: &str = "the peer wants a key shown";

impl Endpoint {
    /// A stream that we dialed to the agent `name` with this session. Says hello. `random` is 16 fresh
    /// random bytes. Our host's load is what dials, so the peer counts as loaded.
    pub fn open_dialed(&mut self, name: &str, session: SessionId, random: [u8; 16], now: Instant) -> PeerKey {
        let mut peer = Peer::new(name.into(), SessionPhase::Greeting, random, now);
        peer.expected = Some(session.0);
        peer.loaded_by_us = true;
        let section = self.encoded_section();
        let hello =
            Hello { link_id: random, expected: session.0, name: &self.identity.name, section: &section };
        peer.say(&Frame::Hello(hello));
        self.lost.remove(name);
        self.add_peer(peer)
    }

    /// A stream that somebody dialed to us. `None` when there is no room for another peer.
    pub fn open_accepted(&mut self, now: Instant) -> Option<PeerKey> {
        (self.peers.len() < PEERS_MAX)
            .then(|| self.add_peer(Peer::new(String::new(), SessionPhase::Listening, [0; 16], now)))
    }

    /// The dialer of this stream has shown that it has our key, before its first frame.
    pub fn note_authenticated(&mut self, key: PeerKey) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.authenticated = true;
        }
    }

    /// A fabric has connected to the peer, or cannot.
    pub fn handle_lane(&mut self, key: PeerKey, lane: &str, outcome: Result<(), String>) {
        let Some(index) = self.lanes.iter().position(|spec| spec.name == lane) else { return };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(was) = peer.lanes.change(index, outcome) else { return };
        let broke = was == LaneState::Up && !peer.lanes.is_up(index);
        // Until both sides are up, the peer may have settled on any lane that we have announced.
        let counts = peer.lanes.agreed().contains(&index) || peer.phase == SessionPhase::Announced;
        if was == LaneState::Pending {
            self.announce_when_settled(key);
        } else if broke && counts {
            let reasons = peer.lanes.reasons(&self.lanes);
            self.close(key, &format!("its lane broke ({reasons})"));
        }
    }

    pub(super) fn handle_hello(&mut self, key: PeerKey, hello: &Hello<'_>, now: Instant) {
        match self.peers.get_mut(&key) {
            Some(peer) if peer.phase == SessionPhase::Listening => peer.link_id = hello.link_id,
            Some(peer) if peer.phase.is_known() && peer.link_id == hello.link_id => return, // the same again
            _ => return self.close(key, "a second HELLO came"),
        }
        let section = match Section::decode(hello.section) {
            Ok(section) => section,
            Err(error) => return self.refuse(key, RefuseReason::Malformed, &error.to_string()),
        };
        if hello.expected != self.identity.section.session.0 && !planted::is(Planted::StaleSessionTaken) {
            let text = format!("agent '{}' has been restarted since that blob was made", self.identity.name);
            return self.refuse(key, RefuseReason::StaleSession, &text);
        }
        if let Err(error) = check_name(hello.name) {
            return self.refuse(key, RefuseReason::Malformed, &error.to_string());
        }
        if hello.name == self.identity.name {
            return self.refuse(key, RefuseReason::NameTaken, "the dialer has our own name");
        }
        if let Err((reason, text)) = self.settle_crossing(key, hello.name, section.session) {
            return self.refuse(key, reason, &text);
        }
        let own = self.encoded_section();
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Ok(phase) = peer.phase.on(SessionEvent::Hello) else { return };
        (peer.phase, peer.name) = (phase, hello.name.into());
        peer.loaded_by_them = true;
        peer.say(&Frame::Welcome { name: &self.identity.name, section: &own });
        self.become_known(key, section, now);
    }

    /// Bytes that are no frame end the stream; a dialer is told why.
    pub(super) fn handle_nonsense(&mut self, key: PeerKey, error: &DecodeError) {
        let listening = self.peers.get(&key).is_some_and(|peer| peer.phase == SessionPhase::Listening);
        let text = format!("a frame cannot be understood: {error}");
        match error {
            _ if !listening => self.close(key, &text),
            DecodeError::BadValue { field: MAJOR_FIELD, value } => {
                let (ours, name) = (VERSION.0, &self.identity.name);
                let text = format!(
                    "the dialer speaks version {value} of the protocol and agent '{name}' version {ours}: install \
                     the same release on both sides"
                );
                self.refuse(key, RefuseReason::Version, &text);
            }
            _ => self.refuse(key, RefuseReason::Malformed, &text),
        }
    }

    /// What a hello meets that comes while the same name has a stream already. A live stream to another session
    /// gives way only to one that has shown our key, or that our host has loaded and that has answered our own dial with
    /// the word that the two have crossed: anybody else might use the name to cut a peer off.
    fn settle_crossing(
        &mut self,
        key: PeerKey,
        name: &str,
        session: SessionId,
    ) -> Result<(), (RefuseReason, String)> {
        let dialing = self.peers.iter().find(|(_, peer)| {
            peer.phase == SessionPhase::Greeting && peer.expected == Some(session.0) && peer.name == name
        });
        let dialing = dialing.map(|(&ours, _)| ours);
        let under_way = || Err((RefuseReason::Crossed, "our own stream to you is under way".to_owned()));
        if dialing.is_some() && self.identity.section.session < session {
            return under_way();
        }
        let live = self.names.get(name).copied();
        let fenced = live.filter(|live| !self.is_session(*live, session));
        let has_key = self.peers.get(&key).is_some_and(|peer| peer.authenticated);
        let is_vouched_for = self.vouched.get(name) == Some(&session);
        if fenced.is_some() && !has_key && !is_vouched_for {
            if dialing.is_some() {
                return under_way(); // the answer to it says whether this is the agent that our host means
            }
            self.fences_refused += 1;
            return Err((RefuseReason::NameTaken, format!("a live agent is already known as '{name}'")));
        }
        if let Some(ours) = dialing {
            self.close(ours, CROSSED);
        }
        match (fenced, live) {
            (None, Some(_)) => {
                Err((RefuseReason::Crossed, "a stream between these two agents is up already".into()))
            }
            (Some(live), _) if has_key => {
                self.close(live, "a newer agent of the same name has come and shown the key");
                Ok(())
            }
            (Some(live), _) => {
                self.fence_for_our_host(live);
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    /// Our host has loaded a newer agent, and where that is to be found it has answered: a blob alone, which may be
    /// an old one, fences nobody.
    fn fence_for_our_host(&mut self, older: PeerKey) {
        let reason = format!("agent '{}' has loaded a newer agent of the same name", self.identity.name);
        self.close(older, &reason);
    }

    pub(super) fn handle_welcome(&mut self, key: PeerKey, name: &str, section: &[u8], now: Instant) {
        let section = match Section::decode(section) {
            Ok(section) => section,
            Err(error) => return self.close(key, &format!("its section cannot be read: {error}")),
        };
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let expected = peer.expected;
        if peer.phase.is_known() && peer.name == name && peer.session() == Some(section.session) {
            return; // the same again
        }
        let Ok(phase) = peer.phase.on(SessionEvent::Welcome) else {
            return self.close(key, "a WELCOME came out of turn");
        };
        let stale = expected != Some(section.session.0) && !planted::is(Planted::StaleSessionTaken);
        if name != peer.name || stale {
            let text = format!("agent '{name}' of session {} answered in its place", section.session);
            return self.close(key, &text);
        }
        if let Some(known) = self.names.get(name).copied() {
            if self.is_session(known, section.session) {
                return self.close(key, CROSSED);
            }
            self.fence_for_our_host(known);
        }
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.phase = phase;
        }
        self.become_known(key, section, now);
    }

    /// Both sections are known: import regions, connect lanes.
    fn become_known(&mut self, key: PeerKey, mut section: Section, now: Instant) {
        let announced = std::mem::take(&mut section.regions);
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let theirs: Vec<_> = section.fabrics.iter().map(|fabric| fabric.name.clone()).collect();
        peer.lanes.begin(&self.lanes, &theirs);
        peer.section = Some(section);
        peer.liveness.came_on(now);
        let link_id = peer.link_id;
        self.vouched.remove(&peer.name);
        self.names.insert(peer.name.clone(), key);
        self.actions.push_back(Action::Link { peer: key, link_id });
        announced.into_iter().for_each(|region| self.import(key, region));
        self.announce_when_settled(key);
    }

    fn announce_when_settled(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.phase != SessionPhase::Linking || peer.lanes.is_pending() {
            return;
        }
        let Ok(phase) = peer.phase.on(SessionEvent::LanesSettled) else { return };
        peer.lanes.announce(&self.lanes);
        peer.phase = phase;
        peer.say_ready(false);
        self.come_up_when_ready(key);
    }

    pub(super) fn handle_ready(&mut self, key: PeerKey, lanes: &[&str], again: bool) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        peer.lanes.note_ready(lanes);
        if again && matches!(peer.phase, SessionPhase::Announced | SessionPhase::Up) {
            peer.say_ready(false); // ours was lost
        }
        self.come_up_when_ready(key);
    }

    /// Says READY again where the peer's does not come: one of the two may have been lost.
    pub(super) fn repeat_ready(&mut self, key: PeerKey, now: Instant) {
        let waiting = self.peers.get_mut(&key).filter(|peer| peer.phase == SessionPhase::Announced);
        if let Some(peer) = waiting
            && peer.beat.ready_is_due(now)
        {
            peer.say_ready(true);
        }
    }

    fn come_up_when_ready(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.phase != SessionPhase::Announced || !peer.lanes.are_known() {
            return;
        }
        let Ok(phase) = peer.phase.on(SessionEvent::BothReady) else { return };
        peer.lanes.agree(&self.lanes);
        peer.phase = phase;
        self.actions.push_back(Action::Up { peer: key });
        self.lend_ahead(key);
    }

    pub(super) fn handle_refuse(&mut self, key: PeerKey, reason: RefuseReason, text: &str) {
        let reason = match reason {
            RefuseReason::Crossed => {
                self.vouch(key);
                CROSSED.to_owned()
            }
            RefuseReason::KeyWanted => KEY_WANTED.to_owned(),
            _ => format!("the peer refused the stream: {text}"),
        };
        self.close(key, &reason);
    }

    /// The agent that we have dialed, this very session of it, has one of its own under way to us.
    fn vouch(&mut self, key: PeerKey) {
        let dialed = self.peers.get(&key).filter(|peer| peer.phase == SessionPhase::Greeting);
        let Some((name, session)) =
            dialed.and_then(|peer| Some((peer.name.clone(), SessionId(peer.expected?))))
        else {
            return;
        };
        if self.vouched.len() >= PEERS_MAX {
            self.vouched.clear();
        }
        self.vouched.insert(name, session);
    }

    fn refuse(&mut self, key: PeerKey, reason: RefuseReason, text: &str) {
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.say(&Frame::Refuse { reason, text });
        }
        self.close(key, &format!("refused: {text}"));
    }

    /// Whether the agent at the other end of this stream is this instance of it.
    fn is_session(&self, key: PeerKey, session: SessionId) -> bool {
        self.peers.get(&key).is_some_and(|peer| peer.session() == Some(session))
    }

    fn add_peer(&mut self, peer: Peer) -> PeerKey {
        // Some key is free: there are far more than peers.
        while self.peers.contains_key(&PeerKey(self.next_peer)) {
            self.next_peer = after(self.next_peer);
        }
        let key = PeerKey(self.next_peer);
        self.next_peer = after(self.next_peer);
        self.peers.insert(key, peer);
        key
    }

    fn encoded_section(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.identity.section.encode(&mut bytes);
        bytes
    }
}

/// The key to try after this one. Keys begin anew once a transfer's id has no room for more.
fn after(key: u32) -> u32 {
    if key < TransferId::PEER_MAX { key + 1 } else { 1 }
}
