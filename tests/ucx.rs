//! The ucx fabric against real UCX: two fabrics in one process, and two processes.
//!
//! `BATON_UCX_LIBRARY` names another libucp than the system's. Where there is no UCX, or only one that would
//! emulate puts, each test says so by name and passes.

use std::fmt::Debug;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use baton::config::Environment;
use baton::desc::{MemoryKind, OpToken, PeerKey, Region, RegionKey, Segment, Span, TransferOp};
use baton::device::{Cuda, DeviceConfig};
use baton::error::{FabricError, FabricErrorKind};
use baton::fabric::registry::{self, RegistryConfig};
use baton::fabric::ucx::{UcxConfig, UcxFabric};
use baton::fabric::{Batch, Credentials, Fabric, Landing, Link, Posted, Sink};
use tracing::field::Field;
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Metadata, Subscriber};

const PEER: PeerKey = PeerKey(1);
const OURS: RegionKey = RegionKey(10);
const THEIRS: RegionKey = RegionKey(20);
const DEADLINE: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
/// What one batch of this fabric may have at most.
const LARGEST_BATCH: u64 = 4 * MIB;

#[test]
fn writes_and_reads_arrive_whole() {
    let Some((mut a, b)) = pair("writes_and_reads_arrive_whole", 8 * MIB) else { return };
    a.memory.fill(|offset| (offset * 7 + 1) as u8);
    b.memory.fill(|_| 0xee);
    // Odd lengths, from 1 byte to more than one of the fabric's pieces, with gaps that must stay untouched.
    let lens = [1, 7, 64, 4096, 65_537, 512 * 1024, 700_001, 1_100_000];
    let mut segments = Vec::new();
    let mut at = 0;
    for len in lens {
        segments.push(Segment { src: a.memory.at(at + 3), dst: b.memory.at(at), len });
        at += len + 13;
    }
    a.run(TransferOp::Write, segments.clone()).expect("the write arrives");
    let mut at = 0;
    for len in lens {
        assert_eq!(b.memory.bytes(at, len), a.memory.bytes(at + 3, len), "{len} bytes at {at}");
        assert_eq!(b.memory.bytes(at + len, 13), vec![0xee; 13], "the gap behind {len} bytes");
        at += len + 13;
    }
    a.memory.fill(|_| 0);
    let back =
        segments.iter().map(|&Segment { src, dst, len }| Segment { src: dst, dst: src, len }).collect();
    a.run(TransferOp::Read, back).expect("the read arrives");
    let mut at = 0;
    for len in lens {
        assert_eq!(a.memory.bytes(at + 3, len), b.memory.bytes(at, len), "{len} bytes at {at}");
        at += len + 13;
    }
}

#[test]
fn many_batches_complete_once_each_and_a_full_queue_hands_back() {
    let name = "many_batches_complete_once_each_and_a_full_queue_hands_back";
    let Some((mut a, b)) = pair(name, LARGEST_BATCH) else { return };
    let (mut posted, mut full) = (0, 0);
    let end = Instant::now() + DEADLINE;
    while posted < 200 {
        assert!(Instant::now() < end, "{posted} posted");
        let batch = Batch {
            token: OpToken(posted),
            op: TransferOp::Write,
            segments: vec![Segment { src: a.memory.at(0), dst: b.memory.at(0), len: LARGEST_BATCH }],
            header: Vec::new(),
        };
        match a.fabric.post(PEER, batch.clone()).expect("accepted or full") {
            Posted::Accepted => posted += 1,
            Posted::Full(again) => {
                assert_eq!(again, batch);
                full += 1;
                a.fabric.poll(MIB, &mut a.record);
            }
        }
    }
    a.poll_until(|record| record.completed.len() == 200);
    let mut tokens: Vec<u64> = a.record.completed.iter().map(|(token, _)| token.0).collect();
    tokens.sort_unstable();
    assert_eq!(tokens, (0..200).collect::<Vec<_>>());
    assert!(a.record.completed.iter().all(|(_, outcome)| outcome.is_ok()));
    assert!(
        a.record.flushing.iter().all(|(_, is_over)| !is_over),
        "a flush comes before the end of its batch"
    );
    let mut flushing: Vec<u64> = a.record.flushing.iter().map(|(token, _)| token.0).collect();
    let flushes = flushing.len(); // 0 where each flush is over at once
    flushing.sort_unstable();
    flushing.dedup();
    assert_eq!(flushing.len(), flushes, "a batch is flushed once");
    assert!(full > 0, "200 batches of 4 MiB never filled the queue");
}

