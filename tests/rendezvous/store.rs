//! Ranks in torch's store: a stand-in that speaks its protocol, and what is no store.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::bench::{LONG_MS, Outcome, Running, SOON_MS, failure, free_port, rank, settings};
use baton::config::RendezvousSettings;
use baton::connection::rendezvous::{MAX_PART_BYTES, RendezvousError};

fn torch(port: u16, rank: u32, size: u32, timeout_ms: &str) -> RendezvousSettings {
    restarted(port, rank, size, timeout_ms, "0")
}

fn restarted(port: u16, rank: u32, size: u32, timeout_ms: &str, restarts: &str) -> RendezvousSettings {
    settings(&[
        ("MASTER_ADDR", "127.0.0.1"),
        ("MASTER_PORT", &port.to_string()),
        ("RANK", &rank.to_string()),
        ("WORLD_SIZE", &size.to_string()),
        ("TORCHELASTIC_RESTART_COUNT", restarts),
        ("BATON_RENDEZVOUS_TIMEOUT_MS", timeout_ms),
        ("TLLM_DISABLE_MPI", "1"),
    ])
}

fn parts(ranks: Vec<Running<Outcome>>) -> Vec<Vec<Vec<u8>>> {
    ranks.into_iter().map(|running| running.end().expect("all come").parts).collect()
}

#[test]
fn meetings_follow_each_other_and_leave_little_behind() {
    let store = Store::start();
    let mut sizes = Vec::new();
    for round in 0..6_u8 {
        let ranks = (0..4).map(|index| {
            rank(
                torch(store.port, index, 4, LONG_MS),
                vec![round + index as u8; index as usize * MAX_PART_BYTES / 3],
            )
        });
        let gathered = parts(ranks.collect());
        for (index, all) in gathered.iter().enumerate() {
            for (other, part) in all.iter().enumerate() {
                let expected = vec![round + other as u8; other * MAX_PART_BYTES / 3];
                assert!(*part == expected, "rank {other}'s part at rank {index} in round {round}");
            }
        }
        sizes.push(store.keys().len());
    }
    assert_eq!(sizes[1..].iter().max(), sizes[1..].iter().min(), "the store does not grow: {sizes:?}");
    assert!(store.keys().iter().all(|key| key.starts_with("baton/")), "{:?}", store.keys());
}

#[test]
fn missing_ranks_are_named_and_a_late_one_learns_that_it_is() {
    let store = Store::start();
    let early = [0, 2].map(|index| rank(torch(store.port, index, 4, SOON_MS), vec![]));
    for running in early {
        let outcome = running.end();
        assert!(
            matches!(&outcome, Err(RendezvousError::Missing { ranks, .. }) if ranks == &[1, 3]),
            "{outcome:?}"
        );
    }
    let late = [1, 3].map(|index| rank(torch(store.port, index, 4, LONG_MS), vec![]));
    for running in late {
        let text = failure(running.end());
        assert!(text.contains("the other ranks have given up already: rank "), "{text}");
        assert!(text.ends_with("ranks 1 and 3 did not show up"), "{text}");
    }
    // And the next time all are in step again.
    let again = (0..4).map(|index| rank(torch(store.port, index, 4, LONG_MS), vec![index as u8]));
    assert_eq!(parts(again.collect()), vec![[[0], [1], [2], [3]]; 4]);
}

#[test]
fn a_restarted_job_does_not_read_what_the_one_before_left() {
    let store = Store::start();
    let died = rank(torch(store.port, 0, 2, SOON_MS), vec![9]);
    failure(died.end());
    let ranks = (0..2).map(|index| rank(restarted(store.port, index, 2, LONG_MS, "1"), vec![index as u8]));
    assert_eq!(parts(ranks.collect()), vec![[[0], [1]]; 2]);
}

