//! A peer that does not keep to the protocol: what it sends is chosen frame by frame.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::*;
use crate::desc::Descriptor;
use crate::desc::{MemoryKind, Region, Segment, SessionId, Span, TransferOp};
use crate::proto::plan::{Party, PlanCaps, Side, plan};
use crate::proto::section::AnnouncedRegion;
use crate::proto::section::{FabricAddress, HostId};
use crate::proto::wire::{Commit, DataHeader, Event, Hello, LENGTH_BYTES, RefuseReason};

const LINK: [u8; 16] = [7; 16];
pub(super) const LANE: LaneSpec = LaneSpec {
    name: "pull",
    native_read: true,
    native_write: false,
    framed: false,
    kinds: &[MemoryKind::Dram],
    selective: false,
    maps_regions: false,
    gathers_below: 0,
    batches_in_flight: 4,
    segments_per_chunk: 8,
    bytes_per_chunk: 1 << 20,
};

pub(super) fn section(session: u8) -> Section {
    let tcp = crate::proto::section::Endpoint::Tcp { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
    Section {
        session: SessionId([session; 16]),
        host: HostId([0; 16]),
        uid: 0,
        capabilities: 0,
        endpoints: vec![tcp],
        fabrics: vec![FabricAddress { name: LANE.name.into(), address: Vec::new() }],
        regions: Vec::new(),
        mac: None,
    }
}

/// An endpoint with one region of 1 MiB at 0x10000, and the peer that it has accepted.
pub(super) struct Hostile {
    pub endpoint: Endpoint,
    pub key: PeerKey,
    pub now: Instant,
}

impl Hostile {
    /// Connected; nothing has been said.
    pub fn silent() -> Self {
        Self::silent_over(LANE)
    }

    /// As [`Hostile::up`], over another lane.
    pub fn up_over(lane: LaneSpec) -> Self {
        Self::silent_over(lane).come_up()
    }

    pub fn silent_over(lane: LaneSpec) -> Self {
        let identity = Identity { name: "us".into(), section: section(1) };
        let limit = Duration::from_secs(5);
        let deadlines = Deadlines { handshake: limit, peer: limit, stall: limit };
        let mut endpoint = Endpoint::new(identity, vec![lane], deadlines);
        let span = Span { addr: 0x10000, len: 1 << 20 };
        let region = Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span };
        endpoint.add_region(AnnouncedRegion { region, keys: Vec::new() }).expect("a region");
        let now = Instant::now();
        let key = endpoint.open_accepted(now).expect("there is room");
        Self { endpoint, key, now }
    }

    /// Our lanes are up, nothing is known of the peer's.
    pub fn linked() -> Self {
        let mut peer = Self::silent();
        peer.hello("them", [1; 16]);
        peer.endpoint.handle_lane(peer.key, LANE.name, Ok(()));
        peer
    }

    /// Handshake done, lanes agreed.
    pub fn up() -> Self {
        Self::linked().come_up()
    }

    pub fn come_up(mut self) -> Self {
        let peer = &mut self;
        if peer.endpoint.peer(peer.key).is_some_and(|peer| peer.phase() == SessionPhase::Listening) {
            peer.hello("them", [1; 16]);
            peer.endpoint.handle_lane(peer.key, LANE.name, Ok(()));
        }
        peer.say(&Frame::Ready { lanes: vec![LANE.name], again: false });
        assert!(matches!(peer.endpoint.standing("them"), Standing::Up(_)));
        peer.answers();
        self
    }

    pub fn hello(&mut self, name: &str, expected: [u8; 16]) {
        self.hello_with(name, expected, 0);
    }

    /// With these capabilities.
    pub fn hello_with(&mut self, name: &str, expected: [u8; 16], capabilities: u64) {
        let mut bytes = Vec::new();
        Section { capabilities, ..section(2) }.encode(&mut bytes);
        self.say(&Frame::Hello(Hello { link_id: LINK, expected, name, section: &bytes }));
    }

    pub fn say(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(0x0707_0707_0707_0707, &mut bytes);
        self.endpoint.handle_frame(self.key, &bytes[LENGTH_BYTES..], self.now);
    }

    pub fn pull(&mut self, id: u64, chunk: u32, segments: Vec<Segment>) {
        self.say(&Frame::Pull { id: TransferId(id), chunk, heard: 0, segments: segments.into() });
    }

    pub fn commit(&mut self, id: u64) {
        let sync_message = Some(&b"done"[..]);
        let commit = Commit {
            id: TransferId(id),
            op: TransferOp::Write,
            chunks: 0,
            bytes: 0,
            events: 0,
            sync_message,
        };
        self.say(&Frame::Commit(commit));
    }

    /// Time passes, tick by tick; returns the stalls that are reported.
    pub fn pass(&mut self, ms: u64) -> Vec<(Duration, Stall)> {
        let (start, mut stalls) = (self.now, Vec::new());
        for _ in 0..ms / 100 {
            self.now += TICK;
            self.endpoint.handle_timeout(self.now);
            let now = self.now;
            let mut kept = Vec::new();
            while let Some(action) = self.endpoint.poll_action(now) {
                match action {
                    Action::Stalled(stall) => stalls.push((now - start, *stall)),
                    other => kept.push(other),
                }
            }
            self.endpoint.actions.extend(kept);
        }
        stalls
    }

    /// What the endpoint wants done.
    pub fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.endpoint.poll_action(self.now)).collect()
    }

    /// The frames that the endpoint has said since, as text.
    pub fn answers(&mut self) -> Vec<String> {
        self.actions();
        let output = self.endpoint.poll_output(self.key, self.now);
        let mut rest = &output[..];
        let mut frames = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let (frame, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            frames.push(format!("{:?}", Frame::decode(frame).expect("a frame of ours").1));
            rest = after;
        }
        frames
    }
}

