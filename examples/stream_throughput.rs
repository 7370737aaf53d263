//! Measures the stream fabric alone: 64 KiB segments, scattered, from one thread's memory to another's.
//!
//! `cargo run --release --example stream_throughput [SEGMENT_KIB] [ROUNDS]`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use baton::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferOp};
use baton::error::FabricError;
use baton::fabric::stream::{StreamConfig, StreamFabric};
use baton::fabric::{Batch, Credentials, Fabric, Landing, Link, Posted, Region, Sink};
use baton::trust::{Answered, Asked, Initiator, LinkKeys, Purpose, Responder, Secret};

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<u64>().expect("a number"));
    let segment = args.next().unwrap_or(64) << 10;
    let rounds = args.next().unwrap_or(8) as usize;
    for (unix, sealed) in [(true, false), (true, true), (false, false), (false, true)] {
        let carrier = if unix { "unix" } else { "tcp" };
        let carrier = if sealed { format!("{carrier}, sealed") } else { carrier.to_owned() };
        let on_one_core = on_one_core(unix, sealed, segment);
        let mut samples: Vec<f64> = measure(unix, sealed, segment, rounds);
        samples.sort_by(f64::total_cmp);
        println!(
            "{carrier}: {} KiB segments, {} MiB a round: median {:.2} GB/s, best {:.2}; both sides on one core: {on_one_core:.2} GB per CPU second",
            segment >> 10,
            TOTAL >> 20,
            samples[samples.len() / 2],
            samples[samples.len() - 1]
        );
    }
}

const TOTAL: u64 = 256 << 20;
const PEER: PeerKey = PeerKey(1);
const LINK: [u8; 16] = [9; 16];

/// A fabric with one region of twice the total, so that segments have gaps.
struct Node {
    fabric: StreamFabric,
    memory: Vec<u8>,
    log: Log,
}

#[derive(Default)]
struct Log {
    connected: bool,
    completed: usize,
    landed_bytes: u64,
    base: u64,
    segment: u64,
}

impl Sink for Log {
    fn connected(&mut self, _: PeerKey, outcome: Result<(), FabricError>) {
        outcome.expect("the link comes up");
        self.connected = true;
    }
    fn completed(&mut self, _: OpToken, outcome: Result<(), FabricError>) {
        outcome.expect("a batch is sent");
        self.completed += 1;
    }
    fn arrived(&mut self, _: PeerKey, header: &[u8], payload_bytes: u64) -> Landing {
        let first = u64::from_le_bytes(header.try_into().expect("eight bytes"));
        let count = payload_bytes / self.segment;
        let spans = (0..count)
            .map(|at| Span { addr: self.base + (first + at) * 2 * self.segment, len: self.segment })
            .collect();
        Landing::Scatter { ticket: payload_bytes, spans }
    }
    fn landed(&mut self, _: PeerKey, ticket: u64, outcome: Result<(), FabricError>) {
        outcome.expect("a frame lands");
        self.landed_bytes += ticket;
    }
    fn lost(&mut self, _: PeerKey, error: FabricError) {
        panic!("{error}");
    }
}

impl Node {
    fn open(unix: bool, segment: u64) -> Self {
        let config = StreamConfig { unix, tcp: !unix, ..StreamConfig::default() };
        let mut fabric = StreamFabric::open(config, None).expect("opens");
        let memory = vec![1u8; 2 * TOTAL as usize];
        let span = Span { addr: memory.as_ptr() as u64, len: memory.len() as u64 };
        let region = Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span };
        // SAFETY: the memory lives as long as the node and is not touched while the fabric runs.
        unsafe { fabric.register(&region) }.expect("registers");
        Self { fabric, memory, log: Log { base: span.addr, segment, ..Log::default() } }
    }

    fn connect(&mut self, address: Vec<u8>, keys: Option<LinkKeys>) {
        let credentials = Credentials {
            pid: rustix::process::getpid().as_raw_pid(),
            uid: rustix::process::geteuid().as_raw(),
        };
        let keys = keys.map(Arc::new);
        self.fabric.connect(PEER, Link { address, link_id: LINK, credentials: Some(credentials), keys });
    }

    fn poll(&mut self) -> bool {
        self.fabric.poll(1 << 20, &mut self.log)
    }
}

