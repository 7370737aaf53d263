//! What does not belong at a meeting: other programs, other versions, slow and broken lines.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::bench::{LONG_MS, SOON_MS, at, failure, free_port, rank};
use crate::wire::{connect, frame, hear, hello, say};
use baton::connection::rendezvous::RendezvousError;

#[test]
fn strangers_do_not_disturb_a_meeting() {
    let port = free_port();
    let zero = rank(at(port, 0, 2, LONG_MS), vec![0]);
    let mut open: Vec<TcpStream> = (0..100).map(|_| connect(port)).collect(); // silent ones
    open.push(say(port, b"BATON")); // might become one of us
    drop(say(port, b"BATONMET\x01\x00"));
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        b"BATONMET\x01\x00\x01\x00\xff\xff\xff\xff", // a hello of 4 GiB
        b"BATONMET\x01\x00\x02\x00\x04\x00\x00\x00\0\0\0\0", // what only rank 0 says
    ];
    for bytes in garbage {
        assert_eq!(hear(say(port, bytes)), [] as [u8; 0], "{} is sent away", bytes.escape_ascii());
    }
    let one = rank(at(port, 1, 2, LONG_MS), vec![1]);
    assert_eq!(one.end().expect("strangers do not count").parts, [[0], [1]]);
    assert_eq!(zero.end().expect("strangers do not count").parts, [[0], [1]]);
}

#[test]
fn a_hello_may_trickle_in() {
    let port = free_port();
    let zero = rank(at(port, 0, 2, LONG_MS), b"zero".to_vec());
    let mut stream = connect(port);
    for byte in hello(1, 2, 5, b"one") {
        stream.write_all(&[byte]).expect("rank 0 listens");
    }
    let (kind, body) = frame(&mut stream);
    assert_eq!((kind, body.as_slice()), (2, b"\x02\0\0\0\x04\0\0\0zero\x03\0\0\0one".as_slice()));
    drop(stream);
    assert_eq!(zero.end().expect("both come").parts, [b"zero".to_vec(), b"one".to_vec()]);
}

#[test]
fn a_rank_may_dial_again_and_a_restarted_one_takes_its_place() {
    let port = free_port();
    let zero = rank(at(port, 0, 3, LONG_MS), vec![0]);
    drop(say(port, &hello(1, 3, 5, &[9]))); // dies
    let first = say(port, &hello(2, 3, 7, &[8]));
    let again = say(port, &hello(2, 3, 7, &[2])); // the same process, over a new line
    let one = say(port, &hello(1, 3, 6, &[1])); // the dead one, started anew
    let lines = [one, again].map(|mut line| frame(&mut line));
    let expected = [[0], [1], [2]];
    assert_eq!(lines[0], lines[1]);
    assert_eq!(lines[0].0, 2, "everybody's parts");
    drop(first);
    assert_eq!(zero.end().expect("all come").parts, expected);
}

#[test]
fn another_version_is_told_and_named() {
    let port = free_port();
    let zero = rank(at(port, 0, 2, LONG_MS), vec![]);
    let mut other = hello(1, 2, 5, &[]);
    other[8] = 9;
    let mut stream = say(port, &other);
    let (kind, _) = frame(&mut stream);
    assert_eq!(kind, 3, "a refusal");
    drop(stream);
    let text = failure(zero.end());
    assert!(text.contains("versions 9 and 1 of its protocol meet there"), "{text}");
}

/// What rank 1 makes of whoever listens in rank 0's place and answers its hello with `bytes`.
fn answered_with(bytes: &'static [u8], timeout_ms: &str) -> RendezvousError {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let one = rank(at(port, 1, 2, timeout_ms), vec![]);
    let (mut stream, _) = listener.accept().expect("rank 1 dials");
    stream.write_all(bytes).expect("rank 1 listens");
    let outcome = one.end();
    drop(stream.read(&mut [0; 64]));
    outcome.expect_err("that is no rank 0")
}

#[test]
fn a_stranger_in_rank_0s_place_is_named() {
    let table: [(&[u8], &str); 4] = [
        (b"HTTP/1.1 400 Bad Request\r\n", "something other than Baton listens there (it says \"HTTP/1.1"),
        (b"\x01", "it says \"\\x01\""),
        (b"BATONMET\x01\x00\x02\x00\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (b"BATONMET\x01\x00\x02\x00\x04\x00\x00\x00\x07\x00\x00\x00", "an answer that does not add up"),
    ];
    for (bytes, expected) in &table {
        let error = answered_with(bytes, LONG_MS);
        assert!(matches!(error, RendezvousError::Stranger { .. }), "{error:?}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = answered_with(b"BATONMET\x09\x00\x02\x00\x00\x00\x00\x00", LONG_MS);
    assert!(matches!(error, RendezvousError::OtherVersion { theirs: 9, ours: 1, .. }), "{error:?}");
}

#[test]
fn a_listener_that_says_nothing_costs_no_more_than_the_deadline() {
    let error = answered_with(b"", SOON_MS);
    assert!(error.to_string().contains("it took our hello and said nothing"), "{error}");
}
