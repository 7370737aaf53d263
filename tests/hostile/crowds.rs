//! Too many: peers, handshakes, transfers, descriptors.

use std::net::TcpStream;

use baton::agent::{DescriptorList, SubmitError, TransferRequest};
use baton::desc::{Descriptor, MemoryKind, Region, RegionKey, Span, TransferId, TransferOp};
use baton::proto::endpoint::{PEERS_MAX, TRANSFERS_PER_PEER_MAX};
use baton::proto::plan::MAX_DESCRIPTORS;
use baton::proto::section::AnnouncedRegion;
use baton::proto::wire::{Commit, Event, Frame};

use crate::memory::Pool;
use crate::puppet::{
    Papers, Puppet, WATCHDOG, agent, alone, assert_serves, beside, closes, eventually, knock, settings,
    with_settings,
};

#[test]
fn peers_up_to_the_limit_are_kept_apart_and_one_more_is_refused() {
    let _alone = alone();
    let agent = agent("ctx");
    let mut peers: Vec<_> = (0..PEERS_MAX).map(|_| Puppet::meet(&agent, Papers::default())).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.tell(Event::Notify { message: &(number as u32).to_le_bytes() });
    }
    let mut heard = Vec::new();
    eventually("a message of each", || {
        heard.extend(agent.take_notifications());
        (heard.len() >= PEERS_MAX).then_some(())
    });
    // Not one is taken for another: not the 257th for the first, either.
    for (number, peer) in peers.iter().enumerate() {
        let of_peer = heard.iter().filter(|(from, _)| from == peer.name());
        let messages: Vec<_> = of_peer.flat_map(|(_, messages)| messages).collect();
        assert_eq!(messages, [&(number as u32).to_le_bytes().to_vec()], "{}", peer.name());
    }
    let refusal = Puppet::answer_to(&agent, &crate::puppet::hello(&agent, &Papers::default(), None).0);
    assert!(refusal.contains("Unavailable") && refusal.contains("has 1024 peers already"), "{refusal}");
    let other = self::agent("gen");
    let error = agent.load_blob(other.name(), &other.local_blob()).expect_err("no room either").to_string();
    assert!(error.contains("this agent has 1024 peers already; invalidate"), "{error}");
    let error = other.load_blob(agent.name(), &agent.local_blob()).expect_err("no room there").to_string();
    assert!(
        error.contains("the peer refused the stream") && error.contains("has 1024 peers already"),
        "{error}"
    );
    // Room for it when somebody has left.
    peers.pop();
    eventually("room", || {
        let answer = Puppet::answer_to(&agent, &crate::puppet::hello(&agent, &Papers::default(), None).0);
        answer.starts_with("Welcome").then_some(())
    });
}