pub(super) fn segment(dst: u64, len: u64) -> Segment {
    Segment { src: 0x9000, dst, len }
}

#[test]
fn chunks_that_cannot_be_are_failed_and_cost_nothing() {
    for (chunk, segments, why) in [
        (0, vec![], "chunk 0 is of no bytes"),
        (1 << 23, vec![segment(0x10000, 8)], "beyond the 8388608 that a transfer may have"),
        (0, vec![segment(0x10000, 8); 9], "no chunk of this lane"),
        (0, vec![segment(0x10000, 1 << 20), segment(0x10000, 1)], "no chunk of this lane"),
        (0, vec![segment(0x10000, u64::MAX), segment(0x10000, 2)], "no chunk of this lane"),
        (0, vec![segment(0xffff, 8)], "not in a registered region of agent 'us'"),
        (0, vec![segment(u64::MAX - 3, 8)], "past the end of the address space"),
    ] {
        let mut peer = Hostile::up();
        peer.pull(5, chunk, segments);
        assert!(peer.actions().is_empty(), "nothing is posted");
        let [failed] = &peer.answers()[..] else { panic!("one answer") };
        assert!(failed.starts_with("Fail") && failed.contains(why), "{failed} for {why}");
    }
}

#[test]
fn a_chunk_that_is_asked_for_twice_is_pulled_once() {
    let mut peer = Hostile::up();
    peer.pull(5, 0, vec![segment(0x10000, 8)]);
    peer.pull(5, 0, vec![segment(0x10000, 8)]);
    let posts = peer.actions();
    let [Action::Post { token, .. }] = posts[..] else { panic!("{posts:?}") };
    peer.pull(5, 0, vec![segment(0x10000, 8)]);
    peer.endpoint.handle_completed(token, Ok(()), peer.now);
    peer.pull(5, 0, vec![segment(0x10000, 8)]);
    assert!(peer.actions().is_empty() && peer.answers().is_empty());
}

