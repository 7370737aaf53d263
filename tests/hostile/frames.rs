//! Bytes on an agent's port that are no handshake, or stop being one: the connection closes, memory stays bounded,
//! others are served.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use baton::agent::Agent;
use baton::config::EngineSettings;
use baton::desc::{RegionKey, TransferId};
use baton::proto::endpoint::MESSAGE_MAX_BYTES;
use baton::proto::wire::{Event, FRAME_MAX_BYTES, Frame, HELLO_MAX_BYTES, LENGTH_BYTES};

use crate::mutation::Chance;
use crate::puppet::{
    Papers, Puppet, WATCHDOG, agent, alone, assert_serves, beside, closes, eventually, hello, knock,
    settings, with_settings,
};

/// What strangers may make a process keep, whatever they say: far less than one of the frames that they announce.
const GROWTH_MAX_BYTES: usize = 24 << 20;

#[test]
fn a_frame_before_the_handshake_may_have_its_limit_and_no_byte_more() {
    let _alone = alone();
    let agent = agent("ctx");
    // The longest may be announced: it is waited for. Whoever announces it has to send it before it costs anything.
    let mut patient = knock(&agent);
    patient.write_all(&(HELLO_MAX_BYTES as u32).to_le_bytes()).expect("said");
    for length in [HELLO_MAX_BYTES as u32 + 1, u32::MAX, 0, 11] {
        let mut stream = knock(&agent);
        stream.write_all(&[&length.to_le_bytes()[..], &[0; 28]].concat()).expect("said");
        assert!(closes(&mut stream), "a frame of {length} bytes");
    }
    patient.set_nonblocking(true).expect("a socket");
    let waits = std::io::Read::read(&mut patient, &mut [0]).expect_err("it is still there");
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_frame_after_the_handshake_may_have_its_limit_and_no_byte_more() {
    let _alone = alone();
    let agent = agent("ctx");
    // A FAIL whose text fills the frame, for a transfer that is none: ignored. What is said after it is answered.
    let fail = |text| Frame::Fail { id: TransferId(1), text };
    let mut empty = Vec::new();
    fail("").encode(0, &mut empty);
    let text = "x".repeat(FRAME_MAX_BYTES - (empty.len() - LENGTH_BYTES));
    let mut good = Puppet::meet(&agent, Papers::default());
    good.say(&fail(&text));
    good.tell(Event::RegionRemove { key: RegionKey(9) });
    good.hear("RegionReleased");

    let mut bad = Puppet::meet(&agent, Papers::default());
    bad.control.write_all(&(FRAME_MAX_BYTES as u32 + 1).to_le_bytes()).expect("said");
    assert!(closes(&mut bad.control));
    assert_serves(&agent);
}

#[test]
fn a_message_may_have_its_limit_and_no_byte_more() {
    let _alone = alone();
    let (ctx, gene) = (agent("ctx"), agent("gen"));
    ctx.load_blob(gene.name(), &gene.local_blob()).expect("it loads");
    let error = ctx.notify(gene.name(), &vec![1; MESSAGE_MAX_BYTES + 1]).expect_err("too long").to_string();
    assert!(error.contains("8388609 bytes") && error.contains("the limit of 8388608"), "{error}");
    ctx.notify(gene.name(), &vec![2; MESSAGE_MAX_BYTES]).expect("the longest");
    let got = eventually("the longest message", || gene.take_notifications().pop());
    assert_eq!(got.0, ctx.name());
    assert!(matches!(&got.1[..], [message] if *message == vec![2; MESSAGE_MAX_BYTES]));
}

#[test]
fn lengths_of_four_gib_cost_nothing() {
    let _alone = alone();
    let agent = agent("ctx");
    let before = resident();
    let hello = hello(&agent, &Papers::default(), None).0;
    for at in [LENGTH_BYTES + 12 + 4 + 2 + 2 + 16 + 16, hello.len() - 4] {
        let mut bytes = hello.clone();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut stream = knock(&agent);
        stream.write_all(&bytes).expect("said");
        assert!(closes(&mut stream), "a length of 4 GiB at byte {at}");
    }
    // A stock agent's message, by its length field; and a ZeroMQ frame of 2^64 - 1 bytes.
    let zeromq = [&b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL"[..], &[0; 48], &[2], &[0xff; 8]].concat();
    for bytes in
        [&b"\0\0\0\0\x01\0\0\0NIXLCOMM:"[..], b"\xff\xff\xff\xff\xff\xff\xff\xffNIXLCOMM:LOAD", &zeromq]
    {
        knock(&agent).write_all(bytes).expect("said");
    }
    assert_serves(&agent);
    assert_bounded(before);
}

/// A hello that is cut anywhere, by a peer that then hangs up, is nobody's.
#[test]
fn a_truncated_hello_leaves_nothing_behind() {
    let _alone = alone();
    let agent = agent("ctx");
    let (before, descriptors) = (resident(), open_descriptors());
    let hello = hello(&agent, &Papers::default(), None).0;
    for cut in (0..hello.len()).step_by(7) {
        knock(&agent).write_all(&hello[..cut]).expect("said");
    }
    assert_serves(&agent);
    eventually("every socket closes", || (open_descriptors() <= descriptors).then_some(()));
    assert_bounded(before);
}

#[test]
fn random_bytes_leave_nothing_behind() {
    let _alone = alone();
    let agent = agent("ctx");
    let (before, descriptors) = (resident(), open_descriptors());
    let hello = hello(&agent, &Papers::default(), None).0;
    let mut chance = Chance::new(58);
    for turn in 0..300 {
        let noise: Vec<u8> = (0..chance.below(2000)).map(|_| chance.number() as u8).collect();
        let mut stream = knock(&agent);
        // Behind nothing, behind a length that fits, or in a whole HELLO.
        let bytes = match turn % 3 {
            0 => noise,
            1 => [&(noise.len() as u32).to_le_bytes()[..], &noise].concat(),
            _ => crate::mutation::mutated(&mut chance, &hello, &noise),
        };
        let _ = stream.write_all(&bytes); // it may have closed already
    }
    assert_serves(&agent);
    eventually("every socket closes", || (open_descriptors() <= descriptors).then_some(()));
    assert_bounded(before);
}

/// One byte, and then nothing more: closed when its time is over, and nobody waits for it.
#[test]
fn who_does_not_go_on_is_closed_at_the_deadline_and_others_are_served() {
    let _beside = beside();
    let agent = agent("ctx");
    let hello = hello(&agent, &Papers::default(), None).0;
    let begun = Instant::now();
    let mut slow: Vec<_> = [&hello[..1], &hello[..hello.len() - 1], b"N", &b"\x09\0\0\0\0\0\0\0NIXL"[..]]
        .into_iter()
        .map(|bytes| {
            let mut stream = knock(&agent);
            stream.write_all(bytes).expect("said");
            stream
        })
        .collect();
    assert_serves(&agent);
    assert!(slow.iter_mut().all(closes), "none may stay");
    assert!(begun.elapsed() >= Duration::from_secs(4), "they had their time: {:?}", begun.elapsed());
}

/// The other half of a handshake has a deadline, too.
#[test]
fn who_says_hello_and_nothing_more_is_closed_at_the_deadline() {
    let _beside = beside();
    let settings = EngineSettings {
        connect_timeout: Duration::from_millis(300),
        ..settings(|lanes| lanes.stream_tcp = true)
    };
    let agent = with_settings("ctx", settings);
    let mut puppet = Puppet::greet(&agent, Papers::default());
    let words = puppet.last_words();
    assert!(words.contains("its handshake took longer than 300 ms"), "{words}");
}

/// Whoever is dialed may be hostile as well.
#[test]
fn a_listener_that_answers_with_nonsense_is_refused_and_costs_nothing() {
    let _alone = alone();
    let settings = EngineSettings {
        connect_timeout: Duration::from_millis(500),
        ..settings(|lanes| lanes.stream_tcp = true)
    };
    let agent = with_settings("gen", settings);
    let before = resident();
    let mut blob = Vec::new();
    Frame::Blob { bytes: &[0xff; 1000] }.encode(0, &mut blob);
    let mut endless = blob.clone();
    endless[LENGTH_BYTES + 12..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    for (answer, expected) in [
        ([0xff; 32].to_vec(), "frame length holds 0xffffffff"),
        ((HELLO_MAX_BYTES as u32).to_le_bytes().to_vec(), "no answer before the deadline"),
        (endless, "truncated: blob wants 4294967295 bytes"),
        (blob, "not a NIXL metadata document"),
    ] {
        let error = load_from_one_that_answers(&agent, answer);
        assert!(error.contains(expected), "{error}");
    }
    assert_bounded(before);
}

fn load_from_one_that_answers(agent: &Agent, answer: Vec<u8>) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        stream.write_all(&answer).expect("said");
        closes(&mut stream);
    });
    let error = agent.load_from("ctx", &address).expect_err("it is no agent").to_string();
    serving.join().expect("the listener ends");
    error
}

