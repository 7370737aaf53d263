//! `cuda` between two processes: memory of the other one is mapped.
//!
//! The second process is this test binary again, running [`owner`], which takes its orders from stdin. Both have a GPU: the
//! same one, or each the stand-in for one.

use std::io::{BufRead, BufReader, IsTerminal, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use baton::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferOp};
use baton::device::DeviceBuffer;
use baton::error::{FabricError, FabricErrorKind};
use baton::fabric::cuda::CudaFabric;
use baton::fabric::{Batch, Credentials, Fabric, Link, Posted, Region};

use crate::gpu;
use crate::log::Log;
use crate::memory::Memory;
use crate::rig::DEADLINE;

/// Bytes of a piece of memory that either process has.
const LEN: usize = 4 << 20;
const PEER: PeerKey = PeerKey(1);

/// Not a test: the second process.
#[test]
#[ignore = "started by the other tests of this module"]
fn owner() {
    if std::io::stdin().is_terminal() {
        return;
    }
    let mut fabric = open();
    println!("\n@{}", hex(&fabric.address()));
    let mut held: Vec<DeviceBuffer> = Vec::new();
    for order in std::io::stdin().lines().map_while(Result::ok) {
        assert_eq!(order, "share", "the only order there is");
        let mut buffer = gpu::memory(LEN);
        let seed = held.len();
        let bytes: Vec<u8> = (0..LEN).map(|at| their_byte(seed, at)).collect();
        buffer.write(0, &bytes).expect("device memory");
        let key = RegionKey(seed as u32 + 1);
        let region = Region { key, kind: MemoryKind::Vram, device: 0, span: buffer.span() };
        // SAFETY: the buffers live until this process ends.
        let key_bytes = unsafe { fabric.register(&region) }.expect("VRAM registers");
        println!("\n@{} {}", buffer.span().addr, hex(&key_bytes));
        held.push(buffer);
    }
}

fn open() -> CudaFabric {
    let Ok(cuda) = gpu::cuda() else { panic!("the stand-in is always there") };
    CudaFabric::open(cuda).expect("a driver is all it needs")
}

fn their_byte(seed: usize, at: usize) -> u8 {
    (at.wrapping_mul(31) >> 3) as u8 ^ seed as u8
}

#[test]
fn reads_scattered_memory_of_another_process() {
    let mut pair = Pair::connected();
    let far = pair.import(1);
    for round in 0..3_u64 {
        let segments: Vec<_> =
            (0..2048).map(|at| pair.segment(far, at * 2048, at * 2040 + round, 1000 + at % 7)).collect();
        pair.copy_and_check(0, far, segments);
    }
}

#[test]
fn one_batch_reads_several_allocations() {
    let mut pair = Pair::connected();
    let spans: Vec<Span> = (1..=5).map(|key| pair.import(key)).collect();
    let mut wanted = pair.memory.snapshot();
    let mut segments = Vec::new();
    for at in 0..500_u64 {
        let seed = at as usize % spans.len();
        let segment = pair.segment(spans[seed], at * 4096, at * 8192, 4096);
        let offset = (at * 4096) as usize;
        let bytes: Vec<u8> = (offset..offset + 4096).map(|byte| their_byte(seed, byte)).collect();
        wanted.put(segment.dst, &bytes);
        segments.push(segment);
    }
    let token = pair.post(segments);
    pair.until("the read has completed", |log| log.outcome(token).is_some());
    assert_eq!(pair.log.outcome(token), Some(&Ok(())));
    pair.memory.snapshot().assert_same(&wanted, "destination");
}

#[test]
fn what_was_withdrawn_is_not_read_any_more() {
    let mut pair = Pair::connected();
    let (first, second) = (pair.import(1), pair.import(2));
    pair.copy_and_check(0, first, vec![pair.segment(first, 0, 0, 4096)]);
    let region = Region { key: RegionKey(1), kind: MemoryKind::Vram, device: 0, span: first };
    pair.fabric.import(PEER, &region, None).expect("withdrawing is no error");
    let late = pair.fabric.post(PEER, pair.batch(vec![pair.segment(first, 0, 0, 4096)]));
    assert_kind(&late.expect_err("it was withdrawn"), FabricErrorKind::InvalidRegion);
    pair.copy_and_check(1, second, vec![pair.segment(second, 0, 0, 4096)]);
}

#[test]
fn killed_peer_fails_what_comes_after() {
    let mut pair = Pair::connected();
    let far = pair.import(1);
    pair.copy_and_check(0, far, vec![pair.segment(far, 0, 0, 4096)]);
    pair.peer.child.kill().expect("it runs");
    pair.until("the peer is lost", |log| log.lost.contains_key(&PEER));
    assert_kind(&pair.log.lost[&PEER], FabricErrorKind::PeerLost);
    let late = pair.fabric.post(PEER, pair.batch(vec![pair.segment(far, 0, 0, 1)]));
    assert_kind(&late.expect_err("the peer is lost"), FabricErrorKind::PeerLost);
}

