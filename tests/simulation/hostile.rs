//! A peer that breaks the rules: frames that are malformed, doubled, out of turn or lies. They cost the peer
//! its transfer or its stream, never the process, and never a byte outside registered memory.

use baton::desc::{PeerKey, RegionKey, Segment, Span, TransferId, TransferOp};
use baton::proto::endpoint::Placement;
use baton::proto::transfer::TransferError;
use baton::proto::wire::{Commit, DataHeader, Event, Frame, Hello, LENGTH_BYTES, RefuseReason};

use crate::chance::Chance;
use crate::pair::{NAMES, Pair};
use crate::seeds::{Style, on_every_style};

on_every_style!(any_frame_at_any_time);

/// The side that keeps the rules.
const US: usize = 1;

/// Well-formed frames of every kind with half-sensible contents, between real transfers.
fn any_frame_at_any_time(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.host.trusts = false;
    for _ in 0..40 {
        if !pair.is_up() {
            break;
        }
        let n = pair.chance.within(0..2);
        let _refused = pair.submit(n);
        let steps = pair.chance.within(0..30);
        pair.steps(steps);
        let mut chance = Chance::new(pair.chance.number());
        let spans: Vec<_> =
            pair.host.memories(US).chain(pair.host.memories(0)).map(|m| m.span().addr).collect();
        let key = pair.nodes[US].endpoint.peers().map(|(key, _)| key).next();
        if let Some(key) = key {
            any_frame(&mut chance, &spans, |frame| pair.inject(key, frame));
        }
    }
    for n in 0..2 {
        pair.nodes[n].endpoint.close_all();
        pair.act(n);
    }
    pair.drive("both let go", |pair| pair.nodes.iter().all(|node| node.endpoint.peers().count() == 0));
    assert!(pair.nodes.iter().all(|node| !node.endpoint.is_busy()));
    assert_eq!(pair.host.live(), 0, "every transfer has ended");
    (0..2).flat_map(|n| pair.host.memories(n)).for_each(|memory| drop(memory.bytes())); // looks at the guards
}

