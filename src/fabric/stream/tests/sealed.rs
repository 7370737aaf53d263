//! A link between sides with a key, and whoever else comes to its door.

use super::*;
use crate::fabric::stream::frame::encode_sealed_preface;
use crate::trust::{Answered, Asked, Initiator, LinkKeys, Purpose, Responder, Sealer, Secret};
use std::sync::Arc;

/// The keys of [`LINK`], for the fabric and for the peer played by hand. Another `seed` is another session.
fn keys(seed: u8) -> (Arc<LinkKeys>, LinkKeys) {
    let secret = Secret::parse(&b"0123456789abcdef".repeat(4)).expect("a key");
    let (mut dialer, opening) = Initiator::new(&secret, Purpose::Control, [seed; 32]).expect("begins");
    let asked = Responder::handle(&secret, Purpose::Control, [seed + 1; 32], &opening);
    let Ok(Asked::Answer(acceptor, answer)) = asked else { panic!("the same key: {asked:?}") };
    let answered = dialer.handle(&answer);
    let Ok(Answered::Sealed(dialer, _)) = answered else { panic!("the same key: {answered:?}") };
    (Arc::new(dialer.link_keys("stream", &LINK)), acceptor.link_keys("stream", &LINK))
}

struct SealedBench {
    bench: Bench,
    theirs: LinkKeys,
}

impl SealedBench {
    /// The fabric has begun to connect; nobody has dialed it.
    fn new() -> Self {
        let (ours, theirs) = keys(1);
        let mut bench = Bench::new(tcp());
        let tcp = Some(bench.listener.local_addr().expect("a bound listener"));
        let address = StreamAddress { unix: None, tcp }.encode();
        bench.fabric.connect(PEER, Link { address, link_id: LINK, credentials: None, keys: Some(ours) });
        Self { bench, theirs }
    }

    /// The link is up; what the peer writes on, and what seals it.
    fn linked(mut self) -> (Bench, TcpStream, Sealer) {
        let socket = self.bench.dial(&encode_sealed_preface(LINK, self.theirs.send.proof()));
        self.bench.until("the link is up", |log| log.connected == [Ok(())]);
        let sealer = self.theirs.send.sealer().expect("a key");
        (self.bench, socket, sealer)
    }
}

fn sealed(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    sealer.seal_all(plain, &mut records).expect("seals");
    records
}

#[test]
fn only_one_who_has_the_links_keys_is_let_in() {
    let mut bench = SealedBench::new();
    let (_, another_session) = keys(7);
    let strangers = [
        encode_preface(LINK).to_vec(),
        encode_sealed_preface(LINK, [0; 16]).to_vec(),
        encode_sealed_preface(LINK, another_session.send.proof()).to_vec(),
        encode_sealed_preface(LINK, bench.theirs.receive.proof()).to_vec(),
    ];
    for stranger in strangers {
        let mut socket = bench.bench.dial(&stranger);
        bench.bench.until_closed(&mut socket);
    }
    assert!(bench.bench.log.connected.is_empty(), "none of them has the link");
    bench.linked();
}

#[test]
fn one_with_keys_is_not_let_into_a_link_without() {
    let mut bench = Bench::new(tcp());
    bench.connect();
    let mut socket = bench.dial(&encode_sealed_preface(LINK, [0; 16]));
    bench.until_closed(&mut socket);
    assert!(bench.log.connected.is_empty());
}

#[test]
fn frames_in_records_land_whatever_way_they_are_cut() {
    let (mut bench, mut socket, mut sealer) = SealedBench::new().linked();
    let payload: Vec<u8> = (0..40_000u32).map(|at| at as u8).collect();
    let bytes = [frame(b"one", &payload), frame(b"two", b""), frame(b"three", &payload[..9])].concat();
    bench.expect(1, &[(0, 30_000), (50_000, 10_000)]);
    bench.log.landings.push_back(Landing::Discard);
    bench.expect(3, &[(40_000, 9)]);
    let cuts = [0, 1, 15, 16, 19, 20, 5000, 40_000, 40_019, 40_030, bytes.len()];
    for cut in cuts.windows(2) {
        let records = sealed(&mut sealer, &bytes[cut[0]..cut[1]]);
        let (head, tail) = records.split_at(records.len() / 2);
        socket.write_all(head).expect("writes");
        while bench.poll() {}
        socket.write_all(tail).expect("writes");
    }
    bench.until("all have landed", |log| log.landed == [(1, Ok(())), (3, Ok(()))]);
    assert_eq!(bench.log.headers, [&b"one"[..], b"two", b"three"]);
    assert!(bench.bytes(0..30_000) == payload[..30_000]);
    assert!(bench.bytes(50_000..60_000) == payload[30_000..]);
    assert!(bench.bytes(40_000..40_009) == payload[..9]);
}

/// Nothing of a record lands before all of it has authenticated, and after one that has not the link is over.
#[test]
fn an_altered_record_lands_nothing_and_ends_the_link() {
    let (mut bench, mut socket, mut sealer) = SealedBench::new().linked();
    bench.expect(1, &[(0, 40_000)]);
    let mut records = sealed(&mut sealer, &frame(b"h", &[1; 40_000]));
    let middle = records.len() / 2;
    records[middle] ^= 1;
    socket.write_all(&records).expect("writes");
    bench.until("the link is lost", |log| !log.lost.is_empty());
    assert!(bench.log.lost[0].detail.contains("altered, replayed or cut"), "{}", bench.log.lost[0]);
    assert!(bench.bytes(0..40_000).iter().all(|byte| *byte == 0));
    assert!(bench.log.headers.is_empty(), "not even its header was believed");
}

#[test]
fn a_replayed_record_ends_the_link() {
    let (mut bench, mut socket, mut sealer) = SealedBench::new().linked();
    let record = sealed(&mut sealer, &frame(b"once", b""));
    socket.write_all(&record).expect("writes");
    bench.until("it has come", |log| log.headers == [b"once"]);
    socket.write_all(&record).expect("writes");
    bench.until("the link is lost", |log| !log.lost.is_empty());
    assert_eq!(bench.log.headers.len(), 1);
}

#[test]
fn what_is_written_opens_with_the_keys_and_shows_nothing_without() {
    let bench = SealedBench::new();
    let mut opener = bench.theirs.receive.opener().expect("a key");
    let preface = encode_sealed_preface(LINK, bench.theirs.receive.proof());
    let (mut bench, _socket, _) = bench.linked();
    let (mut from_fabric, _) = bench.listener.accept().expect("the fabric dials");
    bench.patient(&from_fabric);
    (0..bench.memory.len()).for_each(|at| bench.memory[at].store((at / 7) as u8, Ordering::Relaxed));
    assert_eq!(bench.fabric.post(PEER, bench.batch(1, 65_536)), Ok(Posted::Accepted));
    bench.until("it is with the kernel", |log| log.completed == [Ok(())]);
    let expected = frame(b"h", &bench.bytes(0..65_536));
    let records = 2; // a record carries a little less than 64 KiB
    let mut read = vec![0; preface.len() + expected.len() + records * 18];
    from_fabric.read_exact(&mut read).expect("all of it");
    let (head, body) = read.split_at_mut(preface.len());
    assert_eq!(head, preface);
    assert!(!body.windows(64).any(|window| expected.windows(64).step_by(64).any(|part| part == window)));
    let mut plain = Vec::new();
    assert_eq!(opener.open_all(body, &mut plain), Ok(body.len()));
    assert!(plain == expected);
}