/// The keys of the link, for either side.
fn keys() -> [LinkKeys; 2] {
    let secret = Secret::parse(&b"0123456789abcdef".repeat(4)).expect("a key");
    let (mut dialer, opening) = Initiator::new(&secret, Purpose::Control, [1; 32]).expect("begins");
    let asked = Responder::handle(&secret, Purpose::Control, [2; 32], &opening);
    let Ok(Asked::Answer(acceptor, answer)) = asked else { panic!("the same key: {asked:?}") };
    let answered = dialer.handle(&answer);
    let Ok(Answered::Sealed(dialer, _)) = answered else { panic!("the same key: {answered:?}") };
    [dialer, acceptor].map(|channel| channel.link_keys("stream", &LINK))
}

/// What this thread has used so far: a measure that a busy machine bends less than it does the clock.
fn cpu_seconds() -> f64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Both sides in turns on this thread: GB for each second of its CPU time, the best of three rounds.
fn on_one_core(unix: bool, sealed: bool, segment: u64) -> f64 {
    let (mut from, mut to) = linked(unix, sealed, segment);
    let mut best = 0f64;
    for _ in 0..3 {
        let start = cpu_seconds();
        (to.log.landed_bytes, from.log.completed) = (0, 0);
        send_all(&mut from, segment, &mut || _ = to.poll());
        while to.log.landed_bytes < TOTAL {
            to.poll();
        }
        best = best.max(TOTAL as f64 / (cpu_seconds() - start) / 1e9);
    }
    best
}

/// Two nodes with a link between them.
fn linked(unix: bool, sealed: bool, segment: u64) -> (Node, Node) {
    let (mut from, mut to) = (Node::open(unix, segment), Node::open(unix, segment));
    let [ours, theirs] = keys().map(|keys| sealed.then_some(keys));
    from.connect(to.fabric.address(), ours);
    to.connect(from.fabric.address(), theirs);
    while !(from.log.connected && to.log.connected) {
        from.poll();
        to.poll();
    }
    (from, to)
}

fn measure(unix: bool, sealed: bool, segment: u64, rounds: usize) -> Vec<f64> {
    let (mut from, mut to) = linked(unix, sealed, segment);
    let stop = Arc::new(AtomicBool::new(false));
    let receiver = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut marks = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                if !to.poll() {
                    std::thread::yield_now();
                }
                if to.log.landed_bytes == TOTAL {
                    to.log.landed_bytes = 0;
                    marks.push(Instant::now());
                }
            }
            (marks, to.memory.len())
        }
    });
    let mut starts = Vec::new();
    for _ in 0..rounds {
        starts.push(Instant::now());
        send_all(&mut from, segment, &mut std::thread::yield_now);
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let (marks, _) = receiver.join().expect("the receiver ends");
    assert_eq!(marks.len(), rounds, "every round landed");
    let rate = |(start, end): (&Instant, &Instant)| TOTAL as f64 / (*end - *start).as_secs_f64() / 1e9;
    starts.iter().zip(&marks).map(rate).collect()
}

/// Sends a round; `meanwhile` is called whenever the socket takes no more.
fn send_all(from: &mut Node, segment: u64, meanwhile: &mut dyn FnMut()) {
    let (per_batch, count) = ((1 << 20) / segment, TOTAL / segment);
    let base = from.memory.as_ptr() as u64;
    let (mut first, mut sent) = (0, from.log.completed);
    sent += (count / per_batch) as usize;
    while first < count {
        let at = |index: u64| Segment { src: base + index * 2 * segment, dst: 0, len: segment };
        let segments = (first..first + per_batch).map(at).collect();
        let header = first.to_le_bytes().to_vec();
        let mut batch = Batch { token: OpToken(first), op: TransferOp::Write, segments, header };
        while let Posted::Full(back) = from.fabric.post(PEER, batch).expect("a sound batch") {
            batch = back;
            from.poll();
            meanwhile();
        }
        first += per_batch;
    }
    while from.log.completed < sent {
        from.poll();
        meanwhile();
    }
}
