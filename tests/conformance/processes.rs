//! Two processes with a fabric each: this one, and this test binary again, which takes its orders from stdin.
//!
//! What every fabric needs for that; `NAME/processes.rs` says what only a real second process can show of the fabric NAME.

use std::cell::Cell;
use std::io::{BufRead, BufReader, IsTerminal, Lines, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use baton::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferOp};
use baton::error::{FabricError, FabricErrorKind};
use baton::fabric::{Batch, Credentials, Fabric, Link, Posted, Region};

use crate::log::Log;
use crate::memory::{GUARD_BYTES, Memory};
use crate::rig::DEADLINE;

/// What both processes have.
pub struct Setting {
    /// Their fabrics.
    pub open: fn() -> Box<dyn Fabric>,
    /// Their memory.
    pub kind: MemoryKind,
    /// Bytes of a piece of it.
    pub len: usize,
    /// The test that is the second process, ignored otherwise: it calls [`obey`].
    pub other: &'static str,
}

/// The other process, to the fabric here.
pub const PEER: PeerKey = PeerKey(1);

/// What the second process does: what it is told.
pub fn obey(setting: &Setting) {
    if std::io::stdin().is_terminal() {
        return;
    }
    let mut held: Vec<Memory> = Vec::new();
    let mut fabric = Some((setting.open)()); // goes before the memory
    answer(&hex(&fabric.iter().flat_map(|fabric| fabric.address()).collect::<Vec<_>>()));
    for order in std::io::stdin().lines().map_while(Result::ok) {
        match (order.as_str(), &mut fabric) {
            ("share", Some(fabric)) => {
                let mut memory = Memory::new(setting.kind, setting.len);
                let region = setting.region(held.len() as u32 + 1, memory.span());
                memory.fill(|at| byte_of(region.key, at));
                // SAFETY: it lives until this process ends, and the fabric goes first.
                let key_bytes = unsafe { fabric.register(&region) }.expect("memory registers");
                held.push(memory);
                answer(&format!("{} {} {}", region.key.0, region.span.addr, hex(&key_bytes)));
            }
            ("close", _) => {
                fabric = None;
                answer("");
            }
            ("exec", _) => {
                answer("");
                panic!("cannot become another program: {}", Command::new("cat").exec());
            }
            (other, _) => panic!("no such order, or too late: {other}"),
        }
    }
}

fn answer(text: &str) {
    println!("\n{ANSWER}{text}");
}

/// Reads memory of another process, scattered unevenly over all of it.
pub fn reads_scattered_memory(setting: &Setting) {
    let mut pair = Pair::connected(setting);
    let far = pair.import();
    for round in 0..3_u64 {
        let segments: Vec<_> =
            (0..2048).map(|at| pair.segment(&far, at * 2048, at * 2040 + round, 1000 + at % 7)).collect();
        pair.copy_and_check(segments.into_iter().map(|segment| (far, segment)).collect());
    }
}

impl Setting {
    fn region(&self, key: u32, span: Span) -> Region {
        Region { key: RegionKey(key), kind: self.kind, device: 0, span }
    }
}

/// The other process. Ends with this value.
pub struct Peer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: Vec<u8>,
}

