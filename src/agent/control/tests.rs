use super::*;
use crate::trust::{Answered, Asked, Initiator, Purpose, Responder, Secret};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

/// A stream, and the socket at its other end.
fn stream() -> (ControlStream, UnixStream) {
    let (here, there) = UnixStream::pair().expect("a pair");
    here.set_nonblocking(true).expect("a socket");
    (ControlStream::new(here.into()), there)
}

fn channels() -> (Box<Channel>, Box<Channel>) {
    let secret = Secret::parse(&b"0123456789abcdef".repeat(4)).expect("a key");
    let (mut dialer, opening) = Initiator::new(&secret, Purpose::Control, [1; 32]).expect("begins");
    let asked = Responder::handle(&secret, Purpose::Control, [2; 32], &opening);
    let Ok(Asked::Answer(acceptor, answer)) = asked else { panic!("the same key: {asked:?}") };
    let answered = dialer.handle(&answer);
    let Ok(Answered::Sealed(dialer, _)) = answered else { panic!("the same key: {answered:?}") };
    (dialer, acceptor)
}

#[test]
fn nothing_is_taken_from_a_stream_after_bytes_that_did_not_open() {
    let ((mut stream, mut there), (ours, mut theirs)) = (stream(), channels());
    stream.secure(ours).expect("nothing has come");
    let mut records = Vec::new();
    theirs.seal(b"\x01\0\0\0x", &mut records).expect("seals");
    records[5] ^= 1;
    there.write_all(&records).expect("written");
    assert!(stream.fill().is_err());
    for _ in 0..2 {
        records.clear();
        theirs.seal(b"\x01\0\0\0x", &mut records).expect("seals");
        there.write_all(&records).expect("written");
        assert!(stream.fill().is_err(), "it has failed");
        assert!(matches!(stream.next_frame(), Ok(None)), "nothing of it counts");
    }
}

#[test]
fn the_end_is_known_by_a_close_and_by_a_reset_on_one_host() {
    let (mut stream, there) = self::stream();
    assert_eq!(stream.fill().expect("open"), Intake::Nothing);
    assert!(!stream.has_ended());
    drop(there);
    assert_eq!(stream.fill().expect("closed"), Intake::Closed);
    assert!(stream.has_ended());

    let (mut stream, there) = self::stream();
    stream.send(b"unread").expect("sent");
    drop(there);
    assert!(stream.fill().is_err(), "a reset");
    assert!(stream.has_ended());
}

/// The other side reads, but never so fast that nothing waits.
#[test]
fn what_has_been_written_is_not_kept_though_the_stream_never_empties() {
    let (mut stream, mut there) = stream();
    there.set_nonblocking(true).expect("a socket");
    let (piece, mut room) = (vec![7; BACKLOG_BYTES], vec![0; BACKLOG_BYTES]);
    let (mut sent, mut most) = (0, 0);
    for _ in 0..200 {
        while stream.has_room() {
            stream.send(&piece).expect("sent");
            sent += piece.len();
        }
        assert!(stream.is_blocked());
        most = most.max(stream.output.len());
        assert!(there.read(&mut room).expect("something is there") > 0);
        stream.flush().expect("written");
    }
    assert!(sent > 8 * BACKLOG_BYTES, "{sent}");
    assert!(most <= 4 * BACKLOG_BYTES, "{most} bytes are kept of {sent}");
}