#[test]
fn addresses_outside_the_regions_are_refused_and_nothing_moves() {
    let name = "addresses_outside_the_regions_are_refused_and_nothing_moves";
    let Some((mut a, b)) = pair(name, MIB) else { return };
    b.memory.fill(|_| 0xee);
    let stray = [0_u8; 64];
    let (ours, theirs) = (a.memory.at(0), b.memory.at(0));
    let bad = [
        Segment { src: stray.as_ptr().addr() as u64, dst: theirs, len: 64 },
        Segment { src: ours + MIB - 1, dst: theirs, len: 2 },
        Segment { src: u64::MAX - 1, dst: theirs, len: 4 },
        Segment { src: ours, dst: theirs + MIB - 1, len: 2 },
        Segment { src: ours, dst: u64::MAX - 1, len: 4 },
        Segment { src: ours, dst: theirs, len: 0 },
    ];
    for segment in bad {
        // A good segment ahead of the bad one must not move either.
        let good = Segment { src: ours, dst: theirs, len: 16 };
        let batch = Batch {
            token: OpToken(1),
            op: TransferOp::Write,
            segments: vec![good, segment],
            header: Vec::new(),
        };
        let error = a.fabric.post(PEER, batch).expect_err("outside");
        assert_eq!(error.kind, FabricErrorKind::InvalidRegion, "{error}");
    }
    a.fabric.poll(MIB, &mut a.record);
    assert!(a.record.completed.is_empty());
    assert!(b.memory.bytes(0, MIB).iter().all(|byte| *byte == 0xee));
    // Forgotten regions are outside too.
    let one = |a: &Side, b: &Side| vec![Segment { src: a.memory.at(0), dst: b.memory.at(0), len: 16 }];
    a.fabric.import(PEER, &b.region(THEIRS), None).expect("withdrawn");
    let error = a.run(TransferOp::Write, one(&a, &b)).expect_err("withdrawn");
    assert_eq!(error.kind, FabricErrorKind::InvalidRegion, "{error}");
    a.fabric.import(PEER, &b.region(THEIRS), Some(&b.key)).expect("announced again");
    a.run(TransferOp::Write, one(&a, &b)).expect("good again");
    a.fabric.deregister(OURS);
    let error = a.run(TransferOp::Write, one(&a, &b)).expect_err("deregistered");
    assert_eq!(error.kind, FabricErrorKind::InvalidRegion, "{error}");
}

#[test]
fn bad_keys_addresses_and_regions_are_refused_by_name() {
    let Some((mut a, b)) = pair("bad_keys_addresses_and_regions_are_refused_by_name", MIB) else { return };
    let region = b.region(RegionKey(21));
    for bad in [&[][..], &b.key[..b.key.len() - 1], &[0; 64], b"BUXK"] {
        let error = a.fabric.import(PEER, &region, Some(bad)).expect_err("a bad key");
        assert_eq!(error.kind, FabricErrorKind::InvalidRegion, "{error}");
    }
    let good = b.fabric.address();
    for (peer, bad) in [(5, vec![]), (6, good[..good.len() - 1].to_vec()), (7, vec![0xff; good.len()])] {
        let link = Link { address: bad, link_id: [0; 16], credentials: None, keys: None };
        a.fabric.connect(PeerKey(peer), link);
        a.poll_until(|record| !record.connected.is_empty());
        let (who, outcome) = a.record.connected.remove(0);
        assert_eq!((who, outcome.unwrap_err().kind), (PeerKey(peer), FabricErrorKind::Unreachable));
    }
    let vram = Region { kind: MemoryKind::Vram, key: RegionKey(30), ..a.region(OURS) };
    let wraps = Region { key: RegionKey(31), span: Span { addr: u64::MAX, len: 2 }, ..a.region(OURS) };
    for (region, kind) in [(vram, FabricErrorKind::Unsupported), (wraps, FabricErrorKind::InvalidRegion)] {
        // SAFETY: refused before anything is touched.
        let error = unsafe { a.fabric.register(&region) }.expect_err("refused");
        assert_eq!(error.kind, kind, "{error}");
    }
    let error = a.fabric.post(PeerKey(9), a.batch(TransferOp::Write, Vec::new())).expect_err("nobody");
    assert_eq!(error.kind, FabricErrorKind::Unreachable);
}