fn any_frame(chance: &mut Chance, addrs: &[u64], mut say: impl FnMut(&Frame<'_>)) {
    let id = TransferId(chance.within(0..12) as u64);
    let small = chance.within(0..4) as u32;
    let chunk = chance.pick(&[0, 1, 2, 3, u32::MAX]);
    let mut segment = || Segment {
        src: chance.pick(addrs) + chance.within(0..2500) as u64,
        dst: if chance.percent(60) { chance.pick(addrs) } else { u64::MAX - 9 } + chance.within(0..9) as u64,
        len: chance.pick(&[0, 1, 64, 500, u64::MAX]),
    };
    let segments: Vec<_> = (0..small).map(|_| segment()).collect();
    let bytes = chance.bytes(40);
    let bytes = &bytes[..chance.within(0..40)];
    let key = RegionKey(chance.within(0..6) as u32);
    // Those that end the stream whatever else they say come seldom, so that runs get somewhere.
    let kind = if chance.percent(7) {
        chance.within(0..19)
    } else {
        chance.pick(&[3, 4, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18])
    };
    let told = |event| Frame::Event { number: u64::from(small), event };
    match kind {
        0 => say(&Frame::Hello(Hello { link_id: [1; 16], expected: [2; 16], name: "ctx", section: bytes })),
        1 => say(&Frame::Welcome { name: NAMES[0], section: bytes }),
        2 => say(&Frame::Refuse { reason: RefuseReason::NameTaken, text: "no" }),
        3 => say(&Frame::Ready { lanes: vec!["sim", "other"], again: small > 1 }),
        4 => say(&told(Event::Loaded { loaded: small > 1 })),
        5 => say(&told(Event::RegionAdd { region: bytes })),
        6 => say(&told(Event::RegionRemove { key })),
        7 => say(&told(Event::RegionReleased { key })),
        8 => say(&told(Event::Notify { message: bytes })),
        9 | 10 => say(&Frame::Pull { id, chunk, heard: 0, segments: segments.into() }),
        11 | 12 => say(&Frame::Send { id, chunk, heard: 0, segments: segments.into() }),
        13 => {
            let sync_message = (small > 1).then_some(bytes);
            let (op, bytes) = (TransferOp::Write, chance.pick(&[0, 64, u64::MAX]));
            say(&Frame::Commit(Commit { id, op, chunks: small, bytes, events: 0, sync_message }));
        }
        14 => say(&Frame::Ack { id, events: 0 }),
        15 => say(&Frame::Fail { id, text: "no" }),
        16 => say(&Frame::Abort { id, issued: small }),
        17 => say(&Frame::Aborted { id, sent: small }),
        _ => say(&Frame::Progress { id, done: small }),
    }
}

impl Pair {
    /// Hands our side a frame as if the peer had said it on this stream.
    fn inject(&mut self, key: PeerKey, frame: &Frame<'_>) {
        self.inject_only(key, frame);
        self.act(US);
    }

    /// The same, with another frame right behind it.
    fn inject_only(&mut self, key: PeerKey, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(self.nodes[US].tag(key), &mut bytes);
        self.nodes[US].endpoint.handle_frame(key, &bytes[LENGTH_BYTES..], self.now);
    }

    /// Events of the other side that ours has taken.
    fn heard(&self, key: PeerKey) -> u64 {
        self.nodes[US].endpoint.peer(key).map_or(0, |peer| peer.events_heard())
    }

    /// A connected pair whose other side will say only what we inject, and its key on our side.
    fn with_puppet(style: Style) -> (Self, PeerKey) {
        let mut pair = Self::connected(style, 7);
        pair.drive("at rest", |pair| pair.is_quiet());
        pair.host.trusts = false;
        pair.frozen[0] = true;
        let key = pair.key(US);
        (pair, key)
    }

    /// The header of a data frame of transfer 9 comes in.
    fn arrive(&mut self, key: PeerKey, chunk: u32, spans: Vec<Span>, payload: u64) -> Placement {
        let link = self.nodes[US].tag(key);
        let header = DataHeader { link, id: TransferId(9), answer: false, heard: 99, chunk, spans };
        self.nodes[US].endpoint.handle_arrived(key, &header.encode(), payload)
    }

    /// What our side says in answer to this, as text: the frames, without those of time.
    fn answer(&mut self, key: PeerKey, frames: &[Frame<'_>]) -> Vec<String> {
        frames.iter().for_each(|frame| self.inject(key, frame));
        for _ in 0..400 {
            self.nodes[US].poll(1 << 20, self.now);
            self.act(US);
        }
        let mut said = Vec::new();
        let end = &mut self.wires[0].ends[0];
        end.arrive(usize::MAX);
        while let Ok(Some(frame)) = end.next_frame() {
            let (_, frame) = Frame::decode(&frame).expect("what we say is well-formed");
            said.push(format!("{frame:?}"));
        }
        said
    }
}

fn pull(pair: &Pair, id: u64, chunk: u32, len: u64) -> Frame<'static> {
    let (src, dst) = (addr(pair, 0, 0), addr(pair, US, 2));
    Frame::Pull { id: TransferId(id), chunk, heard: 99, segments: vec![Segment { src, dst, len }].into() }
}

fn addr(pair: &Pair, n: usize, memory: usize) -> u64 {
    pair.host.memories(n).nth(memory).expect("four memories").span().addr
}

fn commit(id: u64, chunks: u32, bytes: u64) -> Frame<'static> {
    let (id, op) = (TransferId(id), TransferOp::Write);
    Frame::Commit(Commit { id, op, chunks, bytes, events: 0, sync_message: None })
}

/// The one frame that our side says, which fails transfer 9 with a text.
#[track_caller]
fn assert_fails(said: &[String], text: &str) {
    let [fail] = said else { panic!("said {said:?}") };
    assert!(fail.starts_with("Fail { id: TransferId(9)") && fail.contains(text), "{fail}");
}

/// The one frame that our side says, which acknowledges transfer 9.
#[track_caller]
fn assert_acks(said: &[String]) {
    assert!(said.len() == 1 && said[0].starts_with("Ack { id: TransferId(9)"), "{said:?}");
}

