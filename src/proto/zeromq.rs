//! Turning ZeroMQ away: a stock UCX connection manager meets its peers over a ZeroMQ request, and older ones wait for
//! the answer without a limit. A connection that is merely closed is made again every 100 ms, for ever.
//!
//! This answers as a reply socket of ZMTP 3.0 would, up to one refusal: the greeting, READY, and, once the
//! request is whole, the reply [`REFUSAL`]. It is not an implementation of ZMTP: no security mechanism, no
//! heartbeats, one request, whose bytes are skipped unread. Decoding is total; nothing is kept but a few counters.

/// The reply's body: a message of a stock UCX connection manager of the type that answers no question (STOP, an i32 of
/// 3), with neither of its optional fields. The asker reports the type and gives up.
pub const REFUSAL: [u8; 6] = [3, 0, 0, 0, 0, 0];

/// Whether a connection begins as ZeroMQ's do since version 2; a no while fewer than ten bytes are there.
pub fn is_zeromq(first_bytes: &[u8]) -> bool {
    matches!(first_bytes, [0xff, 0, 0, 0, 0, 0, 0, 0, _, 0x7f, ..])
}

/// What we say at once: our greeting, and READY as a reply socket.
pub fn greeting() -> Vec<u8> {
    let mut out = [&[0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0][..], b"NULL"].concat();
    out.resize(GREETING_BYTES, 0);
    let ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03REP";
    out.extend([&[COMMAND, ready.len() as u8][..], ready].concat());
    out
}

/// The reply: an empty delimiter and the [`REFUSAL`].
pub fn reply() -> Vec<u8> {
    [&[MORE, 0, 0, REFUSAL.len() as u8][..], &REFUSAL].concat()
}

/// Follows what the asker says, from its first byte on.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Bytes to skip before the next frame's head.
    skip: u64,
    head: Vec<u8>,
    /// Whether the frame that is skipped ends a message.
    ends_message: bool,
    asked: bool,
}

impl Default for Asker {
    fn default() -> Self {
        Self { skip: GREETING_BYTES as u64, head: Vec::new(), ends_message: false, asked: false }
    }
}

impl Asker {
    /// Takes what has come. True once, when the request is whole.
    pub fn handle(&mut self, mut bytes: &[u8]) -> bool {
        let had_asked = self.asked;
        while !bytes.is_empty() {
            if self.skip > 0 {
                let now = self.skip.min(bytes.len() as u64);
                self.skip -= now;
                bytes = &bytes[now as usize..];
            } else {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                self.read_head();
            }
            if self.skip == 0 && self.head.is_empty() {
                self.asked |= std::mem::take(&mut self.ends_message);
            }
        }
        self.asked && !had_asked
    }

    /// A frame's head: flags, and a length of one byte or eight.
    fn read_head(&mut self) {
        let (flags, length) = match self.head[..] {
            [flags, length] if flags & LONG == 0 => (flags, u64::from(length)),
            [flags, a, b, c, d, e, f, g, h] => (flags, u64::from_be_bytes([a, b, c, d, e, f, g, h])),
            _ => return,
        };
        self.head.clear();
        self.skip = length;
        self.ends_message = flags & (MORE | COMMAND) == 0;
    }
}

const GREETING_BYTES: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// What pyzmq 27.3.0 (libzmq 4.3.5) sends from a request socket that asks "hello worker address"; own recording.
    fn recorded() -> Vec<u8> {
        let mut bytes = [&b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL"[..], &[0; 48]].concat();
        bytes.extend(b"\x04\x26\x05READY\x0bSocket-Type\0\0\0\x03REQ\x08Identity\0\0\0\0");
        bytes.extend(b"\x01\x00\x00\x14hello worker address");
        bytes
    }

    #[test]
    fn a_recorded_request_is_known_and_answered_once_it_is_whole() {
        let bytes = recorded();
        assert!(is_zeromq(&bytes) && is_zeromq(&bytes[..10]) && !is_zeromq(&bytes[..9]));
        for cut in 0..bytes.len() {
            let mut asker = Asker::default();
            assert!(!asker.handle(&bytes[..cut]), "asked after {cut} bytes");
            assert!(asker.handle(&bytes[cut..]), "cut at {cut}");
            assert!(!asker.handle(b"\0\x01x"), "one answer is enough");
        }
    }

    #[test]
    fn long_frames_are_skipped() {
        let mut asker = Asker::default();
        assert!(!asker.handle(&[0; GREETING_BYTES]));
        assert!(!asker.handle(&[&[MORE, 0, LONG][..], &300_u64.to_be_bytes(), &[7; 299]].concat()));
        assert!(asker.handle(&[7]));
        let mut endless = Asker::default();
        endless.handle(&[0; GREETING_BYTES]);
        assert!(!endless.handle(&[&[LONG][..], &[0xff; 64]].concat()), "a length of 2^64 - 1 does no harm");
    }

    #[test]
    fn others_are_not_zeromq() {
        assert!(!is_zeromq(b"") && !is_zeromq(&[0xff; 64]) && !is_zeromq(b"GET / HTTP/1.1\r\n"));
        // The length and the kind of a Baton frame.
        assert!(!is_zeromq(&[0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn what_we_say_has_the_forms_of_zmtp() {
        let greeting = greeting();
        assert!(is_zeromq(&greeting));
        assert_eq!(greeting[64..66], [COMMAND, 25]);
        assert_eq!(greeting.len(), 64 + 2 + 25);
        assert_eq!(reply(), b"\x01\0\0\x06\x03\0\0\0\0\0");
        // Our own side of the talk is itself a message, once it is whole.
        assert!(Asker::default().handle(&[greeting, reply()].concat()));
    }
}