#[test]
fn gpu_memory_is_refused_by_name_and_host_memory_goes_on() {
    let name = "gpu_memory_is_refused_by_name_and_host_memory_goes_on";
    let Some((mut a, b)) = pair(name, MIB) else { return };
    assert_eq!(a.fabric.limits().kinds, [MemoryKind::Dram]);
    let why = a.fabric.without_vram().expect("no transport of ours reaches both kinds").to_owned();
    assert!(why.contains("UCX 1.") && why.contains("(cma,posix)"), "{why}");
    let vram = Region { kind: MemoryKind::Vram, ..a.region(RegionKey(30)) };
    let pinning = a.fabric.pinning().expect("ucx pins");
    // SAFETY: refused before anything is touched.
    for refused in [unsafe { a.fabric.register(&vram) }.map(drop), unsafe { pinning.pin(&vram) }] {
        let error = refused.expect_err("GPU memory");
        assert_eq!(error.kind, FabricErrorKind::Unsupported, "{error}");
        for named in [&vram.key.to_string(), "VRAM", &why, "`stream`"] {
            assert!(error.detail.contains(named), "{named:?} is not in: {error}");
        }
    }
    a.memory.fill(|offset| (offset % 251) as u8);
    let whole = vec![Segment { src: a.memory.at(0), dst: b.memory.at(0), len: MIB }];
    a.run(TransferOp::Write, whole).expect("the write arrives");
    assert_eq!(b.memory.bytes(0, MIB), a.memory.bytes(0, MIB));
}

#[test]
fn with_a_driver_one_line_says_why_gpu_memory_takes_another_lane() {
    if Side::open("with_a_driver_one_line_says_why_gpu_memory_takes_another_lane", MIB).is_none() {
        return;
    }
    let stand_in = DeviceConfig { library: Some(fake_cuda::library()) };
    let driver = Cuda::open(&stand_in).expect("the stand-in is always there");
    for (driver, told) in [(None, 0), (Some(driver), 1)] {
        let lines = Lines::default();
        let opened = tracing::subscriber::with_default(lines.clone(), || {
            registry::open(RegistryConfig { ucx: Some(config()), driver, ..RegistryConfig::default() })
        });
        assert!(opened.iter().all(|lane| lane.name == "ucx" && lane.outcome.is_ok()));
        let lines = lines.0.lock().expect("whole");
        let about = |line: &&String| line.contains("GPU memory goes over other lanes. UCX 1.");
        assert_eq!(lines.iter().filter(about).count(), told, "{lines:?}");
    }
}

#[test]
fn nothing_is_told_after_disconnect() {
    let Some((mut a, b)) = pair("nothing_is_told_after_disconnect", LARGEST_BATCH) else { return };
    a.memory.fill(|_| 0x5a);
    let segments = vec![Segment { src: a.memory.at(0), dst: b.memory.at(0), len: LARGEST_BATCH }];
    let batch = a.batch(TransferOp::Write, segments);
    assert_eq!(a.fabric.post(PEER, batch), Ok(Posted::Accepted));
    a.fabric.disconnect(PEER);
    b.memory.fill(|_| 0xee);
    while a.fabric.poll(MIB, &mut a.record) {}
    assert!(a.record.completed.is_empty() && a.record.lost.is_empty(), "{:?}", a.record);
    assert!(
        b.memory.bytes(0, LARGEST_BATCH).iter().all(|byte| *byte == 0xee),
        "a byte landed after disconnect"
    );
    assert!(a.wake_is_quiet(), "an idle fabric must not ask to be polled");
    a.fabric.disconnect(PEER);
}

#[test]
fn the_wake_handle_follows_the_work() {
    let Some((mut a, b)) = pair("the_wake_handle_follows_the_work", MIB) else { return };
    assert!(a.wake_is_quiet());
    let batch =
        a.batch(TransferOp::Write, vec![Segment { src: a.memory.at(0), dst: b.memory.at(0), len: MIB }]);
    a.fabric.post(PEER, batch).expect("accepted");
    assert!(!a.wake_is_quiet(), "work is in flight");
    a.poll_until(|record| !record.completed.is_empty());
    assert!(a.wake_is_quiet());
}

