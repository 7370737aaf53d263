//! The control stream's framing, over a real socket, in whatever pieces the bytes come.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use baton::agent::fuzzing::{Control, turned_away};
use baton::proto::wire::{FRAME_MAX_BYTES, HELLO_MAX_BYTES, LENGTH_BYTES, check_length};

/// Frames come out as they stand in the bytes, up to the first length that cannot be one; nothing but a frame that is
/// not whole is kept.
pub fn run(data: &[u8]) -> bool {
    let (&[style, piece], bytes) = data.split_first_chunk().unwrap_or((&[0; 2], &[]));
    let (early, piece) = (style % 2 == 0, usize::from(piece).max(1));
    let _answer = turned_away(bytes, piece);
    let (expected, bad) = frames(bytes, if early { HELLO_MAX_BYTES } else { FRAME_MAX_BYTES });

    let (mut them, us) = UnixStream::pair().expect("descriptors are to be had");
    us.set_nonblocking(true).expect("a socket");
    them.set_nonblocking(true).expect("a socket"); // nothing here can wait for ever
    let mut control = Control::new(us.into(), early);
    let mut seen = Vec::new();
    for piece in bytes.chunks(piece.max(bytes.len() / MOST_PIECES)) {
        them.write_all(piece).expect("room for a piece");
        control.fill().expect("the other end is open");
        loop {
            match control.next_frame() {
                Ok(Some(frame)) => seen.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => {
                    assert!(bad, "a good length was refused");
                    assert_eq!(seen, expected[..seen.len()]);
                    return false;
                }
            }
        }
        assert!(control.unparsed() <= bytes.len());
    }
    assert!(!bad || bytes.len() < LENGTH_BYTES, "a bad length was taken");
    assert_eq!(seen, expected);
    !seen.is_empty()
}

/// Each is a system call or two.
const MOST_PIECES: usize = 8;

/// The frames in these bytes, and whether a length that cannot be one follows them.
fn frames(mut bytes: &[u8], max: usize) -> (Vec<Vec<u8>>, bool) {
    let mut found = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() {
        let Ok(length) = check_length(u32::from_le_bytes(*length), max) else { return (found, true) };
        let Some((frame, rest)) = rest.split_at_checked(length) else { break };
        found.push(frame.to_vec());
        bytes = rest;
    }
    (found, false)
}
