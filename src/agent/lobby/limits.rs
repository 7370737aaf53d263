//! The lobby's bounds at n and n + 1, and its time: how long it is does not matter here, for it is an argument.

use super::*;
use crate::agent::sockets::listen_tcp;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};

const WATCHDOG: Duration = Duration::from_secs(20);
const PIECE_BYTES: usize = 1 << 20;

struct Door {
    lobby: Lobby,
    port: u16,
}

impl Door {
    fn new() -> Self {
        let (listener, port) = listen_tcp(Ipv4Addr::LOCALHOST.into(), 0).expect("a port");
        Self { lobby: Lobby::new("ctx".into(), vec![listener], None), port }
    }

    /// Somebody connects; its token, if it was let in. Others may have to go for it.
    fn knock(&mut self, now: Instant) -> (TcpStream, Option<u32>) {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it listens");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a deadline");
        let admitted = self.lobby.serve(0, now, Vec::new);
        let token = admitted.iter().find_map(|arrival| match arrival {
            Arrival::Guest(token) => Some(*token),
            _ => None,
        });
        (stream, token)
    }

    /// A guest may have said something.
    fn serve(&mut self, token: u32, now: Instant) -> Vec<Arrival> {
        self.lobby.serve(token, now, || vec![1])
    }
}

fn is_closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0)) || stream.read(&mut [0]).is_err()
}

#[test]
fn one_more_than_the_limit_takes_the_place_of_the_one_that_has_waited_longest() {
    let (mut door, now) = (Door::new(), Instant::now());
    let mut guests: Vec<_> = (0..UNDECIDED_MAX).map(|_| door.knock(now)).collect();
    assert!(guests.iter().all(|(_, token)| token.is_some()));
    let (mut one_more, token) = door.knock(now);
    assert_eq!(door.lobby.undecided.len(), UNDECIDED_MAX);
    assert!(is_closed(&mut guests[0].0));
    let stay = |(_, token): &(TcpStream, Option<u32>)| door.lobby.guest(token.expect("let in")).is_some();
    assert!(guests[1..].iter().all(stay));
    // Who came late and speaks is served.
    one_more.write_all(&fetch()).expect("said");
    await_answer(&mut door, token.expect("let in"), now, 1);
    assert_eq!(one_more.read(&mut [0; 4]).expect("the answer"), 4);
    // When their time is over, there is room again.
    door.lobby.expire(now + UNDECIDED_LIMIT);
    assert!(door.lobby.undecided.is_empty());
    assert!(door.knock(now + UNDECIDED_LIMIT).1.is_some());
}

/// One byte a second: each of them is taken, none of them buys time.
#[test]
fn a_byte_a_second_is_closed_at_the_deadline_and_others_are_served() {
    let (mut door, start) = (Door::new(), Instant::now());
    let (mut slow, token) = door.knock(start);
    let token = token.expect("there is room");
    let mut hello = Vec::new();
    Frame::Goodbye { text: "a frame that takes its time" }.encode(0, &mut hello);
    for second in 0..UNDECIDED_LIMIT.as_secs() {
        let now = start + Duration::from_secs(second);
        slow.write_all(&hello[second as usize..][..1]).expect("said");
        assert!(door.serve(token, now).is_empty(), "it is no frame yet");
        door.lobby.expire(now);
        assert!(door.lobby.guest(token).is_some(), "after {second} s");

        // One that says it all at once does not wait for it.
        let (mut quick, guest) = door.knock(now);
        quick.write_all(&hello).expect("said");
        let guest = guest.expect("there is room");
        let deadline = Instant::now() + WATCHDOG;
        while !matches!(door.serve(guest, now)[..], [Arrival::Agent(..)]) {
            assert!(Instant::now() < deadline, "it is not served");
        }
    }
    door.lobby.expire(start + UNDECIDED_LIMIT);
    assert!(door.lobby.guest(token).is_none());
    assert!(is_closed(&mut slow));
}

/// What all of them together have sent is bounded, too: whoever goes beyond it is closed, the others stay.
#[test]
fn bytes_of_all_who_wait_are_bounded() {
    let (mut door, now) = (Door::new(), Instant::now());
    let guests: Vec<_> = (0..3).map(|_| door.knock(now)).collect();
    let length = (HELLO_MAX_BYTES as u32).to_le_bytes();
    let piece = vec![0xff; PIECE_BYTES];
    let (mut sent, mut closed) = (0, None);
    'sending: for (stream, token) in &guests {
        let (mut stream, token) = (stream, token.expect("there is room"));
        stream.set_write_timeout(Some(WATCHDOG)).expect("a deadline");
        stream.write_all(&length).expect("said");
        // All but the end of the frame.
        for _ in 0..HELLO_MAX_BYTES / PIECE_BYTES - 1 {
            let feeding = stream.try_clone().expect("a socket");
            let piece = piece.clone();
            let feeder = std::thread::spawn(move || { &feeding }.write_all(&piece).is_ok());
            let before = held(&door);
            let deadline = Instant::now() + WATCHDOG;
            while held(&door) < before + PIECE_BYTES {
                assert!(Instant::now() < deadline, "bytes do not come in");
                door.serve(token, now);
                if door.lobby.guest(token).is_none() {
                    closed = Some(token);
                    break 'sending;
                }
            }
            assert!(feeder.join().expect("the feeder lives"));
            sent += PIECE_BYTES;
        }
    }
    assert_eq!(closed, guests[2].1, "after {sent} bytes");
    assert!((UNDECIDED_MAX_BYTES - (4 << 20)..=UNDECIDED_MAX_BYTES).contains(&sent), "{sent}");
    assert!(guests[..2].iter().all(|(_, token)| door.lobby.guest(token.expect("let in")).is_some()));
}

/// Fetchers of a long blob that do not read: what waits for all of them is bounded, and who reads gets it.
#[test]
fn answers_that_nobody_reads_are_bounded() {
    let (mut door, start) = (Door::new(), Instant::now());
    let fit = ANSWERS_MAX_BYTES / BLOB_BYTES;
    let mut fetchers = Vec::new();
    for number in 0..fit + 3 {
        let now = start + Duration::from_millis(number as u64);
        let (mut stream, token) = door.knock(now);
        stream.write_all(&fetch()).expect("said");
        let token = token.expect("there is room");
        await_answer(&mut door, token, now, BLOB_BYTES);
        fetchers.push((stream, token));
        let waiting: usize = door.lobby.undecided.values().map(|guest| guest.stream.unwritten_bytes()).sum();
        assert!(waiting <= ANSWERS_MAX_BYTES, "{waiting} bytes after {number}");
    }
    let stays: Vec<bool> = fetchers.iter().map(|(_, token)| door.lobby.guest(*token).is_some()).collect();
    assert!(!stays[0] && stays[fit..].iter().all(|stays| *stays), "the oldest have gone: {stays:?}");
}

const BLOB_BYTES: usize = 16 << 20;

fn fetch() -> Vec<u8> {
    let mut fetch = Vec::new();
    Frame::Fetch.encode(0, &mut fetch);
    fetch
}

fn await_answer(door: &mut Door, token: u32, now: Instant, blob_bytes: usize) {
    let deadline = Instant::now() + WATCHDOG;
    let is_answer = |arrival: &Arrival| matches!(arrival, Arrival::Served(of) if *of == token);
    while !door.lobby.serve(token, now, || vec![1; blob_bytes]).iter().any(is_answer) {
        assert!(Instant::now() < deadline, "it is not served");
    }
}

fn held(door: &Door) -> usize {
    door.lobby.undecided.values().map(|guest| guest.stream.unparsed().len()).sum()
}
