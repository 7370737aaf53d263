//! `local` between two processes: what only a real second process can show.
//!
//! The second process is this test binary again, running [`child`], which takes its orders from stdin.

use std::io::{BufRead, BufReader, IsTerminal, Lines, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use baton::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, TransferOp};
use baton::error::{FabricError, FabricErrorKind};
use baton::fabric::local::{LocalConfig, LocalFabric};
use baton::fabric::{Batch, Credentials, Fabric, Link, Posted, Region};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::log::Log;
use crate::memory::Memory;
use crate::rig::DEADLINE;

/// Bytes of memory that either process has.
const LEN: usize = 8 << 20;
const PEER: PeerKey = PeerKey(1);

/// Not a test: the second process.
#[test]
#[ignore = "started by the other tests of this module"]
fn child() {
    if std::io::stdin().is_terminal() {
        return;
    }
    let mut fabric = Some(LocalFabric::open(LocalConfig::default()).expect("needs nothing"));
    let mut memory = Memory::new(MemoryKind::Dram, LEN);
    memory.fill(child_byte);
    let mut orders = std::io::stdin().lines();
    while let Some(Ok(order)) = orders.next() {
        match order.as_str() {
            "serve" => {
                let address: String =
                    fabric.iter().flat_map(|f| f.address()).map(|b| format!("{b:02x}")).collect();
                println!("\nserving {address} {}", memory.span().addr);
            }
            "close" => {
                fabric = None;
                println!("\nclosed");
            }
            "exec" => {
                println!("\nexec");
                panic!("cannot become another program: {}", Command::new("cat").exec());
            }
            other => panic!("no such order: {other}"),
        }
    }
}

fn child_byte(at: usize) -> u8 {
    (at.wrapping_mul(31) >> 3) as u8
}

#[test]
fn reads_scattered_memory_of_another_process() {
    let mut pair = Pair::connected();
    let segments: Vec<Segment> = (0..1024).map(|at| pair.segment(at * 8192, at * 8192, 4096)).collect();
    let mut wanted = pair.memory.snapshot();
    for segment in &segments {
        let offset = (segment.src - pair.peer.memory_addr) as usize;
        let bytes: Vec<u8> = (offset..offset + 4096).map(|at| child_byte(at + 4096)).collect();
        wanted.put(segment.dst, &bytes);
    }
    let token = pair.post(segments);
    pair.until("the read has completed", |log| log.outcome(token).is_some());
    assert_eq!(pair.log.outcome(token), Some(&Ok(())));
    pair.memory.snapshot().assert_same(&wanted, "destination");
}

#[test]
fn killed_peer_fails_what_is_in_flight() {
    let mut pair = Pair::connected();
    let tokens: Vec<OpToken> = (0..4).map(|_| pair.post(vec![pair.segment(0, 0, LEN as u64)])).collect();
    assert!(pair.fabric.poll(1 << 20, &mut pair.log));
    pair.peer.kill();
    pair.until("every batch has ended", |log| log.in_flight.is_empty());
    let ended = tokens.iter().map(|token| pair.log.outcome(*token).cloned().expect("it ended"));
    ended.for_each(|outcome| assert_kind(&outcome.expect_err("killed"), FabricErrorKind::PeerLost));
    assert_kind(&pair.log.lost[&PEER], FabricErrorKind::PeerLost);
    let late = pair.fabric.post(PEER, pair.batch(vec![pair.segment(0, 0, 1)]));
    assert_kind(&late.expect_err("the peer is lost"), FabricErrorKind::PeerLost);
}

#[test]
fn idle_peer_that_dies_wakes_us() {
    let mut pair = Pair::connected();
    pair.fabric.poll(1 << 20, &mut pair.log);
    assert!(!pair.readable(0), "an idle link wakes us");
    pair.peer.kill();
    assert!(pair.readable(20), "the peer's death does not wake us");
    assert!(pair.fabric.poll(1 << 20, &mut pair.log));
    assert_kind(&pair.log.lost[&PEER], FabricErrorKind::PeerLost);
    assert!(!pair.readable(0), "a death that was reported wakes us again");
}

#[test]
fn peer_that_closes_its_agent_is_lost() {
    lost_after("close");
}

#[test]
fn peer_that_becomes_another_program_is_lost() {
    lost_after("exec");
}

/// Until the order a read succeeds, after it none does, though the process lives.
fn lost_after(order: &str) {
    let mut pair = Pair::connected();
    let good = pair.post(vec![pair.segment(0, 0, 4096)]);
    pair.until("the first read has completed", |log| log.outcome(good).is_some());
    assert_eq!(pair.log.outcome(good), Some(&Ok(())));
    pair.peer.order(order, if order == "close" { "closed" } else { "exec" });
    if order == "exec" {
        pair.peer.wait_until_other_program();
    }
    let bad = pair.post(vec![pair.segment(0, 0, 4096)]);
    pair.until("the second read has ended", |log| !log.lost.is_empty());
    let error = pair.log.outcome(bad).cloned().expect("it ended").expect_err("another program");
    assert_kind(&error, FabricErrorKind::PeerLost);
}

