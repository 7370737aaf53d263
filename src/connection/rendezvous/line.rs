//! A rank's connection to rank 0: bytes each way, sealed where the ranks have a key in common.
//!
//! Both ends of it: [`Line`] blocks, for the rank that dials; [`Lock`] takes what has come, for rank 0. Where there is
//! a key, nothing of a meeting is said or believed before the other side has shown it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use crate::trust::{
    Answered, Asked, Channel, Initiator, OPENING_BYTES, Purpose, Responder, SEED_BYTES, Secret, TrustError,
    refusal, starts_like_opening,
};

use super::deadline::Deadline;
use super::frame::{self, Refusal};

/// Why a line is no good.
#[derive(Debug)]
pub enum Cut {
    /// The two sides do not trust each other.
    Trust(TrustError),
    /// The connection.
    Io(io::Error),
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<TrustError> for Cut {
    fn from(error: TrustError) -> Self {
        Self::Trust(error)
    }
}

/// The dialing end.
pub struct Line {
    stream: TcpStream,
    channel: Option<Box<Channel>>,
    unopened: Vec<u8>,
    /// What rank 0 has said.
    pub heard: Vec<u8>,
}

impl Line {
    /// A line over this connection; with a key, once rank 0 has shown the same.
    pub fn open(stream: TcpStream, secret: Option<&Secret>, deadline: Deadline) -> Result<Self, Cut> {
        let mut line = Self { stream, channel: None, unopened: Vec::new(), heard: Vec::new() };
        let Some(secret) = secret else { return Ok(line) };
        let (mut initiator, opening) = Initiator::new(secret, Purpose::Rendezvous, seed()?)?;
        line.write(&opening, deadline)?;
        loop {
            if let Answered::Sealed(channel, taken) = initiator.handle(&line.unopened)? {
                line.unopened.drain(..taken);
                line.channel = Some(channel);
                line.unseal()?;
                return Ok(line);
            }
            line.read(deadline)?;
        }
    }

    /// Says `bytes`.
    pub fn say(&mut self, bytes: &[u8], deadline: Deadline) -> Result<(), Cut> {
        let mut sealed = Vec::new();
        let bytes = match &mut self.channel {
            None => bytes,
            Some(channel) => {
                channel.seal(bytes, &mut sealed)?;
                &sealed
            }
        };
        Ok(self.write(bytes, deadline)?)
    }

    /// Waits for more of what rank 0 says.
    pub fn listen(&mut self, deadline: Deadline) -> Result<(), Cut> {
        self.read(deadline)?;
        self.unseal()
    }

    fn unseal(&mut self) -> Result<(), Cut> {
        match &mut self.channel {
            None => self.heard.append(&mut self.unopened),
            Some(channel) => {
                let opened = channel.open(&mut self.unopened, &mut self.heard)?;
                self.unopened.drain(..opened);
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], deadline: Deadline) -> io::Result<()> {
        self.stream.set_write_timeout(Some(left(deadline)?))?;
        self.stream.write_all(bytes)
    }

    /// Memory grows with what has come, not with what was announced.
    fn read(&mut self, deadline: Deadline) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        loop {
            self.stream.set_read_timeout(Some(left(deadline)?))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    self.unopened.extend_from_slice(&chunk[..read]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "it took our hello and said nothing",
                    ));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The accepting end, for rank 0, which waits for many at once.
#[derive(Default)]
pub struct Lock {
    secret: Option<Arc<Secret>>,
    channel: Option<Box<Channel>>,
    unopened: Vec<u8>,
}

impl Lock {
    /// Opens for those who have the key, or for everybody where there is none.
    pub fn new(secret: Option<Arc<Secret>>) -> Self {
        Self { secret, ..Self::default() }
    }

    /// Takes in what has come and appends what it says to `heard`. `answer` is to be sent, whatever the outcome; an
    /// error is why this caller has to go.
    pub fn take(&mut self, came: &[u8], heard: &mut Vec<u8>, answer: &mut Vec<u8>) -> Result<(), TrustError> {
        self.unopened.extend_from_slice(came);
        let Some(secret) = &self.secret else {
            if heard.is_empty() && starts_like_opening(&self.unopened) == Some(true) {
                answer.extend(refusal(TrustError::KeyWanted));
                return Err(TrustError::KeyWanted);
            }
            heard.append(&mut self.unopened);
            return Ok(());
        };
        let channel = match &mut self.channel {
            Some(channel) => channel,
            none => {
                let seed = seed().map_err(|_| TrustError::Internal)?;
                match Responder::handle(secret, Purpose::Rendezvous, seed, &self.unopened) {
                    Ok(Asked::Unclear) => return Ok(()),
                    Ok(Asked::Answer(channel, bytes)) => {
                        answer.extend(bytes);
                        self.unopened.drain(..OPENING_BYTES);
                        none.insert(channel)
                    }
                    Err(TrustError::NotOurs) if frame::may_be_header(&self.unopened) => {
                        answer.extend(Refusal::KeyWanted.encode());
                        return Err(TrustError::KeyMissing);
                    }
                    Err(error) => {
                        answer.extend(refusal(error));
                        return Err(error);
                    }
                }
            }
        };
        let opened = channel.open(&mut self.unopened, heard)?;
        self.unopened.drain(..opened);
        Ok(())
    }

    /// The bytes that say `frame` to this caller; none to one who has not shown the key.
    pub fn wrap(&mut self, frame: &Arc<[u8]>) -> Option<Arc<[u8]>> {
        match (&mut self.channel, &self.secret) {
            (None, None) => Some(Arc::clone(frame)),
            (None, Some(_)) => None,
            (Some(channel), _) => {
                let mut sealed = Vec::new();
                channel.seal(frame, &mut sealed).ok()?;
                Some(sealed.into())
            }
        }
    }
}

fn left(deadline: Deadline) -> io::Result<std::time::Duration> {
    deadline.left().ok_or_else(|| io::ErrorKind::TimedOut.into())
}

fn seed() -> io::Result<[u8; SEED_BYTES]> {
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(seed)
}