#[test]
fn a_chunk_asked_for_twice_is_moved_once() {
    let (mut pair, key) = Pair::with_puppet(Style::ReadOnly);
    let frames = [pull(&pair, 9, 0, 64), pull(&pair, 9, 0, 64), commit(9, 1, 64), pull(&pair, 9, 0, 64)];
    assert_acks(&pair.answer(key, &frames));
    let said = pair.answer(key, &[Frame::Abort { id: TransferId(9), issued: 0 }]);
    assert_acks(&said); // it had succeeded
    assert!(!pair.nodes[US].endpoint.is_busy());
}

#[test]
fn a_commit_with_other_counts_fails_its_transfer() {
    for (chunks, bytes) in [(1, 63), (1, 65), (0, 64)] {
        let (mut pair, key) = Pair::with_puppet(Style::ReadOnly);
        let frames = [pull(&pair, 9, 0, 64), commit(9, chunks, bytes)];
        assert_fails(&pair.answer(key, &frames), "1 chunks with 64 bytes landed, the commit speaks of");
    }
    let (mut pair, key) = Pair::with_puppet(Style::ReadOnly);
    let frames = [pull(&pair, 9, 0, 64), commit(9, 1, 64)];
    assert_acks(&pair.answer(key, &frames));
}

#[test]
fn a_request_outside_our_regions_fails_its_transfer_and_touches_nothing() {
    let (mut pair, key) = Pair::with_puppet(Style::ReadOnly);
    let before = pair.host.memories(US).map(|memory| memory.bytes()).collect::<Vec<_>>();
    let segments = vec![Segment { src: 0, dst: addr(&pair, US, 2) - 1, len: 64 }];
    let frames = [Frame::Pull { id: TransferId(9), chunk: 0, heard: 99, segments: segments.into() }];
    assert_fails(&pair.answer(key, &frames), "is not in a registered region of agent 'gen'");
    let (mut other, key) = Pair::with_puppet(Style::Framed);
    let segments = vec![Segment { src: addr(&other, US, 0) - 1, dst: 0, len: 64 }];
    let frames = [Frame::Send { id: TransferId(9), chunk: 0, heard: 99, segments: segments.into() }];
    assert_fails(&other.answer(key, &frames), "is not in a registered region of agent 'gen'");
    assert_eq!(before, pair.host.memories(US).map(|memory| memory.bytes()).collect::<Vec<_>>());
}

#[test]
fn a_data_frame_that_lies_is_discarded_and_fails_its_transfer() {
    let span = |addr, len| Span { addr, len };
    for (offset, payload, text) in [
        (0, 65, "a payload of 65 bytes for other spans"),
        (2000, 64, "is not in a registered region"),
        (u64::MAX / 2, 64, "is not in a registered region"),
    ] {
        let (mut pair, key) = Pair::with_puppet(Style::Framed);
        let spans = vec![span(addr(&pair, US, 2).wrapping_add(offset), 64)];
        assert_eq!(pair.arrive(key, 0, spans, payload), Placement::Discard);
        assert_fails(&pair.answer(key, &[]), text);
    }
    let (mut pair, key) = Pair::with_puppet(Style::Framed);
    let spans = vec![span(addr(&pair, US, 2), 64)];
    let first = pair.arrive(key, 0, spans.clone(), 64);
    assert!(matches!(first, Placement::Scatter { .. }), "{first:?}");
    assert_eq!(pair.arrive(key, 0, spans, 64), Placement::Discard);
    assert_fails(&pair.answer(key, &[]), "chunk 0 came twice");
    assert_eq!(pair.arrive(key, 1, vec![span(u64::MAX, 2), span(1, u64::MAX)], 1), Placement::Discard);
    assert!(pair.nodes[US].endpoint.region_is_busy(RegionKey(3)), "the first chunk is landing");
}