impl Peer {
    pub fn start(setting: &Setting) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", setting.other, "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the same program starts again");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut peer = Self { child, lines, address: Vec::new() };
        peer.address = unhex(&peer.answer());
        peer
    }

    /// Gives an order and returns what comes back.
    pub fn order(&mut self, order: &str) -> String {
        writeln!(self.child.stdin.as_mut().expect("piped"), "{order}").expect("it reads");
        self.answer()
    }

    /// The next line that is meant for us; the process's end ends the wait.
    fn answer(&mut self) -> String {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        let answer = lines.find_map(|line| line.strip_prefix(ANSWER).map(str::to_owned));
        answer.expect("the other process answers")
    }

    /// Another piece of its memory, filled and registered there, and its key bytes.
    pub fn share(&mut self, setting: &Setting) -> (Region, Vec<u8>) {
        let answer = self.order("share");
        let mut words = answer.split(' ');
        let mut word = || words.next().expect("three words");
        let key = word().parse().expect("a key");
        let span = Span { addr: word().parse().expect("an address"), len: setting.len as u64 };
        (setting.region(key, span), unhex(word()))
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    pub fn link(&self) -> Link {
        let uid = rustix::process::geteuid().as_raw();
        let credentials = Some(Credentials { pid: self.pid(), uid });
        Link { address: self.address.clone(), link_id: [7; 16], credentials, keys: None }
    }

    pub fn kill(&mut self) {
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
pub struct Pair<'a> {
    pub fabric: Box<dyn Fabric>,
    memory: Memory,
    pub log: Log,
    pub peer: Peer,
    next_token: Cell<u64>,
    setting: &'a Setting,
}

impl<'a> Pair<'a> {
    pub fn open(setting: &'a Setting, peer: Peer) -> Self {
        let mut fabric = (setting.open)();
        let memory = Memory::new(setting.kind, setting.len);
        // SAFETY: fields drop in order, so the fabric goes before the memory, which is only copied in and out.
        unsafe { fabric.register(&setting.region(1, memory.span())) }.expect("memory registers");
        Self { fabric, memory, log: Log::default(), peer, next_token: Cell::new(1), setting }
    }

    pub fn connected(setting: &'a Setting) -> Self {
        let mut pair = Self::open(setting, Peer::start(setting));
        pair.fabric.connect(PEER, pair.peer.link());
        pair.until("the link is up", |log| log.connected.contains_key(&PEER));
        assert_eq!(pair.log.connected[&PEER], Ok(()));
        pair
    }

    /// Another piece of the peer's memory, announced.
    pub fn import(&mut self) -> Region {
        let (region, key_bytes) = self.peer.share(self.setting);
        self.fabric.import(PEER, &region, Some(&key_bytes)).expect("key bytes of the same fabric");
        region
    }

    pub fn segment(&self, far: &Region, src_offset: u64, dst_offset: u64, len: u64) -> Segment {
        Segment { src: far.span.addr + src_offset, dst: self.memory.span().addr + dst_offset, len }
    }

    pub fn batch(&self, segments: Vec<Segment>) -> Batch {
        let token = OpToken(self.next_token.replace(self.next_token.get() + 1));
        Batch { token, op: TransferOp::Read, segments, header: Vec::new() }
    }

    pub fn post(&mut self, segments: Vec<Segment>) -> OpToken {
        let batch = self.batch(segments);
        let token = batch.token;
        assert_eq!(self.fabric.post(PEER, batch), Ok(Posted::Accepted));
        self.log.in_flight.insert(token, PEER);
        token
    }

    /// Reads segments, each of a region of the peer's, in one batch, and looks at every byte.
    #[track_caller]
    pub fn copy_and_check(&mut self, segments: Vec<(Region, Segment)>) {
        let mut wanted = self.memory.snapshot();
        for (far, segment) in &segments {
            let start = GUARD_BYTES + (segment.src - far.span.addr) as usize;
            let bytes: Vec<u8> =
                (start..start + segment.len as usize).map(|at| byte_of(far.key, at)).collect();
            wanted.put(segment.dst, &bytes);
        }
        let token = self.post(segments.into_iter().map(|(_, segment)| segment).collect());
        self.until("the read has completed", |log| log.outcome(token).is_some());
        assert_eq!(self.log.outcome(token), Some(&Ok(())));
        self.memory.snapshot().assert_same(&wanted, "destination");
    }

    #[track_caller]
    pub fn until(&mut self, what: &str, done: impl Fn(&Log) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(&self.log) {
            assert!(Instant::now() < deadline, "gave up waiting until {what}: {:?}", self.log);
            self.fabric.poll(1 << 20, &mut self.log);
        }
    }
}

#[track_caller]
pub fn assert_kind(error: &FabricError, kind: FabricErrorKind) {
    assert_eq!(error.kind, kind, "{error}");
}

/// What the other process fills a region with, guards included.
fn byte_of(key: RegionKey, at: usize) -> u8 {
    (at.wrapping_mul(31) >> 3) as u8 ^ key.0 as u8
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// What its answers begin with, among what the test harness prints.
const ANSWER: char = '@';