#[test]
fn address_of_one_process_does_not_open_another() {
    let (first, second) = (Peer::start(), Peer::start());
    let mut link = first.link();
    link.credentials = second.link().credentials;
    let mut pair = Pair::open(second);
    pair.fabric.connect(PEER, link);
    pair.until("the connect has ended", |log| log.connected.contains_key(&PEER));
    let error = pair.log.connected[&PEER].clone().expect_err("another process");
    assert_kind(&error, FabricErrorKind::Unreachable);
}

#[test]
fn remote_address_without_memory_fails_the_batch_alone() {
    let mut pair = Pair::connected();
    let hole = Segment { src: 4096, ..pair.segment(0, 8192, 4096) };
    let (bad, good) = (pair.post(vec![hole]), pair.post(vec![pair.segment(0, 0, 4096)]));
    pair.until("both have ended", |log| log.in_flight.is_empty());
    let error = pair.log.outcome(bad).cloned().expect("it ended").expect_err("no memory there");
    assert_kind(&error, FabricErrorKind::InvalidRegion);
    assert!(error.detail.contains("0x1000"), "names the address: {error}");
    assert_eq!(pair.log.outcome(good), Some(&Ok(())));
    assert!(pair.log.lost.is_empty());
}

#[track_caller]
fn assert_kind(error: &FabricError, kind: FabricErrorKind) {
    assert_eq!(error.kind, kind, "{error}");
}

/// The other process. Ends with this value.
struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: Vec<u8>,
    memory_addr: u64,
}

impl Peer {
    fn start() -> Self {
        let mut child = Command::new("/proc/self/exe")
            .args(["--exact", "local::processes::child", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts this binary again");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut peer = Self { child, lines, address: Vec::new(), memory_addr: 0 };
        let line = peer.order("serve", "serving ");
        let mut words = line.split(' ').skip(1);
        let hex = words.next().expect("an address");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        peer.address = (0..hex.len()).step_by(2).map(byte).collect();
        peer.memory_addr = words.next().and_then(|word| word.parse().ok()).expect("an address");
        peer
    }

    /// Gives an order and returns the line that answers it. The process ends, and so does this, if it fails.
    fn order(&mut self, order: &str, answer: &str) -> String {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{order}").expect("the child reads");
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        lines.find(|line| line.starts_with(answer)).expect("the child answers")
    }

    /// Returns once `/proc` names another program.
    fn wait_until_other_program(&self) {
        let deadline = Instant::now() + DEADLINE;
        let comm = format!("/proc/{}/comm", self.child.id());
        while std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() != "cat") {
            assert!(Instant::now() < deadline, "it never becomes cat");
            std::thread::yield_now();
        }
    }

    fn link(&self) -> Link {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let uid = rustix::process::geteuid().as_raw();
        let credentials = Some(Credentials { pid, uid });
        Link { address: self.address.clone(), link_id: [7; 16], credentials, keys: None }
    }

    fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have been killed by its test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Our side and the other process.
struct Pair {
    fabric: LocalFabric,
    memory: Memory,
    log: Log,
    peer: Peer,
    next_token: std::cell::Cell<u64>,
}

impl Pair {
    fn open(peer: Peer) -> Self {
        let mut fabric = LocalFabric::open(LocalConfig::default()).expect("needs nothing");
        let memory = Memory::new(MemoryKind::Dram, LEN);
        let region = Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span: memory.span() };
        // SAFETY: fields drop in order, so the fabric goes before the memory, which is only copied in and out.
        unsafe { fabric.register(&region) }.expect("DRAM registers");
        Self { fabric, memory, log: Log::default(), peer, next_token: 1.into() }
    }

    fn connected() -> Self {
        let mut pair = Self::open(Peer::start());
        pair.fabric.connect(PEER, pair.peer.link());
        pair.until("the link is up", |log| log.connected.contains_key(&PEER));
        assert_eq!(pair.log.connected[&PEER], Ok(()));
        pair
    }

    fn segment(&self, src_offset: u64, dst_offset: u64, len: u64) -> Segment {
        Segment { src: self.peer.memory_addr + src_offset, dst: self.memory.span().addr + dst_offset, len }
    }

    fn batch(&self, segments: Vec<Segment>) -> Batch {
        let token = OpToken(self.next_token.replace(self.next_token.get() + 1));
        Batch { token, op: TransferOp::Read, segments, header: Vec::new() }
    }

    fn post(&mut self, segments: Vec<Segment>) -> OpToken {
        let batch = self.batch(segments);
        let token = batch.token;
        assert_eq!(self.fabric.post(PEER, batch), Ok(Posted::Accepted));
        self.log.in_flight.insert(token, PEER);
        token
    }

    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Log) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(&self.log) {
            assert!(Instant::now() < deadline, "gave up waiting until {what}: {:?}", self.log);
            self.fabric.poll(1 << 20, &mut self.log);
        }
    }

    /// Whether the wake handle is readable, now or within so many seconds.
    fn readable(&self, seconds: i64) -> bool {
        let handle = self.fabric.wake().expect("local has one");
        let mut fds = [PollFd::new(&handle, PollFlags::IN)];
        let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&patience)).expect("poll") > 0
    }
}
