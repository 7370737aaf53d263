//! `local` between two processes: what only a real second process can show.

use std::time::Instant;

use baton::desc::{MemoryKind, OpToken, Segment};
use baton::error::FabricErrorKind;
use baton::fabric::Fabric;
use baton::fabric::local::{LocalConfig, LocalFabric};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::processes::{PEER, Pair, Peer, Setting, assert_kind, obey, reads_scattered_memory};
use crate::rig::DEADLINE;

const LOCAL: Setting =
    Setting { open, kind: MemoryKind::Dram, len: 8 << 20, other: "local::processes::child" };

/// Not a test: the second process.
#[test]
#[ignore = "started by the other tests of this module"]
fn child() {
    obey(&LOCAL);
}

fn open() -> Box<dyn Fabric> {
    Box::new(LocalFabric::open(LocalConfig::default()).expect("needs nothing"))
}

#[test]
fn reads_scattered_memory_of_another_process() {
    reads_scattered_memory(&LOCAL);
}

#[test]
fn killed_peer_fails_what_is_in_flight() {
    let mut pair = Pair::connected(&LOCAL);
    let far = pair.import();
    let all = pair.segment(&far, 0, 0, far.span.len);
    let tokens: Vec<OpToken> = (0..4).map(|_| pair.post(vec![all])).collect();
    assert!(pair.fabric.poll(1 << 20, &mut pair.log));
    pair.peer.kill();
    pair.until("every batch has ended", |log| log.in_flight.is_empty());
    let ended = tokens.iter().map(|token| pair.log.outcome(*token).cloned().expect("it ended"));
    ended.for_each(|outcome| assert_kind(&outcome.expect_err("killed"), FabricErrorKind::PeerLost));
    assert_kind(&pair.log.lost[&PEER], FabricErrorKind::PeerLost);
    let late = pair.fabric.post(PEER, pair.batch(vec![pair.segment(&far, 0, 0, 1)]));
    assert_kind(&late.expect_err("the peer is lost"), FabricErrorKind::PeerLost);
}

#[test]
fn idle_peer_that_dies_wakes_us() {
    let mut pair = Pair::connected(&LOCAL);
    pair.fabric.poll(1 << 20, &mut pair.log);
    assert!(!is_readable(&*pair.fabric, 0), "an idle link wakes us");
    pair.peer.kill();
    assert!(is_readable(&*pair.fabric, 20), "the peer's death does not wake us");
    assert!(pair.fabric.poll(1 << 20, &mut pair.log));
    assert_kind(&pair.log.lost[&PEER], FabricErrorKind::PeerLost);
    assert!(!is_readable(&*pair.fabric, 0), "a death that was reported wakes us again");
}

/// Whether the wake handle is readable, now or within so many seconds.
fn is_readable(fabric: &dyn Fabric, seconds: i64) -> bool {
    let handle = fabric.wake().expect("local has one");
    let mut fds = [PollFd::new(&handle, PollFlags::IN)];
    let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&patience)).expect("poll") > 0
}

#[test]
fn peer_that_closes_its_agent_is_lost() {
    lost_after("close", |_| ());
}

#[test]
fn peer_that_becomes_another_program_is_lost() {
    lost_after("exec", wait_until_other_program);
}

/// Until the order a read succeeds, after it none does, though the process lives.
fn lost_after(order: &str, wait_for_it: fn(&Peer)) {
    let mut pair = Pair::connected(&LOCAL);
    let far = pair.import();
    let segment = pair.segment(&far, 0, 0, 4096);
    pair.copy_and_check(vec![(far, segment)]);
    pair.peer.order(order);
    wait_for_it(&pair.peer);
    let bad = pair.post(vec![segment]);
    pair.until("the second read has ended", |log| !log.lost.is_empty());
    let error = pair.log.outcome(bad).cloned().expect("it ended").expect_err("another program");
    assert_kind(&error, FabricErrorKind::PeerLost);
}

/// Returns once `/proc` names another program.
fn wait_until_other_program(peer: &Peer) {
    let deadline = Instant::now() + DEADLINE;
    let comm = format!("/proc/{}/comm", peer.pid());
    while std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() != "cat") {
        assert!(Instant::now() < deadline, "it never becomes cat");
        std::thread::yield_now();
    }
}

#[test]
fn address_of_one_process_does_not_open_another() {
    let (first, second) = (Peer::start(&LOCAL), Peer::start(&LOCAL));
    let mut link = first.link();
    link.credentials = second.link().credentials;
    let mut pair = Pair::open(&LOCAL, second);
    pair.fabric.connect(PEER, link);
    pair.until("the connect has ended", |log| log.connected.contains_key(&PEER));
    let error = pair.log.connected[&PEER].clone().expect_err("another process");
    assert_kind(&error, FabricErrorKind::Unreachable);
}

#[test]
fn remote_address_without_memory_fails_the_batch_alone() {
    let mut pair = Pair::connected(&LOCAL);
    let far = pair.import();
    let hole = Segment { src: 4096, ..pair.segment(&far, 0, 8192, 4096) };
    let (bad, good) = (pair.post(vec![hole]), pair.post(vec![pair.segment(&far, 0, 0, 4096)]));
    pair.until("both have ended", |log| log.in_flight.is_empty());
    let error = pair.log.outcome(bad).cloned().expect("it ended").expect_err("no memory there");
    assert_kind(&error, FabricErrorKind::InvalidRegion);
    assert!(error.detail.contains("0x1000"), "names the address: {error}");
    assert_eq!(pair.log.outcome(good), Some(&Ok(())));
    assert!(pair.log.lost.is_empty());
}
