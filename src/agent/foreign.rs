//! Recognising a stock NIXL agent at the other end, so that an error can say so.
//!
//! Stock agents exchange their metadata over TCP in messages of a u64 length (little-endian on every machine
//! they run on) and a text that begins with `NIXLCOMM:`. This is not an implementation of that protocol:
//! it says hello, looks at the first bytes of the answer and hangs up.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Whether a stock NIXL agent listens at `addr`. Blocks until `deadline` at most; anything that goes wrong,
/// and any other answer, is a no. For the thread that builds an error, never for the progress thread.
pub fn probe_stock_listener(addr: SocketAddr, deadline: Instant) -> bool {
    answer_to_hello(addr, deadline).is_ok_and(|first_bytes| is_stock(&first_bytes))
}

/// Whether the first bytes of an incoming connection are a stock NIXL agent's; a no while fewer than
/// [`STOCK_PREFIX_BYTES`] are there.
pub fn looks_like_stock_dialer(first_bytes: &[u8]) -> bool {
    first_bytes.first_chunk().is_some_and(is_stock)
}

/// How many bytes it takes to know: the length and the tag.
pub const STOCK_PREFIX_BYTES: usize = 8 + TAG.len();

fn answer_to_hello(addr: SocketAddr, deadline: Instant) -> io::Result<[u8; STOCK_PREFIX_BYTES]> {
    let mut stream = TcpStream::connect_timeout(&addr, left(deadline)?)?;
    let text = [TAG, b"SEND"].concat();
    stream.set_write_timeout(Some(left(deadline)?))?;
    stream.write_all(&[&(text.len() as u64).to_le_bytes()[..], &text].concat())?;
    let mut answer = [0; STOCK_PREFIX_BYTES];
    let mut filled = 0;
    while filled < answer.len() {
        stream.set_read_timeout(Some(left(deadline)?))?; // anew each time: a trickle wins nobody more time
        match stream.read(&mut answer[filled..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn is_stock(first_bytes: &[u8; STOCK_PREFIX_BYTES]) -> bool {
    let (length, tag) = first_bytes.split_at(8);
    let length = length.iter().rev().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
    tag == TAG && (TAG.len() as u64..=MESSAGE_MAX_BYTES).contains(&length)
}

/// What is left until the deadline; never zero, which would mean "no timeout".
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

const TAG: &[u8] = b"NIXLCOMM:";
/// Far above any agent's metadata; a longer length is noise.
const MESSAGE_MAX_BYTES: u64 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread::JoinHandle;

    const WATCHDOG: Duration = Duration::from_secs(10);

    /// A listener that takes one caller and answers its hello in `pieces`.
    fn listener(pieces: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(WATCHDOG)).unwrap();
            let mut hello = vec![0; 8 + 13];
            stream.read_exact(&mut hello).unwrap();
            for piece in pieces {
                // The prober may have seen enough and gone.
                let _ = stream.write_all(&piece).and_then(|()| stream.flush());
            }
            let _ = stream.read(&mut [0]); // until the prober hangs up
            hello
        });
        (addr, thread)
    }

    fn message(text: &[u8]) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes()[..], text].concat()
    }

    fn probe(pieces: Vec<Vec<u8>>, within: Duration) -> (bool, Vec<u8>) {
        let (addr, thread) = listener(pieces);
        let stock = probe_stock_listener(addr, Instant::now() + within);
        (stock, thread.join().unwrap())
    }

    #[test]
    fn a_stock_listener_is_recognised() {
        let answer = message(b"NIXLCOMM:LOADnixlSerDes|blob");
        let (stock, hello) = probe(vec![answer.clone()], WATCHDOG);
        assert!(stock);
        assert_eq!(hello, message(b"NIXLCOMM:SEND"));
        assert!(looks_like_stock_dialer(&hello));
        let single_bytes = answer.into_iter().map(|byte| vec![byte]).collect();
        assert!(probe(single_bytes, WATCHDOG).0);
    }

    #[test]
    fn others_are_not_stock() {
        assert!(!probe(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], WATCHDOG).0);
        let mut absurd = message(b"NIXLCOMM:LOAD");
        absurd[..8].fill(0xff);
        assert!(!probe(vec![absurd], WATCHDOG).0);
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let within = Duration::from_millis(50);
        let started = Instant::now();
        assert!(!probe(vec![message(b"NIXLCOMM:")[..12].to_vec()], within).0);
        assert!(started.elapsed() >= within);
    }

    #[test]
    fn nobody_there_is_a_no() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        assert!(!probe_stock_listener(free, Instant::now() + WATCHDOG));
        assert!(!probe_stock_listener(free, Instant::now()), "a deadline that has passed");
    }

    #[test]
    fn a_dialer_is_known_by_its_first_bytes() {
        let hello = message(b"NIXLCOMM:INVLagent-7");
        assert!(looks_like_stock_dialer(&hello));
        assert!(!looks_like_stock_dialer(&hello[..STOCK_PREFIX_BYTES - 1]));
        assert!(!looks_like_stock_dialer(b"BTNS and more than enough bytes"));
        assert!(!looks_like_stock_dialer(b""));
    }
}