#[test]
fn a_handle_that_is_none_is_refused_and_one_that_lies_fails_its_batch() {
    let mut pair = Pair::connected();
    let (far, mut key_bytes) = pair.peer.share();
    let region = |span| Region { key: RegionKey(1), kind: MemoryKind::Vram, device: 0, span };
    let noise = pair.fabric.import(PEER, &region(far), Some(&[0xA5; 40]));
    assert_kind(&noise.expect_err("noise"), FabricErrorKind::InvalidRegion);
    let beyond = Span { len: far.len + 4096, ..far };
    let wide = pair.fabric.import(PEER, &region(beyond), Some(&key_bytes));
    assert_kind(&wide.expect_err("more than the allocation"), FabricErrorKind::InvalidRegion);
    let last = key_bytes.len() - 64; // the driver's handle
    key_bytes[last..].fill(0xA5);
    pair.fabric.import(PEER, &region(far), Some(&key_bytes)).expect("it looks like one");
    let token = pair.post(vec![pair.segment(far, 0, 0, 4096)]);
    pair.until("the batch has ended", |log| log.outcome(token).is_some());
    let error =
        pair.log.outcome(token).cloned().expect("it ended").expect_err("the driver refuses the handle");
    assert!(error.to_string().contains("cuIpcOpenMemHandle"), "{error}");
}

#[track_caller]
fn assert_kind(error: &FabricError, kind: FabricErrorKind) {
    assert_eq!(error.kind, kind, "{error}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// The other process; killed when it is dropped.
struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: Vec<u8>,
}

impl Peer {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "cuda::processes::owner", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the same program starts again");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut peer = Self { child, lines, address: Vec::new() };
        peer.address = unhex(&peer.answer());
        peer
    }

    /// The next line that is meant for us; the process's end ends the wait.
    fn answer(&mut self) -> String {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        let answer = lines.find_map(|line| line.strip_prefix('@').map(str::to_owned));
        answer.expect("the other process answers")
    }

    /// Memory of its, filled and registered there: where, and the key bytes.
    fn share(&mut self) -> (Span, Vec<u8>) {
        writeln!(self.child.stdin.as_mut().expect("piped"), "share").expect("it reads");
        let answer = self.answer();
        let (addr, key_bytes) = answer.split_once(' ').expect("both");
        (Span { addr: addr.parse().expect("an address"), len: LEN as u64 }, unhex(key_bytes))
    }

    fn link(&self) -> Link {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        let uid = rustix::process::geteuid().as_raw();
        let credentials = Some(Credentials { pid, uid });
        Link { address: self.address.clone(), link_id: [7; 16], credentials, keys: None }
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
    fabric: CudaFabric,
    memory: Memory,
    log: Log,
    peer: Peer,
    next_token: u64,
}

impl Pair {
    fn connected() -> Self {
        let mut fabric = open();
        let memory = Memory::new(MemoryKind::Vram, LEN);
        let region = Region { key: RegionKey(1), kind: MemoryKind::Vram, device: 0, span: memory.span() };
        // SAFETY: fields drop in order, so the fabric goes before the memory, which is only copied in and out.
        unsafe { fabric.register(&region) }.expect("VRAM registers");
        let mut pair = Self { fabric, memory, log: Log::default(), peer: Peer::start(), next_token: 1 };
        pair.fabric.connect(PEER, pair.peer.link());
        pair.until("the link is up", |log| log.connected.contains_key(&PEER));
        assert_eq!(pair.log.connected[&PEER], Ok(()));
        pair
    }

    /// Another piece of the peer's memory, announced.
    fn import(&mut self, key: u32) -> Span {
        let (span, key_bytes) = self.peer.share();
        let region = Region { key: RegionKey(key), kind: MemoryKind::Vram, device: 0, span };
        self.fabric.import(PEER, &region, Some(&key_bytes)).expect("a handle");
        span
    }

    fn segment(&self, far: Span, src_offset: u64, dst_offset: u64, len: u64) -> Segment {
        Segment { src: far.addr + src_offset, dst: self.memory.span().addr + dst_offset, len }
    }

    fn batch(&self, segments: Vec<Segment>) -> Batch {
        Batch { token: OpToken(self.next_token), op: TransferOp::Read, segments, header: Vec::new() }
    }

    fn post(&mut self, segments: Vec<Segment>) -> OpToken {
        let batch = self.batch(segments);
        self.next_token += 1;
        let token = batch.token;
        assert_eq!(self.fabric.post(PEER, batch), Ok(Posted::Accepted));
        self.log.in_flight.insert(token, PEER);
        token
    }

    /// Reads segments of the peer's memory that was filled with this seed, and looks at every byte.
    #[track_caller]
    fn copy_and_check(&mut self, seed: usize, far: Span, segments: Vec<Segment>) {
        let mut wanted = self.memory.snapshot();
        for segment in &segments {
            let offset = (segment.src - far.addr) as usize;
            let bytes: Vec<u8> =
                (offset..offset + segment.len as usize).map(|at| their_byte(seed, at)).collect();
            wanted.put(segment.dst, &bytes);
        }
        let token = self.post(segments);
        self.until("the read has completed", |log| log.outcome(token).is_some());
        assert_eq!(self.log.outcome(token), Some(&Ok(())));
        self.memory.snapshot().assert_same(&wanted, "destination");
    }

    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Log) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(&self.log) {
            assert!(Instant::now() < deadline, "gave up waiting until {what}: {:?}", self.log);
            self.fabric.poll(1 << 20, &mut self.log);
        }
    }
}
