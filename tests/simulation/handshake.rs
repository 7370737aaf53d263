//! How two agents meet: crossing dials, memory that changes meanwhile, and dials that must be refused.

use std::time::Instant;

use baton::desc::SessionId;
use baton::fabric::sim::SimNet;
use baton::proto::endpoint::{Action, CROSSED, Endpoint, Standing};
use baton::proto::session::SessionPhase;
use baton::proto::wire::{Frame, LENGTH_BYTES};

use crate::memory::Memory;
use crate::node::Node;
use crate::pair::{DEADLINES, NAMES, Pair};
use crate::seeds::{Style, config, on_every_style};

on_every_style!(crossing_dials, memory_registered_meanwhile, a_lane_breaks_meanwhile);

/// Both dial, at once or one a little later: one stream is left, nobody has to dial again.
fn crossing_dials(style: Style, seed: u64) {
    let mut pair = Pair::apart(style, seed);
    let first = pair.chance.within(0..2);
    pair.call(first);
    let steps = pair.chance.within(0..30);
    pair.steps(steps);
    let second = 1 - first;
    if pair.nodes[second].endpoint.standing(NAMES[first]) == Standing::Absent {
        pair.call(second);
    }
    pair.drive("both up", |pair| pair.is_up());
    pair.host.stream_opened();
    for n in 0..2 {
        let key = pair.key(n);
        pair.nodes[n].endpoint.mark_loaded(key);
        pair.act(n);
    }
    pair.steps(300);
    let open = pair.wires.iter().filter(|wire| wire.ends.iter().any(|end| end.open)).count();
    assert_eq!(open, 1, "one stream is left");
    assert!(pair.nodes.iter().all(|node| node.endpoint.peers().count() == 1));
    pair.work(5);
    pair.finish();
    assert!(pair.is_up());
}

/// Memory that comes and goes while the handshake is under way is known to the peer once it is over.
fn memory_registered_meanwhile(style: Style, seed: u64) {
    let memories: Vec<_> = (0..6).map(|byte| Memory::new(&[byte; 64])).collect();
    let mut pair = Pair::apart(style, seed); // after the memories, so that its fabrics go before them
    let n = pair.chance.within(0..2);
    pair.call(n);
    for memory in &memories {
        let steps = pair.chance.within(0..8);
        pair.steps(steps);
        let n = pair.chance.within(0..2);
        let key = pair.nodes[n].register(memory.span()).expect("DRAM");
        if pair.chance.percent(40) {
            let steps = pair.chance.within(0..8);
            pair.steps(steps);
            pair.nodes[n].endpoint.remove_region(key);
        }
        pair.act(n);
    }
    pair.drive("both up", |pair| pair.is_up());
    pair.steps(300);
    for n in 0..2 {
        let key = pair.key(1 - n);
        let known = pair.nodes[1 - n].endpoint.peer(key).expect("up").regions();
        let known: Vec<_> = known.iter().collect();
        let ours = pair.nodes[n].endpoint.regions();
        assert_eq!(known, ours.iter().collect::<Vec<_>>(), "what {} knows of {}", NAMES[1 - n], NAMES[n]);
    }
}

/// A lane that breaks after one side has said that it is up: the two never disagree on the lane.
fn a_lane_breaks_meanwhile(style: Style, seed: u64) {
    let mut pair = Pair::apart(style, seed);
    let n = pair.chance.within(0..2);
    pair.call(0);
    let phase = |pair: &Pair| pair.nodes[n].endpoint.peers().next().map(|(_, peer)| peer.phase());
    pair.drive("lanes are settled", |pair| {
        matches!(phase(pair), Some(SessionPhase::Announced | SessionPhase::Up))
    });
    let key = pair.key(n);
    pair.nodes[n].endpoint.handle_lane(key, "sim", Err("it was made to break".into()));
    pair.act(n);
    pair.drive("both let go", |pair| pair.nodes.iter().all(|node| node.endpoint.peers().count() == 0));
    assert!(pair.closed.iter().any(|(.., why)| why.contains("it was made to break")), "{:?}", pair.closed);
    pair.connect();
    pair.work(2);
    pair.finish();
}

/// Two nodes of one net, with sessions that say which is which.
fn two(names: [&str; 2]) -> [Node; 2] {
    let net = SimNet::new(config(Style::Framed, 1));
    [0, 1].map(|n| {
        Node::new(net.open().expect("an eventfd"), names[n], SessionId([n as u8 + 1; 16]), DEADLINES)
    })
}

/// Dials, changes the hello, and returns why the dialer and the acceptor closed the stream.
fn refusal(
    from: &mut Node,
    to: &mut Node,
    expected: SessionId,
    change: impl Fn(&mut Vec<u8>),
) -> [String; 2] {
    let now = Instant::now();
    let name = to.endpoint.identity().name.clone();
    let dialed = from.endpoint.open_dialed(&name, expected, [9; 16], now);
    let accepted = to.endpoint.open_accepted(now).expect("room");
    let mut hello = from.endpoint.poll_output(dialed, now);
    change(&mut hello);
    to.endpoint.handle_frame(accepted, &hello[LENGTH_BYTES..], now);
    let theirs = closing(&mut to.endpoint, now);
    let answer = to.endpoint.poll_output(accepted, now);
    assert!(!answer.is_empty(), "the dialer is told nothing; the acceptor closed because: {theirs}");
    from.endpoint.handle_frame(dialed, &answer[LENGTH_BYTES..], now);
    let ours = closing(&mut from.endpoint, now);
    from.endpoint.handle_closed(dialed, &ours);
    to.endpoint.handle_closed(accepted, &theirs);
    assert_eq!(from.endpoint.standing(&name), Standing::Absent);
    [ours, theirs]
}

