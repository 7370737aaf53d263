//! The frames, written here once more: what a rank of today says must not change in silence.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::bench::LIMIT;

/// A hello as version 1 has it.
pub fn hello(rank: u32, size: u32, nonce: u8, part: &[u8]) -> Vec<u8> {
    let mut frame = b"BATONMET\x01\x00\x01\x00".to_vec();
    frame.extend((28 + part.len() as u32).to_le_bytes());
    frame.extend(rank.to_le_bytes());
    frame.extend(size.to_le_bytes());
    frame.extend(25_000_u32.to_le_bytes());
    frame.extend([nonce; 16]);
    frame.extend(part);
    frame
}

/// Connects as soon as rank 0 listens.
pub fn connect(port: u16) -> TcpStream {
    let start = std::time::Instant::now();
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT)).expect("a socket");
                stream.set_nodelay(true).expect("a socket");
                return stream;
            }
            Err(error) => assert!(start.elapsed() < LIMIT, "{error}"),
        }
        std::thread::yield_now();
    }
}

/// Says `bytes` to rank 0 and keeps the line open.
pub fn say(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(port);
    stream.write_all(bytes).expect("rank 0 listens");
    stream
}

/// Everything until the other side hangs up; what it has not read makes that a reset.
pub fn hear(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
            panic!("it does not hang up: {error}")
        }
        _ => bytes,
    }
}

/// One frame: its kind and its body.
pub fn frame(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let mut head = [0; 16];
    stream.read_exact(&mut head).expect("rank 0 answers");
    assert_eq!(&head[..10], b"BATONMET\x01\x00");
    let mut body = vec![0; u32::from_le_bytes([head[12], head[13], head[14], head[15]]) as usize];
    stream.read_exact(&mut body).expect("the whole frame");
    (u16::from_le_bytes([head[10], head[11]]), body)
}
