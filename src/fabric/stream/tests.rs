//! What the conformance suite cannot see from outside: a peer, played by hand on plain sockets, that is slow,
//! wrong or hostile.
#![allow(unsafe_code)] // registers memory, which it keeps until the fabric is gone

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::frame::{Head, PREFACE_BYTES, encode_preface};
use super::listener::CALLERS_MAX;
use super::*;
use crate::desc::OpToken;
use crate::fabric::{Credentials, Landing};

mod sealed;

const PEER: PeerKey = PeerKey(7);
const LINK: [u8; 16] = [3; 16];
const WATCHDOG: Duration = Duration::from_secs(20);

/// Everything a fabric said.
#[derive(Default)]
struct Log {
    connected: Vec<Result<(), FabricError>>,
    completed: Vec<Result<(), FabricError>>,
    headers: Vec<Vec<u8>>,
    landed: Vec<(u64, Result<(), FabricError>)>,
    lost: Vec<FabricError>,
    /// Where the next frames go; without one they are discarded.
    landings: VecDeque<Landing>,
}

impl Sink for Log {
    fn connected(&mut self, _: PeerKey, outcome: Result<(), FabricError>) {
        self.connected.push(outcome);
    }
    fn completed(&mut self, _: OpToken, outcome: Result<(), FabricError>) {
        self.completed.push(outcome);
    }
    fn arrived(&mut self, _: PeerKey, header: &[u8], _: u64) -> Landing {
        assert_eq!(self.connected, [Ok(())], "a frame before the link is up");
        self.headers.push(header.to_vec());
        self.landings.pop_front().unwrap_or(Landing::Discard)
    }
    fn landed(&mut self, _: PeerKey, ticket: u64, outcome: Result<(), FabricError>) {
        self.landed.push((ticket, outcome));
    }
    fn lost(&mut self, _: PeerKey, error: FabricError) {
        self.lost.push(error);
    }
}

/// A TCP fabric with 64 KiB of memory, and the sockets of a peer played by hand.
struct Bench {
    fabric: StreamFabric,
    log: Log,
    memory: Box<[AtomicU8]>,
    listener: TcpListener,
}

impl Bench {
    fn new(config: StreamConfig) -> Self {
        let mut fabric = StreamFabric::open(config, None).expect("a fabric opens on loopback");
        let memory: Box<[AtomicU8]> = (0..65_536).map(|_| AtomicU8::new(0)).collect();
        let span = Span { addr: memory.as_ptr() as u64, len: memory.len() as u64 };
        let region = Region { key: RegionKey(1), kind: MemoryKind::Dram, device: 0, span };
        // SAFETY: fields drop in order, the fabric before the memory; all access to it is atomic or the kernel's.
        unsafe { fabric.register(&region) }.expect("DRAM registers");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener on loopback");
        Self { fabric, log: Log::default(), memory, listener }
    }

    /// A bench with a link to the hand-played peer: what the peer writes on, and what it reads from.
    fn linked() -> (Self, TcpStream, TcpStream) {
        let mut bench = Self::new(tcp());
        bench.connect();
        let to_fabric = bench.dial(&encode_preface(LINK));
        let (mut from_fabric, _) = bench.listener.accept().expect("the fabric dials");
        bench.until("the link is up", |log| log.connected == [Ok(())]);
        let mut preface = [0; PREFACE_BYTES];
        bench.patient(&from_fabric);
        from_fabric.read_exact(&mut preface).expect("the fabric says who it is");
        assert_eq!(preface, encode_preface(LINK));
        (bench, to_fabric, from_fabric)
    }

    fn connect(&mut self) {
        let tcp = Some(self.listener.local_addr().expect("a bound listener"));
        let address = StreamAddress { unix: None, tcp }.encode();
        self.fabric.connect(PEER, Link { address, link_id: LINK, credentials: None, keys: None });
    }

    fn dial(&self, first_bytes: &[u8]) -> TcpStream {
        let mut socket =
            TcpStream::connect(self.fabric.stream_address().tcp.expect("tcp is on")).expect("dials");
        socket.write_all(first_bytes).expect("a fresh socket takes a few bytes");
        self.patient(&socket);
        socket
    }