#[test]
fn an_idle_process_is_written_and_its_death_is_told() {
    let name = "an_idle_process_is_written_and_its_death_is_told";
    for with_pid in [true, false] {
        let Some(mut a) = Side::open(name, 4 * MIB) else { return };
        let mut target = Target::spawn(4 * MIB);
        a.link_to(&target, with_pid);
        a.memory.fill(|offset| (offset % 251) as u8);
        // The target sits in read(2) all along: what arrives, arrives by our hand alone.
        let whole = vec![Segment { src: a.memory.at(0), dst: target.addr, len: 4 * MIB }];
        a.run(TransferOp::Write, whole.clone()).expect("the write arrives");
        assert_eq!(target.ask("sum"), sum(&a.memory.bytes(0, 4 * MIB)).to_string());

        target.child.kill().expect("our own child");
        target.child.wait().expect("our own child");
        let died = Instant::now();
        let mut outcome = Ok(());
        while outcome.is_ok() {
            assert!(died.elapsed() < DEADLINE, "copies to a dead process went on");
            outcome = a.run(TransferOp::Write, whole.clone());
        }
        let error = outcome.unwrap_err();
        assert_eq!(error.kind, FabricErrorKind::PeerLost, "{error}");
        a.poll_until(|record| !record.lost.is_empty());
        assert_eq!(a.record.lost.len(), 1);
        assert_eq!(a.record.lost[0].0, PEER);
        let error = a.run(TransferOp::Read, vec![Segment { src: target.addr, dst: a.memory.at(0), len: 64 }]);
        assert_eq!(error.unwrap_err().kind, FabricErrorKind::PeerLost);
        a.fabric.disconnect(PEER);
        assert!(a.wake_is_quiet());
    }
}

#[test]
fn a_process_killed_under_load_ends_every_batch() {
    for op in [TransferOp::Write, TransferOp::Read] {
        let Some(mut a) = Side::open("a_process_killed_under_load_ends_every_batch", LARGEST_BATCH) else {
            return;
        };
        let mut target = Target::spawn(LARGEST_BATCH);
        a.link_to(&target, false);
        let end = Instant::now() + DEADLINE;
        let (mut accepted, mut killed) = (0, false);
        loop {
            assert!(Instant::now() < end, "{accepted} accepted, {} completed", a.record.completed.len());
            let far = (target.addr, a.memory.at(0));
            let (src, dst) = if op == TransferOp::Read { far } else { (far.1, far.0) };
            let batch = a.batch(op, vec![Segment { src, dst, len: LARGEST_BATCH }]);
            match a.fabric.post(PEER, batch) {
                Ok(Posted::Accepted) => accepted += 1,
                Ok(Posted::Full(_)) => {
                    a.fabric.poll(MIB, &mut a.record);
                }
                Err(error) => {
                    assert_eq!(error.kind, FabricErrorKind::PeerLost, "{error}");
                    break;
                }
            }
            if accepted == 20 && !killed {
                killed = true;
                target.child.kill().expect("our own child");
                target.child.wait().expect("our own child");
            }
        }
        a.poll_until(|record| record.completed.len() == accepted && !record.lost.is_empty());
        let failed = a.record.completed.iter().filter(|(_, outcome)| outcome.is_err()).count();
        assert!(failed >= 1, "the death must be seen in a batch");
        a.fabric.disconnect(PEER);
    }
}

#[test]
fn another_process_behind_the_address_is_noticed() {
    let Some(mut a) = Side::open("another_process_behind_the_address_is_noticed", MIB) else { return };
    let target = Target::spawn(MIB);
    let mut forged = target.address.clone();
    // The nonce ends 4 bytes before the end; the sum behind it is made good again.
    let body = forged.len() - 4;
    forged[body - 1] ^= 1;
    let fnv = forged[..body]
        .iter()
        .fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    forged[body..].copy_from_slice(&fnv.to_le_bytes());
    a.fabric.connect(PEER, Link { address: forged, link_id: [0; 16], credentials: None, keys: None });
    a.poll_until(|record| !record.connected.is_empty());
    let error = a.record.connected.remove(0).1.expect_err("the nonce is another");
    assert_eq!(error.kind, FabricErrorKind::Unreachable, "{error}");
}

#[test]
fn a_library_that_is_missing_or_not_allowed_is_named() {
    let refused = |config: UcxConfig| UcxFabric::open(config).err().expect("refused");
    let error = refused(UcxConfig { user_tls: Some("tcp".to_owned()), ..config() });
    assert_eq!(error.kind, FabricErrorKind::Unsupported);
    assert!(error.to_string().contains("UCX_TLS=tcp"), "{error}");
    // A loaded copy comes first, and other tests of this process may have loaded one.
    let config = UcxConfig { library: Some("/nonexistent/libucp.so.0".into()), user_tls: None };
    if let Err(error) = UcxFabric::open(config)
        && error.to_string().contains("cannot load")
    {
        assert_eq!(error.kind, FabricErrorKind::Unsupported);
        assert!(error.to_string().contains("/nonexistent/libucp.so.0"), "{error}");
        assert!(error.to_string().contains("BATON_UCX_LIBRARY"), "{error}");
    }
}

