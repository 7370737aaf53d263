//! Ranks with a key: they meet each other, and nobody without it, with another one, or with old bytes.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;

use crate::bench::{LONG_MS, SOON_MS, at, failure, free_port, rank};
use crate::wire::{connect, hear, hello, say};
use baton::config::RendezvousSettings;
use baton::connection::rendezvous::RendezvousError;
use baton::trust::{ANSWER_MAX_BYTES, Initiator, Purpose, Secret, TrustError};

const KEY: &str = "8f1d4c27a05be9630f7d2a91c4e85b36d1720c9fae43587b16e2f90ad38c6b54";
const OTHER: &str = "00112233445566778899aabbccddeeffffeeddccbbaa99887766554433221101";

fn secret(text: &str) -> Secret {
    Secret::parse(text.as_bytes()).expect("a key")
}

fn with_key(mut settings: RendezvousSettings, key: &str) -> RendezvousSettings {
    settings.secret = Some(Arc::new(secret(key)));
    settings
}

#[track_caller]
fn distrust(outcome: crate::bench::Outcome) -> TrustError {
    match outcome.expect_err("it is refused") {
        RendezvousError::Trust { source, .. } => source,
        other => panic!("not over its key: {other}"),
    }
}

#[test]
fn ranks_with_one_key_meet() {
    let port = free_port();
    let ranks = [0, 1, 2].map(|number| {
        let part = vec![number as u8; 1 + 20_000 * number as usize];
        rank(with_key(at(port, number, 3, LONG_MS), KEY), part)
    });
    for (number, rank) in ranks.into_iter().enumerate() {
        let met = rank.end().expect("the same key");
        assert_eq!(met.rank as usize, number);
        assert_eq!(met.parts.iter().map(Vec::len).collect::<Vec<_>>(), [1, 20_001, 40_001]);
        assert!(met.parts.iter().enumerate().all(|(at, part)| part.iter().all(|byte| *byte == at as u8)));
    }
}

#[test]
fn other_ranks_are_refused_and_do_not_disturb_the_meeting() {
    let port = free_port();
    let zero = rank(with_key(at(port, 0, 2, LONG_MS), KEY), vec![0]);
    let other = rank(with_key(at(port, 1, 2, LONG_MS), OTHER), vec![7]);
    assert_eq!(distrust(other.end()), TrustError::OtherKey);
    let without = rank(at(port, 1, 2, LONG_MS), vec![8]);
    assert_eq!(distrust(without.end()), TrustError::KeyWanted);
    let one = rank(with_key(at(port, 1, 2, LONG_MS), KEY), vec![1]);
    assert_eq!(one.end().expect("the same key").parts, [[0], [1]]);
    assert_eq!(zero.end().expect("the same key").parts, [[0], [1]]);
}

#[test]
fn a_rank_with_a_key_does_not_join_ranks_without() {
    let port = free_port();
    let zero = rank(at(port, 0, 2, SOON_MS), vec![0]);
    let one = rank(with_key(at(port, 1, 2, LONG_MS), KEY), vec![1]);
    assert_eq!(distrust(one.end()), TrustError::KeyMissing);
    assert!(failure(zero.end()).contains("rank 1 did not show up"));
}

#[test]
fn words_in_the_clear_hear_nothing_of_the_meeting() {
    let port = free_port();
    let zero = rank(with_key(at(port, 0, 2, SOON_MS), KEY), b"a part of rank 0".to_vec());
    let answer = hear(say(port, &hello(1, 2, 5, b"one")));
    assert!(answer.len() == 20 && answer.starts_with(b"BATONMET\x01\0\x03\0"), "a refusal: {answer:?}");
    let (_, opening) = Initiator::new(&secret(KEY), Purpose::Control, [3; 32]).expect("begins");
    assert!(hear(say(port, &opening)).len() <= 8, "an agent's opening is not a rank's");
    assert!(failure(zero.end()).contains("rank 1 did not show up"));
}

/// What rank 1 says to rank 0, word for word, said again to the rank 0 of another meeting.
#[test]
fn a_replayed_hello_takes_nobodys_place() {
    let relay_port = free_port();
    let relay = TcpListener::bind(("127.0.0.1", relay_port)).expect("the port is free");
    let port = free_port();
    let zero = rank(with_key(at(port, 0, 2, LONG_MS), KEY), vec![0]);
    let one = rank(with_key(at(relay_port, 1, 2, LONG_MS), KEY), vec![1]);
    let (mut caller, _) = relay.accept().expect("rank 1 dials");
    let mut callee = connect(port);
    let (mut opening, mut answer) = ([0; 56], [0; ANSWER_MAX_BYTES]);
    caller.read_exact(&mut opening).expect("an opening");
    callee.write_all(&opening).expect("rank 0 listens");
    callee.read_exact(&mut answer).expect("an answer");
    caller.write_all(&answer).expect("rank 1 listens");
    let mut record = vec![0; 2 + 16 + 28 + 1 + 16];
    caller.read_exact(&mut record).expect("its hello");
    callee.write_all(&record).expect("rank 0 listens");
    std::io::copy(&mut callee, &mut caller).expect("the parts");
    drop((caller, callee));
    assert_eq!(one.end().expect("the same key").parts, [[0], [1]]);
    zero.end().expect("the same key");

    let again = rank(with_key(at(port, 0, 2, SOON_MS), KEY), vec![0]);
    let heard = hear(say(port, &[&opening[..], &record].concat()));
    assert!(heard.len() <= ANSWER_MAX_BYTES, "its own half of a handshake and no parts");
    assert!(failure(again.end()).contains("rank 1 did not show up"));
}