    /// A watchdog for blocking reads.
    fn patient(&self, socket: &TcpStream) {
        socket.set_read_timeout(Some(WATCHDOG)).expect("a timeout can be set");
    }

    fn poll(&mut self) -> bool {
        self.fabric.poll(1 << 20, &mut self.log)
    }

    #[track_caller]
    fn until(&mut self, what: &str, done: impl Fn(&Log) -> bool) {
        self.until_fabric(what, |_, log| done(log));
    }

    #[track_caller]
    fn until_fabric(&mut self, what: &str, done: impl Fn(&StreamFabric, &Log) -> bool) {
        let deadline = Instant::now() + WATCHDOG;
        while !done(&self.fabric, &self.log) {
            assert!(Instant::now() < deadline, "gave up waiting until {what}");
            self.poll();
        }
    }

    /// Polls until the fabric has closed `socket`.
    #[track_caller]
    fn until_closed(&mut self, socket: &mut TcpStream) {
        socket.set_nonblocking(true).expect("a socket can be non-blocking");
        let deadline = Instant::now() + WATCHDOG;
        loop {
            match socket.read(&mut [0]) {
                Ok(0) => return,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
                Ok(_) => panic!("the fabric wrote on a connection that only its peer writes on"),
            }
            assert!(Instant::now() < deadline, "the fabric never closed the connection");
            self.poll();
        }
    }

    fn addr(&self, offset: u64) -> u64 {
        self.memory.as_ptr() as u64 + offset
    }