/// Not a test: the process that [`Target::spawn`] starts. It never polls its fabric.
#[test]
#[ignore = "the other process of the tests above"]
fn target_process() {
    let mut lines = std::io::stdin().lines().map_while(Result::ok);
    let Some(len) = lines.next().and_then(|line| line.parse().ok()) else { return };
    let Some(mut side) = Side::open("target_process", len) else { return };
    println!();
    println!("@{} {} {}", hex(&side.fabric.address()), hex(&side.key), side.memory.at(0));
    for line in lines {
        assert_eq!(line, "sum");
        println!("@{}", sum(&side.memory.bytes(0, len)));
    }
    side.fabric.deregister(OURS);
}

/// The other process, and what it announced.
struct Target {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: Vec<u8>,
    key: Vec<u8>,
    addr: u64,
    len: u64,
}

impl Target {
    fn spawn(len: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "target_process", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the same program starts again");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (address, key) = (Vec::new(), Vec::new());
        let mut target = Self { child, stdin, stdout, address, key, addr: 0, len };
        let said = target.ask(&len.to_string());
        let fields: Vec<&str> = said.split(' ').collect();
        let [address, key, addr] = fields[..] else { panic!("{said}") };
        (target.address, target.key) = (unhex(address), unhex(key));
        target.addr = addr.parse().expect("an address");
        target
    }

    /// Sends a line and waits for an answer; the child's end also ends the wait.
    fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").expect("the target reads");
        loop {
            let mut answer = String::new();
            assert_ne!(self.stdout.read_line(&mut answer).expect("text"), 0, "the target ended");
            if let Some(answer) = answer.trim_end().strip_prefix('@') {
                return answer.to_owned();
            }
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A fabric with one registered region.
struct Side {
    // Before the memory: the fabric ends first.
    fabric: UcxFabric,
    key: Vec<u8>,
    memory: Memory,
    record: Record,
}

impl Side {
    fn open(test: &str, len: u64) -> Option<Self> {
        let mut fabric = match UcxFabric::open(config()) {
            Ok(fabric) => fabric,
            Err(error) => {
                assert_eq!(error.kind, FabricErrorKind::Unsupported, "{error}");
                println!("skipped: {test} ({error})");
                return None;
            }
        };
        let memory = Memory::new(len);
        // SAFETY: the memory outlives the fabric and is only touched through raw pointers.
        let key = unsafe { fabric.register(&memory.region(OURS)) }.expect("plain memory registers");
        Some(Self { fabric, key, memory, record: Record::default() })
    }

    fn region(&self, key: RegionKey) -> Region {
        self.memory.region(key)
    }

    fn connect(&mut self, link: Link, region: Region, key: &[u8]) {
        self.fabric.connect(PEER, link);
        self.fabric.import(PEER, &region, Some(key)).expect("a good key");
        self.poll_until(|record| !record.connected.is_empty());
        let (peer, outcome) = self.record.connected.remove(0);
        outcome.expect("connected");
        assert_eq!(peer, PEER);
    }

    fn link_to(&mut self, target: &Target, with_pid: bool) {
        let pid = target.child.id() as i32;
        let credentials = with_pid.then_some(Credentials { pid, uid: 0 });
        let link = Link { address: target.address.clone(), link_id: [0; 16], credentials, keys: None };
        let span = Span { addr: target.addr, len: target.len };
        let region = Region { key: THEIRS, kind: MemoryKind::Dram, device: 0, span };
        self.connect(link, region, &target.key);
    }

    fn batch(&self, op: TransferOp, segments: Vec<Segment>) -> Batch {
        Batch { token: OpToken(77), op, segments, header: Vec::new() }
    }

    /// Posts one batch and sees it through.
    fn run(&mut self, op: TransferOp, segments: Vec<Segment>) -> Result<(), FabricError> {
        let batch = self.batch(op, segments);
        assert_eq!(self.fabric.post(PEER, batch)?, Posted::Accepted);
        self.poll_until(|record| !record.completed.is_empty());
        let (token, outcome) = self.record.completed.remove(0);
        assert_eq!(token, OpToken(77));
        outcome
    }

    fn poll_until(&mut self, done: impl Fn(&Record) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !done(&self.record) {
            assert!(Instant::now() < end, "nothing came within {DEADLINE:?}: {:?}", self.record);
            self.fabric.poll(MIB, &mut self.record);
        }
    }

    fn wake_is_quiet(&self) -> bool {
        let fd = self.fabric.wake().expect("ucx has a handle");
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).expect("poll") == 0
    }
}

/// Two sides in this process, connected to each other.
fn pair(test: &str, len: u64) -> Option<(Side, Side)> {
    let (mut a, mut b) = (Side::open(test, len)?, Side::open(test, len)?);
    let own = Some(Credentials { pid: std::process::id() as i32, uid: 0 });
    let link =
        |side: &Side| Link { address: side.fabric.address(), link_id: [0; 16], credentials: own, keys: None };
    let (to_a, to_b) = (link(&a), link(&b));
    a.connect(to_b, b.region(THEIRS), &b.key);
    b.connect(to_a, a.region(THEIRS), &a.key);
    Some((a, b))
}

fn config() -> UcxConfig {
    let library = Environment::from_process().setting("BATON_UCX_LIBRARY").expect("UTF-8").map(Into::into);
    UcxConfig { library, user_tls: None }
}

/// What a fabric said.
#[derive(Debug, Default)]
struct Record {
    connected: Vec<(PeerKey, Result<(), FabricError>)>,
    /// Each with whether it was over already.
    flushing: Vec<(OpToken, bool)>,
    completed: Vec<(OpToken, Result<(), FabricError>)>,
    lost: Vec<(PeerKey, FabricError)>,
}

impl Sink for Record {
    fn connected(&mut self, peer: PeerKey, outcome: Result<(), FabricError>) {
        self.connected.push((peer, outcome));
    }