#[test]
fn without_a_store_the_variables_and_the_way_out_are_named() {
    let port = free_port();
    let text = failure(rank(torch(port, 1, 2, SOON_MS), vec![]).end());
    for expected in
        ["MASTER_ADDR and MASTER_PORT", &format!("127.0.0.1:{port}"), "refused", "BATON_RENDEZVOUS="]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn what_is_no_store_is_told_from_one() {
    let table: [(&'static [u8], bool, &str); 5] = [
        (b"HTTP/1.1 400 Bad Request\r\n", true, "it answers a ping with \"HTTP\""),
        (b"", true, "it hung up"),
        (b"", false, "it did not answer in time"),
        (b"\x01\x02", true, "it hung up"),
        (b"BATONMET", false, "it answers a ping with \"BATO\""),
    ];
    for (answer, hangs_up, expected) in table {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let one = rank(torch(port, 1, 2, SOON_MS), vec![]);
        let (mut stream, _) = listener.accept().expect("the rank dials");
        let mut greeting = [0; 10];
        stream.read_exact(&mut greeting).expect("the rank speaks first");
        assert_eq!(&greeting[..6], b"\x00\xce\xf7\x85\x3c\x0d", "VALIDATE and PING");
        stream.write_all(answer).expect("the rank listens");
        let kept = (!hangs_up).then_some(stream);
        let text = failure(one.end());
        assert!(
            text.contains("no torch TCPStore answers there") && text.contains(expected),
            "{expected}: {text}"
        );
        drop(kept);
    }
}

#[test]
fn a_store_that_goes_away_or_lies_is_an_error_with_its_place() {
    for (script, expected) in [
        (&[Lie::HangUp][..], "it hung up"),
        (&[Lie::LongValue], "a value of 18446744073709551615 bytes, more than 66560"),
    ] {
        let store = Store::lying(script);
        let text = failure(rank(torch(store.port, 0, 2, LONG_MS), vec![]).end());
        assert!(text.starts_with(&format!("rendezvous in the store at 127.0.0.1:{}", store.port)), "{text}");
        assert!(text.ends_with(expected), "{text}");
    }
}

/// What a [`Store`] does wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Ends the connection when a key is waited for.
    HangUp,
    /// Says that all keys are there, and that a value has 2^64 - 1 bytes.
    LongValue,
}

/// A stand-in for torch's TCPStore: one thread for each connection.
struct Store {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    values: HashMap<String, Vec<u8>>,
    /// Who waits for which key.
    waiting: Vec<(u64, String, TcpStream)>,
    lies: Vec<Lie>,
}

impl State {
    fn put(&mut self, key: String, value: Vec<u8>) {
        self.waiting.retain_mut(|(_, wanted, stream)| {
            let keep = *wanted != key;
            if !keep {
                let _ = stream.write_all(&[0]); // who has left in the meantime needs no answer
            }
            keep
        });
        self.values.insert(key, value);
    }
}

impl Store {
    fn start() -> Self {
        Self::lying(&[])
    }

    fn lying(lies: &[Lie]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let state = Arc::new(Mutex::new(State { lies: lies.to_vec(), ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for (id, stream) in (0..).zip(listener.incoming().map_while(Result::ok)) {
                let state = shared.clone();
                std::thread::spawn(move || {
                    let _ = serve(stream, id, &state); // it ends with the client's connection
                });
            }
        });
        Self { port, state }
    }

    fn keys(&self) -> Vec<String> {
        self.state.lock().expect("no client panics").values.keys().cloned().collect()
    }
}

fn serve(mut stream: TcpStream, id: u64, state: &Mutex<State>) -> io::Result<()> {
    assert_eq!(bytes::<1>(&mut stream)?, [0], "VALIDATE comes first");
    assert_eq!(u32::from_le_bytes(bytes(&mut stream)?), 0x3C85_F7CE);
    loop {
        let [request] = bytes::<1>(&mut stream)?;
        let mut answer = Vec::new();
        match request {
            1 => {
                let (key, value) = (text(&mut stream)?, sized(&mut stream)?);
                state.lock().expect("no client panics").put(key, value);
            }
            3 => {
                let key = text(&mut stream)?;
                let state = state.lock().expect("no client panics");
                if state.lies.contains(&Lie::LongValue) {
                    answer.extend(u64::MAX.to_le_bytes());
                } else {
                    let value = &state.values[&key];
                    answer.extend((value.len() as u64).to_le_bytes());
                    answer.extend(value);
                }
            }
            4 => {
                let (key, delta) = (text(&mut stream)?, i64::from_le_bytes(bytes(&mut stream)?));
                let mut state = state.lock().expect("no client panics");
                let old = state.values.get(&key).map(|value| String::from_utf8_lossy(value).parse::<i64>());
                let new = old.map_or(0, |old| old.expect("a counter")) + delta;
                state.put(key, new.to_string().into_bytes());
                answer.extend(new.to_le_bytes());
            }
            5 | 6 => {
                assert_eq!(u64::from_le_bytes(bytes(&mut stream)?), 1, "one key at a time");
                let key = text(&mut stream)?;
                let mut state = state.lock().expect("no client panics");
                let there = state.values.contains_key(&key) || state.lies.contains(&Lie::LongValue);
                match (request, there) {
                    (6, false) if state.lies.contains(&Lie::HangUp) => return Ok(()),
                    (6, false) => state.waiting.push((id, key, stream.try_clone()?)),
                    (_, there) => answer.push(u8::from(!there)),
                }
            }
            8 => {
                let removed = state.lock().expect("no client panics").values.remove(&text(&mut stream)?);
                answer.extend(i64::from(removed.is_some()).to_le_bytes());
            }
            12 => {
                state.lock().expect("no client panics").waiting.retain(|(waiter, ..)| *waiter != id);
                answer.push(1);
            }
            13 => answer.extend(bytes::<4>(&mut stream)?),
            other => panic!("no such request: {other}"),
        }
        stream.write_all(&answer)?;
    }
}

fn bytes<const N: usize>(stream: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

fn sized(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = u64::from_le_bytes(bytes(stream)?);
    let mut bytes = vec![0; len as usize];
    stream.read_exact(&mut bytes).map(|()| bytes)
}

fn text(stream: &mut TcpStream) -> io::Result<String> {
    Ok(String::from_utf8(sized(stream)?).expect("keys are text"))
}
