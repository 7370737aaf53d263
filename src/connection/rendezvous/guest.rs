//! The other ranks' side: dial rank 0, say who we are, take what it says.
//!
//! A connection that breaks before rank 0 has spoken is dialled again: the listener of an earlier meeting may just
//! be closing, or rank 0 may be coming back.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::config::rendezvous::{HostPort, Placement};
use crate::trust::Secret;

use super::RendezvousError;
use super::deadline::Deadline;
use super::dial::{Backoff, dial};
use super::frame::{self, BadHeader, HEADER_BYTES, Hello, Kind, Refusal};
use super::line::{Cut, Line};

/// Brings `part` to rank 0 at `place`, and takes home everybody's.
pub fn visit(
    place: &HostPort,
    placement: &Placement,
    part: &[u8],
    secret: Option<&Secret>,
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
        match exchange(stream, &hello, secret, deadline) {
            Ok((kind, body)) => return answer(place, placement, kind, &body),
            Err(Broken::Header(BadHeader::Stranger(what))) => {
                return Err(RendezvousError::Stranger { place: place.to_string(), what });
            }
            Err(Broken::Header(BadHeader::OtherVersion(theirs))) => {
                let (place, ours) = (place.to_string(), frame::VERSION);
                return Err(RendezvousError::OtherVersion { place, theirs, ours });
            }
            Err(Broken::Line(Cut::Trust(source))) => {
                return Err(RendezvousError::Trust { place: place.to_string(), source });
            }
            Err(Broken::Line(Cut::Io(error))) => {
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
    Line(Cut),
}

impl From<Cut> for Broken {
    fn from(cut: Cut) -> Self {
        Self::Line(cut)
    }
}

fn exchange(
    stream: TcpStream,
    hello: &Hello,
    secret: Option<&Secret>,
    deadline: Deadline,
) -> Result<(Kind, Vec<u8>), Broken> {
    // Rank 0 gives up when the first of us would, and says why: leave it the time to.
    let deadline = deadline.later(GRACE);
    let mut line = Line::open(stream, secret, deadline)?;
    line.say(&hello.encode(), deadline)?;
    let (kind, len) = loop {
        if let Some(head) = line.heard.first_chunk::<HEADER_BYTES>() {
            break frame::header(head).map_err(Broken::Header)?;
        }
        // Whoever keeps silent may be waiting for others; whoever speaks must speak our language.
        if !frame::may_be_header(&line.heard) {
            let what = format!("it says \"{}\"", line.heard.escape_ascii());
            return Err(Broken::Header(BadHeader::Stranger(what)));
        }
        line.listen(deadline)?;
    };
    while line.heard.len() < HEADER_BYTES + len {
        line.listen(deadline)?;
    }
    Ok((kind, line.heard[HEADER_BYTES..HEADER_BYTES + len].to_vec()))
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