    fn flushing(&mut self, token: OpToken) {
        let is_over = self.completed.iter().any(|(over, _)| *over == token);
        self.flushing.push((token, is_over));
    }

    fn completed(&mut self, token: OpToken, outcome: Result<(), FabricError>) {
        self.completed.push((token, outcome));
    }

    fn arrived(&mut self, _: PeerKey, _: &[u8], _: u64) -> Landing {
        panic!("ucx is not framed")
    }

    fn landed(&mut self, _: PeerKey, _: u64, _: Result<(), FabricError>) {
        panic!("ucx is not framed")
    }

    fn lost(&mut self, peer: PeerKey, error: FabricError) {
        self.lost.push((peer, error));
    }
}

/// What is logged at the level of information, message by message.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut |field: &Field, value: &dyn Debug| {
            if field.name() == "message" {
                self.0.lock().expect("whole").push(format!("{value:?}"));
            }
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// Memory that the kernel writes behind Rust's back: reached through raw pointers only.
struct Memory {
    start: *mut u8,
    len: u64,
}

impl Memory {
    fn new(len: u64) -> Self {
        let bytes = vec![0_u8; len as usize].into_boxed_slice();
        Self { start: Box::into_raw(bytes).cast(), len }
    }

    fn at(&self, offset: u64) -> u64 {
        self.start.expose_provenance() as u64 + offset
    }

    fn region(&self, key: RegionKey) -> Region {
        let span = Span { addr: self.at(0), len: self.len };
        Region { key, kind: MemoryKind::Dram, device: 0, span }
    }

    fn fill(&self, value: impl Fn(u64) -> u8) {
        for offset in 0..self.len {
            // SAFETY: inside the allocation.
            unsafe { self.start.add(offset as usize).write(value(offset)) };
        }
    }

    fn bytes(&self, offset: u64, len: u64) -> Vec<u8> {
        assert!(offset + len <= self.len);
        let mut out = vec![0; len as usize];
        // SAFETY: inside the allocation, checked above; `out` is another one.
        unsafe { out.as_mut_ptr().copy_from_nonoverlapping(self.start.add(offset as usize), len as usize) };
        out
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let whole = std::ptr::slice_from_raw_parts_mut(self.start, self.len as usize);
        // SAFETY: from Box::into_raw in `new`, of the same length.
        drop(unsafe { Box::from_raw(whole) });
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().zip(1_u64..).fold(0, |sum, (byte, at)| sum.wrapping_add(u64::from(*byte).wrapping_mul(at)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex");
    (0..text.len()).step_by(2).map(pair).collect()
}