/// Connections that say nothing: as many as the limit may wait, the oldest gives way to one more, and all of them hold
/// nobody up.
#[test]
fn handshakes_up_to_the_limit_may_wait_and_lock_nobody_out() {
    let _alone = alone();
    let agent = agent("ctx");
    let mut silent: Vec<TcpStream> = (0..HANDSHAKES_MAX).map(|_| knock(&agent)).collect();
    let honest = self::agent("honest");
    honest.load_from(agent.name(), &agent.connection_info()).expect("it is let in");
    assert!(closes(&mut silent[0]), "it has waited longest");
    silent.drain(..3); // the fetch and the stream have taken a place each, and more where something was said twice
    silent.iter_mut().for_each(|stream| stream.set_nonblocking(true).expect("a socket"));
    let waits = |stream: &mut TcpStream| {
        let read = std::io::Read::read(stream, &mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    };
    assert!(silent.iter_mut().all(waits), "nobody else was closed");
}

/// As in `src/agent/lobby.rs`.
const HANDSHAKES_MAX: usize = 64;

/// Transfers to a peer that never acknowledges one.
#[test]
fn transfers_up_to_the_limit_may_be_unfinished_and_one_more_is_refused() {
    let _alone = alone();
    let agent = agent("ctx");
    let pool = Pool::new(4096, 1);
    pool.register(&agent);
    let span = Span { addr: 1 << 40, len: 4096 };
    let region = Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span };
    let regions = vec![AnnouncedRegion { region, keys: Vec::new() }];
    let peer = Puppet::meet(&agent, Papers { regions, stream: true, ..Papers::default() });
    load(&agent, &peer);
    let dram = |addr| DescriptorList {
        kind: MemoryKind::Dram,
        descs: vec![Descriptor { addr, len: 8, device: 0 }].into(),
    };
    let request = TransferRequest {
        op: TransferOp::Write,
        local: dram(pool.addr()),
        remote: dram(span.addr),
        peer: peer.name().to_owned(),
        sync_message: None,
    };
    let unfinished: Vec<_> =
        (0..TRANSFERS_PER_PEER_MAX).map(|_| agent.submit(&request).expect("within the limit")).collect();
    let error = agent.submit(&request).expect_err("one too many");
    assert!(matches!(error, SubmitError::Command { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("has 4096 unfinished transfers already; wait for some to end"), "{text}");
    drop(peer);
    drop(unfinished);
    assert_serves(&agent);
}

/// Transfers of a peer's that it never finishes.
#[test]
fn a_peer_may_leave_as_many_transfers_unfinished_and_not_one_more() {
    let _beside = beside();
    let agent = agent("ctx");
    let commit = |id| {
        let (id, op) = (TransferId(id), TransferOp::Write);
        Frame::Commit(Commit { id, op, chunks: 1, bytes: 64, events: 0, sync_message: None })
    };
    let mut peer = Puppet::meet(&agent, Papers { stream: true, ..Papers::default() });
    (0..TRANSFERS_PER_PEER_MAX as u64).for_each(|id| peer.say(&commit(id)));
    // An answer proves that all of that was taken.
    peer.tell(Event::RegionRemove { key: RegionKey(9) });
    peer.hear("RegionReleased");
    peer.say(&commit(TRANSFERS_PER_PEER_MAX as u64));
    let words = peer.last_words();
    assert!(words.contains("it has too many unfinished transfers"), "{words}");
    assert_serves(&agent);
}

#[test]
fn a_transfer_may_have_two_million_descriptors_over_the_local_lane() {
    longest_transfer(|lanes| lanes.local = true);
}

#[test]
fn a_transfer_may_have_two_million_descriptors_over_the_stream() {
    longest_transfer(|lanes| lanes.stream_tcp = true);
}

/// A manifest that spans thousands of frames: every byte arrives, every byte between stays. One descriptor more is an
/// error that says so.
fn longest_transfer(choose: impl Fn(&mut baton::config::LaneChoice)) {
    let _alone = alone();
    assert_eq!(MAX_DESCRIPTORS, 1 << 21);
    let (ctx, gene) = (with_settings("ctx", settings(&choose)), with_settings("gen", settings(&choose)));
    let len = 2 * (MAX_DESCRIPTORS + 1);
    let (from, to) = (Pool::new(len, 0x11), Pool::new(len, 0xee));
    from.register(&ctx);
    to.register(&gene);
    ctx.load_blob(gene.name(), &gene.local_blob()).expect("it loads");
    let every_other = |pool: &Pool, count: usize| {
        let descs = (0..count).map(|at| Descriptor { addr: pool.addr() + 2 * at as u64, len: 1, device: 0 });
        DescriptorList { kind: MemoryKind::Dram, descs: descs.collect() }
    };
    let request = |count| TransferRequest {
        op: TransferOp::Write,
        local: every_other(&from, count),
        remote: every_other(&to, count),
        peer: gene.name().to_owned(),
        sync_message: Some(b"all of it".to_vec()),
    };
    let error = ctx.submit(&request(MAX_DESCRIPTORS + 1)).expect_err("one too many").to_string();
    assert!(error.contains("2097153") && error.contains("2097152"), "{error}");
    let transfer = ctx.submit(&request(MAX_DESCRIPTORS)).expect("the longest");
    let state = transfer.wait(Some(WATCHDOG));
    assert_eq!(state, baton::agent::TransferState::Success, "{}", transfer.error_text());
    let bytes = to.bytes();
    let (moved, between): (Vec<_>, Vec<_>) = bytes.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip();
    assert!(moved[..MAX_DESCRIPTORS].iter().all(|byte| *byte == 0x11) && moved[MAX_DESCRIPTORS] == 0xee);
    assert!(between.iter().all(|byte| *byte == 0xee));
}

/// Our host loads a puppet that is up already.
fn load(agent: &baton::agent::Agent, peer: &Puppet) {
    agent.load_blob(peer.name(), &peer.blob(agent)).expect("it is up");
}