/// On lanes that only read, an owner does not wait for its readers: what they read may be anything by then.
#[test]
fn a_read_whose_source_was_revoked_fails_though_it_is_acknowledged() {
    for acked_at_once in [true, false] {
        let (mut pair, key) = Pair::with_puppet(Style::ReadOnly);
        let wish = loop {
            let wish = pair.host.wish(US, &mut pair.chance).expect("free cells");
            if wish.op == TransferOp::Read {
                break wish;
            }
        };
        let index = wish.index;
        let submission = pair.plan(US, wish).expect("registered memory");
        let id = pair.nodes[US].endpoint.submit(submission, pair.now).expect("a loaded peer");
        pair.host.submitted(US, index, id);
        let said = pair.answer(key, &[]);
        assert!(said.iter().any(|frame| frame.starts_with("Commit")), "{said:?}");

        let heard = pair.heard(key);
        let revoked = [1, 2].map(|at| {
            let event = Event::RegionRemove { key: RegionKey(at) };
            Frame::Event { number: heard + u64::from(at), event }
        });
        revoked.iter().for_each(|frame| match acked_at_once {
            true => pair.inject_only(key, frame),
            false => pair.inject(key, frame),
        });
        pair.answer(key, &[Frame::Ack { id, events: 0 }]);
        pair.answer(key, &[Frame::Aborted { id, sent: 0 }]);
        let end = &pair.host.transfers()[index].end;
        assert!(
            matches!(end, Some(Err(TransferError::Remote(_)))),
            "{end:?}, acked at once: {acked_at_once}"
        );
    }
}

#[test]
fn an_early_ack_fails_the_transfer_that_it_lies_about() {
    let (mut pair, key) = Pair::with_puppet(Style::ReadOnly);
    let Ok(Some(index)) = pair.submit(US) else { panic!("it can be submitted") };
    let id = pair.host.live_ids(US)[0];
    pair.nodes[US].endpoint.cancel(id);
    let said = pair.answer(key, &[Frame::Ack { id, events: 0 }]);
    pair.answer(key, &[Frame::Aborted { id, sent: 0 }]);
    assert!(said.iter().any(|frame| frame.starts_with("Abort {")), "{said:?}");
    assert!(matches!(pair.host.transfers()[index].end, Some(Err(_))));
}

#[test]
fn frames_out_of_turn_close_the_stream_with_a_reason() {
    let region = Event::RegionAdd { region: b"short" };
    for (frames, text) in [
        (vec![Frame::Heartbeat { said: 0, heard: 99, again: false }], "it confirms 99 events where"),
        (vec![Frame::Welcome { name: "ctx", section: b"" }], "its section cannot be read"),
        (vec![Frame::Fetch], "a blob was asked for on an agent's stream"),
        (vec![Frame::Event { number: 0, event: region }], "a region it announces cannot be read"),
        (
            vec![Frame::Hello(Hello { link_id: [0; 16], expected: [0; 16], name: "", section: b"" })],
            "a second HELLO",
        ),
    ] {
        let (mut pair, key) = Pair::with_puppet(Style::Framed);
        for mut frame in frames.clone() {
            if let Frame::Event { number, .. } = &mut frame {
                *number = pair.heard(key) + 1;
            }
            pair.inject(key, &frame);
        }
        let (_, _, reason) = pair.closed.first().unwrap_or_else(|| panic!("{frames:?} passed"));
        assert!(reason.contains(text), "{reason}");
        assert!(!pair.nodes[US].endpoint.is_busy());
    }
}

#[test]
fn a_frame_of_another_stream_closes_this_one() {
    let (mut pair, key) = Pair::with_puppet(Style::Framed);
    let mut bytes = Vec::new();
    Frame::Heartbeat { said: 0, heard: 0, again: false }.encode(0xDEAD, &mut bytes);
    pair.nodes[US].endpoint.handle_frame(key, &bytes[LENGTH_BYTES..], pair.now);
    pair.act(US);
    assert!(pair.closed[0].2.contains("0xdead of another stream"), "{:?}", pair.closed);
}

proptest::proptest! {
    /// Bytes that no rule has made, with and without a right head, before and after the handshake.
    #[test]
    fn random_bytes_never_panic(
        kind in 0_u8..24,
        mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..120),
        headed in proptest::bool::ANY,
        early in proptest::bool::ANY,
    ) {
        let (mut pair, mut key) = Pair::with_puppet(Style::Framed);
        if early {
            key = pair.nodes[US].endpoint.open_accepted(pair.now).expect("room");
        }
        if headed {
            let head = [&[kind, 0, 0, 0][..], &pair.nodes[US].tag(key).to_le_bytes()].concat();
            bytes.splice(0..0, head);
        }
        pair.nodes[US].endpoint.handle_frame(key, &bytes, pair.now);
        pair.nodes[US].endpoint.handle_arrived(key, &bytes, 64);
        pair.act(US);
    }
}