/// Resident bytes of this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("our own statistics");
    let pages: usize =
        text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

#[track_caller]
fn assert_bounded(before: usize) {
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX_BYTES, "the process has grown by {grown} bytes");
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("our own descriptors").count()
}

/// One peer's frames are handled so many at a time; those that are left wait for no other to come.
#[test]
fn a_burst_of_frames_is_heard_to_its_end() {
    let _alone = alone();
    let agent = agent("ctx");
    let mut peer = Puppet::meet(&agent, Papers::default());
    let count = 20_000_u32;
    (0..count).for_each(|at| peer.tell(Event::Notify { message: &at.to_le_bytes() }));
    let mut heard = Vec::new();
    eventually("all of them", || {
        heard.extend(agent.take_notifications().into_iter().flat_map(|(_, messages)| messages));
        (heard.len() == count as usize).then_some(())
    });
    assert!(heard.iter().zip(0..count).all(|(message, at)| *message == at.to_le_bytes()), "in order");
}

/// A notification that is lost with its stream is no error of anybody's call: it is counted, and the log names it.
#[test]
fn notifications_that_nobody_has_confirmed_are_counted_when_the_stream_ends() {
    let _alone = alone();
    for confirmed in [0, 2] {
        let agent = agent("ctx");
        let mut peer = Puppet::meet(&agent, Papers { stream: true, ..Papers::default() });
        agent.load_blob(peer.name(), &peer.blob(&agent)).expect("it is up");
        for message in [b"a", b"b"] {
            agent.notify(peer.name(), message).expect("it is loaded");
            peer.hear("Notify");
        }
        if confirmed > 0 {
            // The word that it let go of a region, LOADED, and these.
            peer.say(&Frame::Heartbeat { said: peer.told(), heard: confirmed + 2, again: false });
        }
        peer.say(&Frame::Goodbye { text: "that was all" });
        peer.last_words();
        eventually("it is lost", || (agent.counters().mishaps.peers_lost == 1).then_some(()));
        assert_eq!(agent.counters().mishaps.notifications_unconfirmed, 2 - confirmed);
    }
}
