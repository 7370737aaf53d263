//! A client of torch's TCPStore, as far as a collective needs one.
//!
//! ```text
//!   once       VALIDATE 0  0x3C85F7CE u32                            no answer
//!   PING 13    nonce u32                                             nonce u32
//!   SET 1      key, value                                            no answer
//!   GET 3      key                                                   value
//!   ADD 4      key, delta i64                                        new value i64
//!   CHECK 5    count u64, keys                                       0 all there, 1 not
//!   WAIT 6     count u64, keys                                       0 when all are there
//!   DELETE 8   key                                                   count i64
//!   CANCEL 12                                                        1
//! ```
//!
//! Each request is its number in one byte and what follows; keys and values are a u64 length and bytes; little-endian.
//! This is the protocol of pytorch's `TCPStoreBackend.hpp` and `TCPStoreLibUvBackend.cpp` (both servers) from the
//! release that brought PING on. Every wait ends at the deadline; a length is bounded before anything is reserved.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::MAX_PART_BYTES;
use super::deadline::Deadline;

/// A connection to a store.
#[derive(Debug)]
pub struct TcpStore<S = TcpStream> {
    stream: S,
    deadline: Deadline,
}

/// A connection whose reads and writes can be told how long they may take.
pub trait Patient: Read + Write {
    /// The next read or write ends after so long.
    fn set_patience(&mut self, left: Duration) -> io::Result<()>;
}

impl Patient for TcpStream {
    fn set_patience(&mut self, left: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(left))?;
        self.set_write_timeout(Some(left))
    }
}

impl<S: Patient> TcpStore<S> {
    /// Greets whoever answers on `stream`, who must prove to be a store.
    pub fn greet(stream: S, nonce: u32, deadline: Deadline) -> io::Result<Self> {
        let mut store = Self { stream, deadline: deadline.or_after(GREETING) };
        let mut hello = vec![VALIDATE];
        hello.extend(VALIDATION.to_le_bytes());
        hello.push(PING);
        hello.extend(nonce.to_le_bytes());
        store.send(&hello)?;
        let answer: [u8; 4] = store.receive()?;
        if u32::from_le_bytes(answer) != nonce {
            return Err(odd(format!("it answers a ping with \"{}\"", answer.escape_ascii())));
        }
        store.deadline = deadline;
        Ok(store)
    }

    /// Puts a value.
    pub fn set(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        let mut request = vec![SET];
        sized(&mut request, key.as_bytes());
        sized(&mut request, value);
        self.send(&request)
    }

    /// A value that is there.
    pub fn get(&mut self, key: &str) -> io::Result<Vec<u8>> {
        let mut request = vec![GET];
        sized(&mut request, key.as_bytes());
        self.send(&request)?;
        let len = u64::from_le_bytes(self.receive()?);
        match usize::try_from(len).ok().filter(|len| *len <= MAX_VALUE_BYTES) {
            Some(len) => self.receive_vec(len),
            None => Err(odd(format!("a value of {len} bytes, more than {MAX_VALUE_BYTES}"))),
        }
    }

    /// Adds to a counter, which starts at 0; its new value.
    pub fn add(&mut self, key: &str, delta: i64) -> io::Result<i64> {
        let mut request = vec![ADD];
        sized(&mut request, key.as_bytes());
        request.extend(delta.to_le_bytes());
        self.send(&request)?;
        Ok(i64::from_le_bytes(self.receive()?))
    }

    /// Whether the key is there.
    pub fn has(&mut self, key: &str) -> io::Result<bool> {
        let mut request = vec![CHECK];
        request.extend(1_u64.to_le_bytes());
        sized(&mut request, key.as_bytes());
        self.send(&request)?;
        match self.receive::<1>()?[0] {
            0 => Ok(true),
            1 => Ok(false),
            other => Err(odd(format!("it answers CHECK with {other}"))),
        }
    }

    /// Removes a key, if it is there.
    pub fn delete(&mut self, key: &str) -> io::Result<()> {
        let mut request = vec![DELETE];
        sized(&mut request, key.as_bytes());
        self.send(&request)?;
        self.receive::<8>().map(|_| ())
    }

    /// Waits until the key is there; false once the deadline has passed. The store can be asked on, then, for as
    /// long as `grace`.
    pub fn wait(&mut self, key: &str, grace: Duration) -> io::Result<bool> {
        let mut request = vec![WAIT];
        request.extend(1_u64.to_le_bytes());
        sized(&mut request, key.as_bytes());
        self.send(&request)?;
        match self.receive::<1>() {
            Ok([ARRIVED]) => return Ok(true),
            Ok([other]) => return Err(odd(format!("it answers WAIT with {other}"))),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
            Err(error) => return Err(error),
        }
        self.deadline = Deadline::after(grace);
        self.send(&[CANCEL_WAIT])?;
        let mut arrived = false;
        loop {
            match self.receive::<1>()? {
                [ARRIVED] if !arrived => arrived = true, // it came while we gave up
                [CANCELLED] => return Ok(false),
                [other] => return Err(odd(format!("it answers CANCEL_WAIT with {other}"))),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_patience(self.left()?)?;
        self.stream.write_all(bytes).map_err(late)
    }

    fn receive<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn receive_vec(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_patience(self.left()?)?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up")),
                Ok(read) => bytes = &mut bytes[read..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(late(error)),
            }
        }
        Ok(())
    }

    fn left(&self) -> io::Result<Duration> {
        self.deadline.left().ok_or_else(|| late(io::ErrorKind::WouldBlock.into()))
    }
}

fn sized(request: &mut Vec<u8>, bytes: &[u8]) {
    request.extend((bytes.len() as u64).to_le_bytes());
    request.extend(bytes);
}

fn odd(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A socket's timeout under its own name: the system calls it "try again".
fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"),
        _ => error,
    }
}

const VALIDATION: u32 = 0x3C85_F7CE;
const VALIDATE: u8 = 0;
const SET: u8 = 1;
const GET: u8 = 3;
const ADD: u8 = 4;
const CHECK: u8 = 5;
const WAIT: u8 = 6;
const DELETE: u8 = 8;
const CANCEL_WAIT: u8 = 12;
const PING: u8 = 13;
const ARRIVED: u8 = 0;
const CANCELLED: u8 = 1;
/// A store answers a ping at once.
const GREETING: Duration = Duration::from_secs(5);
/// Room for a part and what stands before it.
const MAX_VALUE_BYTES: usize = MAX_PART_BYTES + 1024;