#[test]
fn a_commit_that_comes_twice_is_delivered_once() {
    let mut peer = Hostile::up();
    peer.commit(5);
    peer.commit(5);
    let delivered = peer.actions().iter().filter(|action| matches!(action, Action::Deliver { .. })).count();
    assert_eq!(delivered, 1);
    assert_eq!(peer.answers(), ["Ack { id: TransferId(5), events: 0 }"; 2]);
}

#[test]
fn what_our_host_has_no_room_for_is_not_acknowledged() {
    let mut peer = Hostile::up();
    peer.commit(5);
    assert!(matches!(peer.endpoint.poll_action(peer.now), Some(Action::Deliver { .. })));
    peer.say(&Frame::Event { number: 1, event: Event::Notify { message: b"later" } });
    peer.endpoint.handle_undelivered("them");
    let actions = peer.actions();
    let [Action::Close { reason, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert!(reason.contains("notifications of 'them' are not being read at 'us'"), "{reason}");
    let said = peer.answers();
    assert!(said.len() == 1 && said[0].starts_with("Goodbye"), "{said:?}");
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn a_peer_that_asks_and_does_not_listen_is_given_up() {
    let mut peer = Hostile::up();
    peer.endpoint.mark_loaded(peer.key);
    let message = vec![0; MESSAGE_MAX_BYTES];
    while peer.endpoint.notify("them", &message).is_ok() {}
    peer.endpoint.handle_timeout(peer.now);
    assert!(peer.actions().is_empty(), "our own commands are refused, the stream stays");
    let aborted_bytes = 24;
    for id in 0..(2 * MESSAGE_MAX_BYTES / aborted_bytes) as u64 {
        peer.say(&Frame::Abort { id: TransferId(id), issued: 0 });
    }
    peer.endpoint.handle_timeout(peer.now);
    let actions = peer.actions();
    assert!(
        matches!(&actions[..], [Action::Close { reason, .. }] if reason.contains("does not read its stream")),
        "{actions:?}"
    );
}

#[test]
fn a_hello_that_cannot_be_read_is_answered_with_the_version() {
    let mut peer = Hostile::silent();
    let mut bytes = Vec::new();
    let hello = Hello { link_id: LINK, expected: [1; 16], name: "them", section: b"" };
    Frame::Hello(hello).encode(0, &mut bytes);
    bytes[LENGTH_BYTES + 16] = 9; // the major version
    peer.endpoint.handle_frame(peer.key, &bytes[LENGTH_BYTES..], peer.now);
    let [refused] = &peer.answers()[..] else { panic!("one answer") };
    for part in
        [&format!("{:?}", RefuseReason::Version), "speaks version 9 of the protocol", "agent 'us' version 2"]
    {
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn a_name_that_no_agent_can_have_is_refused() {
    for name in ["", "us", &"x".repeat(2000)] {
        let mut peer = Hostile::silent();
        peer.hello(name, [1; 16]);
        let [refused] = &peer.answers()[..] else { panic!("one answer") };
        assert!(refused.starts_with("Refuse") && refused.len() < 200, "{refused}");
        assert!(
            peer.endpoint.peer(peer.key).is_some_and(|peer| peer.name().is_empty()),
            "it is not remembered"
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn long_texts_are_cut() {
    let mut peer = Hostile::up();
    peer.say(&Frame::Goodbye { text: &"ä".repeat(1 << 20) });
    let actions = peer.actions();
    assert!(matches!(&actions[..], [Action::Close { reason, .. }] if reason.len() < 4000));
}

/// Submits a write of so many chunks that the peer has to pull.
pub(super) fn submit_write(peer: &mut Hostile, chunks: u64) -> TransferId {
    let table = peer.endpoint.regions();
    let scattered = 0..chunks * LANE.segments_per_chunk as u64;
    let descs: Vec<_> =
        scattered.map(|at| Descriptor { addr: 0x10000 + 128 * at, len: 64, device: 0 }).collect();
    let side = |party| Side { party, kind: MemoryKind::Dram, descs: &descs, regions: &*table };
    let caps =
        PlanCaps { segments_per_chunk: LANE.segments_per_chunk, bytes_per_chunk: LANE.bytes_per_chunk };
    let plan = plan(side(Party::Local), side(Party::Remote), caps).expect("a plan");
    let (op, regions) = (TransferOp::Write, vec![RegionKey(1)]);
    let submission =
        Submission { peer: "them".into(), op, lane: 0, plan, gathered: None, regions, sync_message: None };
    peer.endpoint.mark_loaded(peer.key);
    peer.endpoint.submit(submission, peer.now).expect("it is taken")
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn a_long_transfer_lives_while_the_peer_says_that_it_gets_on() {
    let mut peer = Hostile::up();
    let id = submit_write(&mut peer, 30);
    assert!(peer.answers().iter().any(|said| said.starts_with("Commit")));
    for done in 1..21 {
        peer.pass(3000);
        peer.say(&Frame::Heartbeat { said: 0, heard: 1, again: false });
        peer.say(&Frame::Progress { id, done });
        assert!(!peer.answers().iter().any(|said| said.starts_with("Abort")), "it gets on");
    }
    for _ in 0..2 {
        peer.pass(3000);
        peer.say(&Frame::Progress { id, done: 20 });
    }
    assert!(peer.answers().iter().any(|said| said.starts_with("Abort")), "alive is not enough");
}

#[test]
fn the_peer_is_told_that_its_transfers_get_on() {
    let mut peer = Hostile::up();
    peer.pull(5, 0, vec![segment(0x10000, 8)]);
    let actions = peer.actions();
    let [Action::Post { token, .. }] = actions[..] else { panic!("{actions:?}") };
    peer.endpoint.handle_completed(token, Ok(()), peer.now);
    let said = |peer: &mut Hostile| peer.answers().iter().filter(|said| said.starts_with("Progress")).count();
    for (wait_ms, wanted) in [(100, 1), (500, 0)] {
        peer.now += Duration::from_millis(wait_ms);
        peer.endpoint.handle_timeout(peer.now);
        assert_eq!(said(&mut peer), wanted, "after {wait_ms} ms more");
    }
}

#[test]
fn a_stall_of_ours_is_reported_within_a_second_and_again_after_it_came_on() {
    let mut peer = Hostile::up();
    let id = submit_write(&mut peer, 3);
    peer.answers();
    for done in 1..3 {
        let stalls = peer.pass(2000);
        let [(after, stall)] = &stalls[..] else { panic!("{stalls:?}") };
        assert!(*after <= Duration::from_secs(1) && stall.stalled_ms >= 900, "{after:?}");
        let lane = peer.endpoint.lanes()[stall.lane.expect("a lane")].name;
        assert_eq!((stall.peer, stall.id, stall.is_ours, stall.op), (peer.key, id, true, TransferOp::Write));
        assert_eq!(
            (lane, stall.phase, stall.done, stall.chunks),
            (LANE.name, "Committing", done - 1, Some(3))
        );
        assert_eq!(stall.missing.to_string(), "0-2", "it has not said which");
        peer.say(&Frame::Progress { id, done });
    }
}

#[test]
fn a_stall_of_the_peers_transfer_is_reported_with_what_is_missing() {
    let mut peer = Hostile::up();
    for chunk in [0, 1, 4] {
        peer.pull(5, chunk, vec![segment(0x10000 + u64::from(chunk), 1)]);
    }
    let posts = peer.actions();
    let Action::Post { token, .. } = posts[1] else { panic!("{posts:?}") };
    peer.endpoint.handle_completed(token, Ok(()), peer.now);
    let stalls = peer.pass(2000);
    let [(after, stall)] = &stalls[..] else { panic!("{stalls:?}") };
    assert!(*after <= Duration::from_secs(1), "{after:?}");
    assert_eq!((stall.id, stall.is_ours, stall.phase), (TransferId(5), false, "Receiving"));
    assert_eq!((stall.done, stall.chunks, stall.in_flight), (1, None, 2));
    assert_eq!(stall.missing.to_string(), "0, 2-4");
}

#[test]
fn nothing_of_a_transfer_that_is_over_brings_it_back() {
    let mut peer = Hostile::up();
    let (aborted, acked) = (TransferId(5), TransferId(6));
    peer.say(&Frame::Abort { id: aborted, issued: 0 });
    peer.commit(acked.0);
    assert_eq!(
        peer.answers(),
        ["Aborted { id: TransferId(5), sent: 0 }", "Ack { id: TransferId(6), events: 0 }"]
    );
    for (id, last_word) in [(aborted, "Aborted {"), (acked, "Ack {")] {
        peer.pull(id.0, 0, vec![segment(0x10000, 8)]);
        peer.say(&Frame::Send { id, chunk: 1, heard: 0, segments: vec![segment(0x10000, 8)].into() });
        assert!(peer.actions().is_empty() && peer.answers().is_empty(), "late requests are dropped");
        peer.commit(id.0);
        peer.say(&Frame::Abort { id, issued: 3 });
        peer.say(&Frame::Ask { id });
        assert!(peer.actions().is_empty(), "and nothing is delivered again");
        let said = peer.answers();
        assert!(said.len() == 3 && said.iter().all(|said| said.starts_with(last_word)), "{said:?}");
    }
    assert!(!peer.endpoint.is_busy());
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn transfers_whose_ids_leave_gaps_without_end_cost_the_stream() {
    let mut peer = Hostile::up();
    let aborts = (0..).take_while(|n| {
        peer.say(&Frame::Abort { id: TransferId(2 * n), issued: 0 });
        !peer.actions().iter().any(|action| matches!(action, Action::Close { .. }))
    });
    assert_eq!(aborts.count(), 2 * TRANSFERS_PER_PEER_MAX + 2);
}

/// A region that is registered anew at the address of another is not what the peer means that has not heard of it.
#[test]
fn what_is_registered_anew_is_not_touched_for_what_was_there_before() {
    let mut peer = Hostile::up();
    let request = |chunk, heard, dst| Frame::Pull {
        id: TransferId(5),
        chunk,
        heard,
        segments: vec![segment(dst, 8)].into(),
    };
    let add = |peer: &mut Hostile, key, addr| {
        let span = Span { addr, len: 1 << 20 };
        let region = Region { key: RegionKey(key), kind: MemoryKind::Dram, device: 0, span };
        peer.endpoint.add_region(AnnouncedRegion { region, keys: Vec::new() }).expect("a region");
    };
    add(&mut peer, 2, 0x8000);
    peer.say(&request(0, 0, 0x10000));
    assert_eq!(peer.actions().len(), 1, "the older region still holds it");
    peer.say(&request(1, 1, 0x8000));
    assert_eq!(peer.actions().len(), 1, "it has heard of the newer one");
    peer.endpoint.remove_region(RegionKey(1));
    add(&mut peer, 3, 0x10000);
    peer.answers();
    peer.say(&request(2, 2, 0x10_8000));
    assert!(peer.actions().is_empty());
    assert!(peer.answers()[0].contains("is not in a registered region of agent 'us' any more"));
}

/// A peer's lane may be full for as long as it likes: what waits for it is bounded all the same.
#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn requests_of_nothing_do_not_wait_for_room() {
    let mut peer = Hostile::up();
    for chunk in 0..LANE.batches_in_flight as u32 {
        peer.pull(5, chunk, vec![segment(0x10000, 8)]);
    }
    assert_eq!(peer.actions().len(), LANE.batches_in_flight, "the lane is full");
    for id in 6..8 {
        for chunk in 0..1000 {
            peer.say(&Frame::Send { id: TransferId(id), chunk, heard: 0, segments: vec![].into() });
        }
    }
    assert_eq!(peer.endpoint.counters().requests, 0);
    let said = peer.answers();
    assert!(said.len() == 2 && said.iter().all(|said| said.contains("is of no bytes")), "{said:?}");
}

#[test]
fn a_stream_stays_while_the_peer_may_still_write_to_what_is_revoked() {
    let mut peer = Hostile::up_over(LaneSpec { native_write: true, ..LANE });
    peer.say(&Frame::Event { number: 1, event: Event::Loaded { loaded: false } });
    peer.endpoint.remove_region(RegionKey(1));
    let wait = |peer: &mut Hostile| {
        for _ in 0..20 {
            peer.pass(500);
            let said = peer.endpoint.peer(peer.key).map_or(0, |peer| peer.events_out.said());
            peer.say(&Frame::Heartbeat { said: 0, heard: said, again: false });
        }
        let mut actions = peer.actions().into_iter();
        actions.any(|action| matches!(action, Action::Close { .. }))
    };
    assert!(!wait(&mut peer), "it has yet to let go of the region");
    peer.say(&Frame::Event { number: 2, event: Event::RegionReleased { key: RegionKey(1) } });
    assert!(wait(&mut peer), "nobody needs it any more");
}

#[test]
fn whoever_waits_for_a_revoked_region_is_told_when_the_peer_has_let_go_of_it() {
    let mut peer = Hostile::up_over(LaneSpec { native_write: true, ..LANE });
    peer.say(&Frame::Event { number: 1, event: Event::Loaded { loaded: false } });
    peer.endpoint.remove_region(RegionKey(1));
    let is_told = |peer: &mut Hostile, number, key| {
        peer.say(&Frame::Event { number, event: Event::RegionReleased { key: RegionKey(key) } });
        peer.actions().iter().filter(|action| matches!(action, Action::Quieter)).count()
    };
    assert_eq!(is_told(&mut peer, 2, 7), 0, "there is no such region");
    assert!(peer.endpoint.region_is_busy(RegionKey(1)));
    assert_eq!(is_told(&mut peer, 3, 1), 1);
    assert!(!peer.endpoint.region_is_busy(RegionKey(1)));
    assert_eq!(is_told(&mut peer, 4, 1), 0, "once");
}

#[test]
fn whoever_waits_for_a_revoked_region_is_told_when_what_was_landing_there_has_landed() {
    let mut peer = Hostile::up_over(LaneSpec { native_read: false, framed: true, ..LANE });
    let spans = vec![Span { addr: 0x10000, len: 8 }];
    let (id, link) = (TransferId(5), 0x0707_0707_0707_0707);
    let header = DataHeader { link, id, answer: false, heard: 0, chunk: 0, spans };
    let Placement::Scatter { ticket, .. } = peer.endpoint.handle_arrived(peer.key, &header.encode(), 8)
    else {
        panic!("it has a place");
    };
    peer.endpoint.remove_region(RegionKey(1));
    let is_told = |peer: &mut Hostile| peer.actions().iter().any(|action| matches!(action, Action::Quieter));
    assert!(!is_told(&mut peer) && peer.endpoint.region_is_busy(RegionKey(1)));
    peer.endpoint.handle_landed(ticket, Ok(()), peer.now);
    assert!(is_told(&mut peer) && !peer.endpoint.region_is_busy(RegionKey(1)));
}

/// Looking up its spans is what costs most of a data frame: it comes last, and not for what is thrown away anyway.
#[test]
fn the_spans_of_a_data_frame_are_looked_up_last() {
    let mut peer = Hostile::up_over(LaneSpec { native_read: false, framed: true, ..LANE });
    let mut arrive = |chunk, addr, payload| {
        let spans = vec![Span { addr, len: 8 }];
        let (id, link) = (TransferId(5), 0x0707_0707_0707_0707);
        let header = DataHeader { link, id, answer: false, heard: 0, chunk, spans };
        peer.endpoint.handle_arrived(peer.key, &header.encode(), payload)
    };
    assert!(matches!(arrive(0, 0x10000, 8), Placement::Scatter { .. }));
    assert_eq!(arrive(0, 0x10, 8), Placement::Discard);
    let said = peer.answers().concat();
    assert!(said.contains("chunk 0 came twice"), "{said}");
}