    fn bytes(&self, range: std::ops::Range<usize>) -> Vec<u8> {
        self.memory[range].iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    fn expect(&mut self, ticket: u64, spans: &[(u64, u64)]) {
        let spans = spans.iter().map(|&(offset, len)| Span { addr: self.addr(offset), len }).collect();
        self.log.landings.push_back(Landing::Scatter { ticket, spans });
    }

    fn batch(&self, token: u64, len: u64) -> Batch {
        let segments = vec![Segment { src: self.addr(0), dst: 0, len }];
        Batch { token: OpToken(token), op: TransferOp::Write, segments, header: b"h".to_vec() }
    }
}

fn tcp() -> StreamConfig {
    StreamConfig { unix: false, ..StreamConfig::default() }
}

fn impatient() -> StreamConfig {
    let deadline = Duration::from_millis(50);
    StreamConfig { connect_deadline: deadline, preface_deadline: deadline, ..tcp() }
}

fn frame(header: &[u8], payload: &[u8]) -> Vec<u8> {
    let head = Head { header_bytes: header.len(), payload_bytes: payload.len() as u64 };
    [&head.encode()[..], header, payload].concat()
}

#[test]
fn a_stranger_is_turned_away_at_once() {
    let mut bench = Bench::new(tcp());
    let mut socket = bench.dial(b"GET / HTTP/1.1\r\nHost: baton\r\n\r\n");
    bench.until_closed(&mut socket);
    assert_eq!(bench.fabric.unclaimed(), 0);
    assert!(bench.log.connected.is_empty() && bench.log.lost.is_empty());
}

#[test]
fn a_preface_that_stalls_is_turned_away_at_its_deadline() {
    let mut bench = Bench::new(impatient());
    let started = Instant::now();
    let mut socket = bench.dial(&encode_preface(LINK)[..5]);
    bench.until_closed(&mut socket);
    assert!(started.elapsed() >= Duration::from_millis(50));
    assert_eq!(bench.fabric.unclaimed(), 0);
}

#[test]
fn an_unknown_link_is_held_until_its_deadline() {
    let mut bench = Bench::new(impatient());
    let started = Instant::now();
    let mut socket = bench.dial(&encode_preface([8; 16]));
    bench.until_closed(&mut socket);
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[test]
fn a_peer_that_dials_first_is_held_and_claimed() {
    let mut bench = Bench::new(tcp());
    let mut to_fabric = bench.dial(&encode_preface(LINK));
    bench.until_fabric("the caller has come in", |fabric, _| fabric.unclaimed() == 1);
    while bench.poll() {}
    bench.connect();
    bench.until("the link is up", |log| log.connected == [Ok(())]);
    bench.expect(1, &[(0, 3)]);
    to_fabric.write_all(&frame(b"", b"abc")).expect("writes");
    bench.until("the frame has landed", |log| log.landed == [(1, Ok(()))]);
    assert_eq!(bench.bytes(0..4), b"abc\0");
}

#[test]
fn a_crowd_of_silent_callers_is_bounded_and_keeps_nobody_out() {
    let mut bench = Bench::new(tcp());
    let mut crowd = Vec::new();
    for _ in 0..CALLERS_MAX + 10 {
        crowd.push(bench.dial(b""));
        while bench.poll() {}
        assert!(bench.fabric.unclaimed() <= CALLERS_MAX);
    }
    bench.until_closed(&mut crowd[0]);
    bench.connect();
    let _to_fabric = bench.dial(&encode_preface(LINK));
    bench.until("the link is up all the same", |log| log.connected == [Ok(())]);
}

#[test]
fn a_peer_that_never_dials_back_is_a_timeout() {
    let mut bench = Bench::new(impatient());
    bench.connect();
    bench.until("connect has failed", |log| !log.connected.is_empty());
    let error = bench.log.connected[0].clone().expect_err("half a link is none");
    assert_eq!(error.kind, FabricErrorKind::Timeout);
    assert_eq!(
        error.to_string(),
        "stream: connect: timed out: no link within 50 ms: it has not opened its data connection to us"
    );
    assert!(bench.log.lost.is_empty(), "a link that never was is not lost");
}

#[test]
fn a_second_connection_for_one_link_is_turned_away() {
    let (mut bench, mut first, _from_fabric) = Bench::linked();
    let mut second = bench.dial(&encode_preface(LINK));
    bench.until_closed(&mut second);
    first.write_all(&frame(b"still here", b"")).expect("writes");
    bench.until("the first still serves", |log| log.headers == [b"still here"]);
}

#[test]
fn frames_in_single_bytes_land_like_any_other() {
    let (mut bench, mut to_fabric, _from_fabric) = Bench::linked();
    to_fabric.set_nodelay(true).expect("nodelay");
    bench.expect(1, &[(10, 3), (0, 2), (20, 4)]);
    bench.log.landings.push_back(Landing::Discard);
    bench.expect(3, &[(30, 2)]);
    let bytes = [frame(b"one", b"abcdefghi"), frame(b"two", b"thrown away"), frame(b"", b"xy")].concat();
    for byte in bytes {
        to_fabric.write_all(&[byte]).expect("writes");
        let deadline = Instant::now() + WATCHDOG;
        while !bench.poll() {
            assert!(Instant::now() < deadline, "a byte never came");
        }
    }
    bench.until("all have landed", |log| log.landed == [(1, Ok(())), (3, Ok(()))]);
    assert_eq!(bench.log.headers, [&b"one"[..], b"two", b""]);
    assert_eq!(bench.bytes(0..3), b"de\0");
    assert_eq!(bench.bytes(10..14), b"abc\0");
    assert_eq!(bench.bytes(20..25), b"fghi\0");
    assert_eq!(bench.bytes(30..33), b"xy\0");
}

#[test]
fn half_a_frame_and_the_end_fails_the_landing_and_then_the_link() {
    let (mut bench, mut to_fabric, from_fabric) = Bench::linked();
    bench.expect(5, &[(0, 40_000)]);
    to_fabric.write_all(&frame(b"h", &[1; 40_000])[..20_000]).expect("writes");
    bench.until("the header is there", |log| log.headers.len() == 1);
    assert_eq!(bench.fabric.post(PEER, bench.batch(1, 65_536)), Ok(Posted::Accepted));
    drop((to_fabric, from_fabric));
    bench.until("the link is lost", |log| !log.lost.is_empty());
    while bench.poll() {}
    assert_eq!(bench.log.lost.len(), 1);
    assert_eq!(bench.log.lost[0].kind, FabricErrorKind::PeerLost, "{}", bench.log.lost[0]);
    assert_eq!(bench.log.landed.len(), 1);
    assert!(bench.log.landed[0].0 == 5 && bench.log.landed[0].1.is_err());
    assert_eq!(bench.log.completed.len(), 1, "the batch in flight ended, one way or the other");
    let after = bench.fabric.post(PEER, bench.batch(2, 8)).expect_err("the link is gone");
    assert_eq!(after.kind, FabricErrorKind::Unreachable);
}

#[test]
fn a_stream_out_of_step_ends_the_link_and_says_so() {
    let (mut bench, mut to_fabric, _from_fabric) = Bench::linked();
    to_fabric.write_all(b"this is not how a frame begins").expect("writes");
    bench.until("the link is lost", |log| !log.lost.is_empty());
    assert!(bench.log.lost[0].detail.contains("out of step"), "{}", bench.log.lost[0]);
}

#[test]
fn a_peer_that_writes_the_wrong_way_ends_the_link() {
    let (mut bench, _to_fabric, mut from_fabric) = Bench::linked();
    from_fabric.write_all(b"?").expect("writes");
    bench.until("the link is lost", |log| !log.lost.is_empty());
    assert!(bench.log.lost[0].detail.contains("only we write on"), "{}", bench.log.lost[0]);
}

#[test]
fn memory_deregistered_under_an_arriving_frame_is_not_touched() {
    let (mut bench, mut to_fabric, _from_fabric) = Bench::linked();
    bench.expect(1, &[(0, 40_000)]);
    let bytes = frame(b"h", &[1; 40_000]);
    to_fabric.write_all(&bytes[..20_000]).expect("writes");
    bench.until("the header is there", |log| log.headers.len() == 1);
    while bench.poll() {}
    bench.fabric.deregister(RegionKey(1));
    let before = bench.bytes(0..65_536);
    to_fabric.write_all(&bytes[20_000..]).expect("writes");
    to_fabric.write_all(&frame(b"next", b"in step")).expect("writes");
    bench.until("the next frame is there", |log| log.headers.len() == 2);
    assert_eq!(bench.bytes(0..65_536), before);
    let (ticket, outcome) = &bench.log.landed[0];
    let kind = outcome.as_ref().map_err(|error| error.kind);
    assert_eq!((*ticket, kind), (1, Err(FabricErrorKind::InvalidRegion)));
}

#[test]
fn memory_deregistered_under_a_posted_batch_is_not_sent() {
    let (mut bench, _to_fabric, _from_fabric) = Bench::linked();
    assert_eq!(bench.fabric.post(PEER, bench.batch(1, 65_536)), Ok(Posted::Accepted));
    bench.fabric.deregister(RegionKey(1));
    bench.until("the link is lost", |log| !log.lost.is_empty());
    assert_eq!(bench.log.lost[0].kind, FabricErrorKind::InvalidRegion);
    assert_eq!(bench.log.completed.len(), 1);
    assert!(bench.log.completed[0].is_err());
}

#[test]
fn a_dead_unix_socket_falls_back_to_tcp() {
    let mut bench = Bench::new(StreamConfig::default());
    let tcp = Some(bench.listener.local_addr().expect("a bound listener"));
    let address = StreamAddress { unix: Some(b"baton-nobody-is-here".to_vec()), tcp }.encode();
    let credentials = Some(Credentials { pid: 1, uid: 0 });
    bench.fabric.connect(PEER, Link { address, link_id: LINK, credentials, keys: None });
    let _to_fabric = bench.dial(&encode_preface(LINK));
    bench.until("the link is up", |log| log.connected == [Ok(())]);
    assert_eq!(bench.fabric.carrier(PEER), "stream-tcp");
}

#[test]
fn a_fabric_with_no_carrier_is_refused() {
    let error = StreamFabric::open(StreamConfig { unix: false, tcp: false, ..StreamConfig::default() }, None);
    assert_eq!(error.err().map(|error| error.kind), Some(FabricErrorKind::Unsupported));
    let nowhere = StreamConfig { bind_ip: "192.0.2.1".parse().expect("an address"), ..tcp() };
    let error = StreamFabric::open(nowhere, None).expect_err("not an address of this host");
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
    let anywhere = StreamConfig { bind_ip: Ipv4Addr::UNSPECIFIED.into(), ..tcp() };
    let error = StreamFabric::open(anywhere, None).expect_err("an address that no peer can dial");
    assert!(error.to_string().contains("0.0.0.0"), "{error}");
}