fn closing(endpoint: &mut Endpoint, now: Instant) -> String {
    match endpoint.poll_action(now) {
        Some(Action::Close { reason, .. }) => reason,
        other => panic!("not closed: {other:?}"),
    }
}

fn session(node: &Node) -> SessionId {
    node.endpoint.identity().section.session
}

#[test]
fn a_stale_session_is_refused_by_name() {
    let [mut from, mut to] = two(NAMES);
    let [ours, _] = refusal(&mut from, &mut to, SessionId([7; 16]), |_| {});
    assert_eq!(ours, "the peer refused the stream: agent 'gen' has been restarted since that blob was made");
}

#[test]
fn another_agent_of_a_live_ones_name_is_refused() {
    let net = SimNet::new(config(Style::Framed, 1));
    let node =
        |name, byte| Node::new(net.open().expect("an eventfd"), name, SessionId([byte; 16]), DEADLINES);
    let (mut first, mut second, mut to) = (node("ctx", 1), node("ctx", 2), node("gen", 3));
    let now = Instant::now();
    let (expected, accepted) = (session(&to), to.endpoint.open_accepted(now).expect("room"));
    let dialed = first.endpoint.open_dialed("gen", expected, [8; 16], now);
    let hello = first.endpoint.poll_output(dialed, now);
    to.endpoint.handle_frame(accepted, &hello[LENGTH_BYTES..], now);
    while to.endpoint.poll_action(now).is_some() {}

    let [ours, _] = refusal(&mut second, &mut to, expected, |_| {});
    assert_eq!(ours, "the peer refused the stream: a live agent is already known as 'ctx'");
    let [ours, _] = refusal(&mut first, &mut to, expected, |_| {});
    assert_eq!(ours, CROSSED, "the same agent again is a crossing, not a clash");
}

#[test]
fn ones_own_name_no_name_and_an_endless_name_are_refused() {
    let [mut from, mut to] = two(["gen", "gen"]);
    let expected = session(&to);
    let [ours, _] = refusal(&mut from, &mut to, expected, |_| {});
    assert_eq!(ours, "the peer refused the stream: the dialer has our own name");
    let endless = "x".repeat(100_000);
    for name in ["", endless.as_str()] {
        let [mut from, mut to] = two([name, "gen"]);
        let expected = session(&to);
        let [ours, _] = refusal(&mut from, &mut to, expected, |_| {});
        assert!(ours.starts_with("the peer refused the stream: "), "{}", &ours[..200.min(ours.len())]);
    }
}

#[test]
fn a_malformed_section_is_refused_with_its_fault() {
    let [mut from, mut to] = two(NAMES);
    let (expected, ends) = (session(&to), section_start("ctx"));
    let [ours, _] = refusal(&mut from, &mut to, expected, |hello| hello[ends] = b'X');
    assert_eq!(ours, "the peer refused the stream: not a Baton section: it does not begin with \"BATN\"");
    let [ours, _] = refusal(&mut from, &mut to, expected, |hello| hello[ends + 4] = 9);
    assert!(ours.contains("version 9.0 of Baton's format") && ours.contains("install the same"), "{ours}");
    for cut in 1..60 {
        let [ours, _] = refusal(&mut from, &mut to, expected, |hello| {
            hello.truncate(hello.len() - cut);
            let length = (hello.len() - ends) as u32;
            hello[ends - 4..ends].copy_from_slice(&length.to_le_bytes());
        });
        assert!(ours.contains("truncated"), "cut by {cut}: {ours}");
    }
}

#[test]
fn another_protocol_is_refused_with_both_versions() {
    let [mut from, mut to] = two(NAMES);
    let expected = session(&to);
    let major_at = LENGTH_BYTES + 12 + 4;
    let [ours, theirs] = refusal(&mut from, &mut to, expected, |hello| hello[major_at] = 9);
    let text = "the dialer speaks version 9 of the protocol and agent 'gen' version 2: install the same release on \
                both sides";
    assert_eq!([ours, theirs], [format!("the peer refused the stream: {text}"), format!("refused: {text}")]);
    let [ours, _] = refusal(&mut from, &mut to, expected, |hello| hello[LENGTH_BYTES + 12] = b'X');
    assert!(ours.starts_with("the peer refused the stream: ") && ours.contains("magic"), "{ours}");
}

#[test]
fn an_answer_in_anothers_name_is_not_taken() {
    let [mut from, mut to] = two(NAMES);
    let (now, expected) = (Instant::now(), session(&to));
    for (name, session) in [("other", expected), ("gen", SessionId([5; 16]))] {
        let key = from.endpoint.open_dialed("gen", expected, [9; 16], now);
        let mut section = to.endpoint.identity().section.clone();
        section.session = session;
        let mut bytes = Vec::new();
        section.encode(&mut bytes);
        let mut welcome = Vec::new();
        Frame::Welcome { name, section: &bytes }.encode(u64::from_le_bytes([9; 8]), &mut welcome);
        from.endpoint.handle_frame(key, &welcome[LENGTH_BYTES..], now);
        let reason = closing(&mut from.endpoint, now);
        assert!(reason.contains("answered in its place"), "{reason}");
        from.endpoint.handle_closed(key, &reason);
    }
    drop(to.endpoint.poll_action(now));
}

/// Where the section begins in a hello: behind length, head, magic, versions, link, session, name, length.
fn section_start(name: &str) -> usize {
    LENGTH_BYTES + 12 + 4 + 4 + 16 + 16 + 4 + name.len() + 4
}
