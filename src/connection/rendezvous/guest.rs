//! The other ranks' side: dial rank 0, say who we are, take what it says.
//!
//! A connection that breaks before rank 0 has spoken is dialled again: the listener of an earlier meeting may just
//! be closing, or rank 0 may be coming back.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::config::rendezvous::{HostPort, Placement};

use super::RendezvousError;
use super::deadline::Deadline;
use super::dial::{Backoff, dial};
use super::frame::{self, BadHeader, HEADER_BYTES, Hello, Kind, Refusal};

/// Brings `part` to rank 0 at `place`, and takes home everybody's.
pub fn visit(
    place: &HostPort,
    placement: &Placement,
    part: &[u8],
    deadline: Deadline,
) -> Result<Vec<Vec<u8>>, RendezvousError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| RendezvousError::System {
        place: place.to_string(),
        what: "random bytes",
        source: io::Error::other(error.to_string()),
    })?;
    let mut hello =
        Hello { rank: placement.rank, size: placement.size, patience_ms: 0, nonce, part: part.to_vec() };
    let mut backoff = Backoff::new();
    loop {
        let stream = dial(place, deadline).map_err(|reason| no_answer(place, deadline, reason))?;
        let left = deadline.left().unwrap_or_default();
        hello.patience_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        match exchange(stream, &hello, deadline) {
            Ok((kind, body)) => return answer(place, placement, kind, &body),
            Err(Broken::Header(BadHeader::Stranger(what))) => {
                return Err(RendezvousError::Stranger { place: place.to_string(), what });
            }
            Err(Broken::Header(BadHeader::OtherVersion(theirs))) => {
                let (place, ours) = (place.to_string(), frame::VERSION);
                return Err(RendezvousError::OtherVersion { place, theirs, ours });
            }
            Err(Broken::Io(error)) => {
                tracing::debug!("rendezvous at {place}: {error}; dialling again");
                backoff.wait(deadline);
                if deadline.left().is_none() {
                    return Err(no_answer(place, deadline, error.to_string()));
                }
            }
        }
    }
}

/// Why there is no answer.
enum Broken {
    Header(BadHeader),
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn exchange(mut stream: TcpStream, hello: &Hello, deadline: Deadline) -> Result<(Kind, Vec<u8>), Broken> {
    // Rank 0 gives up when the first of us would, and says why: leave it the time to.
    let deadline = deadline.later(GRACE);
    stream.set_write_timeout(deadline.left())?;
    stream.write_all(&hello.encode())?;
    let mut head = Vec::new();
    read_to(&mut stream, &mut head, HEADER_BYTES, deadline)?;
    let head: &[u8; HEADER_BYTES] =
        head.first_chunk().ok_or(io::ErrorKind::UnexpectedEof).map_err(io::Error::from)?;
    let (kind, len) = frame::header(head).map_err(Broken::Header)?;
    let mut body = Vec::new();
    read_to(&mut stream, &mut body, len, deadline)?;
    Ok((kind, body))
}

/// Reads until there are `len` bytes. Memory grows with what has come, not with what was announced.
fn read_to(
    stream: &mut TcpStream,
    bytes: &mut Vec<u8>,
    len: usize,
    deadline: Deadline,
) -> Result<(), Broken> {
    let mut chunk = [0; 16 * 1024];
    while bytes.len() < len {
        let Some(left) = deadline.left() else { return Err(io::Error::from(io::ErrorKind::TimedOut).into()) };
        stream.set_read_timeout(Some(left))?;
        let room = (len - bytes.len()).min(chunk.len());
        match stream.read(&mut chunk[..room]) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(read) => bytes.extend(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(
                    io::Error::new(io::ErrorKind::TimedOut, "it took our hello and said nothing").into()
                );
            }
            Err(error) => return Err(error.into()),
        }
        // Whoever keeps silent may be waiting for others; whoever speaks must speak our language.
        if bytes.len() < HEADER_BYTES && len == HEADER_BYTES && !frame::may_be_header(bytes) {
            let what = format!("it says \"{}\"", bytes.escape_ascii());
            return Err(Broken::Header(BadHeader::Stranger(what)));
        }
    }
    Ok(())
}

fn answer(
    place: &HostPort,
    placement: &Placement,
    kind: Kind,
    body: &[u8],
) -> Result<Vec<Vec<u8>>, RendezvousError> {
    let stranger = |what: &str| RendezvousError::Stranger { place: place.to_string(), what: what.to_owned() };
    match kind {
        Kind::Parts => frame::decode_parts(body, placement.size)
            .ok_or_else(|| stranger("an answer that does not add up")),
        Kind::Refusal => {
            let refusal = Refusal::decode(body).ok_or_else(|| stranger("a refusal that cannot be read"))?;
            Err(RendezvousError::refused(&place.to_string(), refusal))
        }
        Kind::Hello => Err(stranger("a rank that dials, not rank 0")),
    }
}

fn no_answer(place: &HostPort, deadline: Deadline, reason: String) -> RendezvousError {
    let (place, waited_ms) = (place.to_string(), deadline.waited().as_millis());
    RendezvousError::NoAnswer { place, who: "rank 0", waited_ms, reason }
}

const GRACE: Duration = Duration::from_secs(1);
