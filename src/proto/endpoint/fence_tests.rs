//! Who may take a name that a live peer has (design D8), and who may not.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::*;
use crate::proto::section::{Endpoint as Place, HostId};
use crate::proto::wire::{Hello, LENGTH_BYTES, RefuseReason};

fn section(session: u8) -> Section {
    Section {
        session: SessionId([session; 16]),
        host: HostId([0; 16]),
        uid: 0,
        capabilities: 0,
        endpoints: vec![Place::Tcp { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 }],
        fabrics: Vec::new(),
        regions: Vec::new(),
        mac: None,
    }
}

fn encoded(session: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    section(session).encode(&mut bytes);
    bytes
}

/// Agent `us`, of session 1 unless another is given.
struct Us {
    endpoint: Endpoint,
    now: Instant,
}

impl Us {
    fn new() -> Self {
        Self::of_session(1)
    }

    fn of_session(session: u8) -> Self {
        let limit = Duration::from_secs(5);
        let deadlines = Deadlines { handshake: limit, peer: limit, stall: limit };
        let identity = Identity { name: "us".into(), section: section(session) };
        Self { endpoint: Endpoint::new(identity, Vec::new(), deadlines), now: Instant::now() }
    }

    fn session(&self) -> SessionId {
        self.endpoint.identity().section.session
    }

    fn say(&mut self, key: PeerKey, link: u8, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(u64::from_le_bytes([link; 8]), &mut bytes);
        self.endpoint.handle_frame(key, &bytes[LENGTH_BYTES..], self.now);
    }

    /// Somebody dials us and says that it is `them`, of this session.
    fn greeted_by(&mut self, session: u8, authenticated: bool) -> PeerKey {
        let key = self.endpoint.open_accepted(self.now).expect("there is room");
        if authenticated {
            self.endpoint.note_authenticated(key);
        }
        let section = encoded(session);
        let hello =
            Hello { link_id: [session; 16], expected: self.session().0, name: "them", section: &section };
        self.say(key, 0, &Frame::Hello(hello));
        key
    }

    /// Our host loads `them`, of this session, and it answers.
    fn loads(&mut self, session: u8, answers: bool) -> PeerKey {
        let key = self.endpoint.open_dialed("them", SessionId([session; 16]), [session; 16], self.now);
        if answers {
            let section = encoded(session);
            self.say(key, session, &Frame::Welcome { name: "them", section: &section });
        }
        key
    }

    /// Who has the name, and whom the endpoint wants closed, with the reasons.
    fn outcome(&mut self) -> (Option<PeerKey>, Vec<(PeerKey, String)>) {
        let mut closed = Vec::new();
        while let Some(action) = self.endpoint.poll_action(self.now) {
            if let Action::Close { peer, reason } = action {
                self.endpoint.handle_closed(peer, &reason);
                closed.push((peer, reason));
            }
        }
        let known = match self.endpoint.standing("them") {
            Standing::Up(key) | Standing::Connecting(key) => Some(key),
            Standing::Absent => None,
        };
        (known, closed)
    }
}

#[test]
fn a_stranger_cannot_fence_a_live_peer() {
    let mut us = Us::new();
    let live = us.greeted_by(2, false);
    let stranger = us.greeted_by(3, false);
    let (known, closed) = us.outcome();
    assert_eq!(known, Some(live));
    assert!(matches!(&closed[..], [(key, _)] if *key == stranger), "{closed:?}");
    assert_eq!(us.endpoint.fences_refused(), 1);
}

#[test]
fn a_newer_session_that_has_shown_the_key_fences_the_older() {
    let mut us = Us::new();
    let old = us.greeted_by(2, true);
    let new = us.greeted_by(3, true);
    let (known, closed) = us.outcome();
    assert_eq!(known, Some(new));
    let why = "a newer agent of the same name has come and shown the key";
    assert_eq!(closed, [(old, why.to_owned())]);
    assert_eq!(us.endpoint.fences_refused(), 0);
}

#[test]
fn a_load_fences_once_the_newer_agent_has_answered() {
    let mut us = Us::new();
    let old = us.greeted_by(2, false);
    us.loads(3, false);
    assert_eq!(us.outcome(), (Some(old), Vec::new()), "an old blob replayed comes this far and no further");
    assert_eq!(us.endpoint.standing_of("them", SessionId([3; 16])), Standing::Absent);
    let new = us.loads(3, true);
    let (known, closed) = us.outcome();
    assert_eq!(known, Some(new));
    assert_eq!(closed, [(old, "agent 'us' has loaded a newer agent of the same name".to_owned())]);
    assert_eq!(us.endpoint.standing_of("them", SessionId([2; 16])), Standing::Absent);
}

#[test]
fn a_dead_stream_leaves_its_name() {
    let mut us = Us::new();
    let old = us.greeted_by(2, false);
    us.endpoint.handle_closed(old, "its process ended");
    let new = us.greeted_by(3, false);
    assert_eq!(us.outcome().0, Some(new));
}

/// Both load each other at once, while one of them still has a stream to the other's predecessor. Whichever way the
/// dials cross, nobody is refused for good.
#[test]
fn a_crossing_does_not_lose_to_an_older_stream() {
    let mut us = Us::of_session(9);
    let old = us.greeted_by(2, false);
    let ours = us.loads(3, false);
    let theirs = us.greeted_by(3, false);
    let (known, closed) = us.outcome();
    assert_eq!(known, Some(old));
    assert!(matches!(&closed[..], [(key, _)] if *key == theirs), "our own dial goes on: {closed:?}");
    assert_eq!(us.endpoint.fences_refused(), 0, "it crossed, which costs nobody a load");
    let refusal = Frame::Refuse { reason: RefuseReason::Crossed, text: "under way" };
    us.say(ours, 3, &refusal);
    assert_eq!(us.outcome(), (Some(old), vec![(ours, CROSSED.to_owned())]));
    let again = us.greeted_by(3, false);
    let (known, closed) = us.outcome();
    assert_eq!(known, Some(again), "it has answered where our host has sent us");
    assert_eq!(closed, [(old, "agent 'us' has loaded a newer agent of the same name".to_owned())]);
    let stranger = us.greeted_by(4, false);
    assert_eq!(us.outcome().1[0].0, stranger);
    assert_eq!(us.endpoint.fences_refused(), 1);
}

#[test]
fn keys_of_peers_begin_anew_and_no_live_one_is_given_twice() {
    let mut us = Us::new();
    let live = us.greeted_by(2, false);
    us.endpoint.next_peer = TransferId::PEER_MAX;
    let last = us.endpoint.open_accepted(us.now).expect("there is room");
    let next = us.endpoint.open_accepted(us.now).expect("there is room");
    assert_eq!(last, PeerKey(TransferId::PEER_MAX));
    assert_eq!((live, next), (PeerKey(1), PeerKey(2)), "the first is in use");
    assert_eq!(us.endpoint.standing("them"), Standing::Connecting(live));
}
