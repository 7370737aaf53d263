//! A control stream: a non-blocking socket that carries whole frames, sealed once the two sides have shown each
//! other the key. It knows lengths, not meanings.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use crate::fabric::Credentials;
use crate::proto::wire::{FRAME_MAX_BYTES, HELLO_MAX_BYTES, LENGTH_BYTES, check_length};
use crate::trust::{Channel, LinkKeys, TrustError};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct ControlStream {
    socket: OwnedFd,
    input: Vec<u8>,
    parsed: usize,
    output: Vec<u8>,
    written: usize,
    /// Whether the last write left bytes behind.
    blocked: bool,
    max_frame_bytes: usize,
    seal: Option<Seal>,
    /// Whether the peer has closed its side.
    ended: bool,
    /// Whether the stream was broken by nobody knows whom: the kernel says so once, and shows an end from then on.
    reset: bool,
    /// Whether a read has failed: nothing that comes after it counts.
    broken: bool,
}

/// What a sealed stream has besides.
#[derive(Debug)]
struct Seal {
    channel: Box<Channel>,
    /// Bytes that have come and are not opened yet: the beginning of a record.
    unopened: Vec<u8>,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Bytes came; there may be more.
    Some,
    /// Nothing to read now.
    Nothing,
    /// The peer has closed.
    Closed,
}

/// How far a stream is that nothing is expected of but its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The peer has not closed it.
    NotYet,
    /// The peer has.
    Ended,
    /// It broke, and who broke it is not known.
    Unknown,
}

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;
/// Reads in which the end of a stream is looked for, before it is somebody else's turn.
const READS_FOR_THE_END: usize = 16;
/// Unwritten bytes above which no more are taken from the endpoint.
const BACKLOG_BYTES: usize = 1 << 20;

impl ControlStream {
    /// Wraps a connected socket, which must be non-blocking.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            input: Vec::new(),
            parsed: 0,
            output: Vec::new(),
            written: 0,
            blocked: false,
            max_frame_bytes: HELLO_MAX_BYTES,
            seal: None,
            ended: false,
            reset: false,
            broken: false,
        }
    }

    /// From here on all is sealed, both ways: what has come and is not parsed was so already.
    pub fn secure(&mut self, channel: Box<Channel>) -> io::Result<()> {
        let unopened = self.input.split_off(self.parsed);
        self.seal.insert(Seal { channel, unopened }).open(&mut self.input)
    }

    /// Whether all is sealed. On a stream that was dialed the other side has shown our key by then; whoever dials shows it
    /// with the first record of its that opens, before which no frame of its is read.
    pub fn is_secured(&self) -> bool {
        self.seal.is_some()
    }

    /// The keys of a fabric's data link with this id, if the stream is sealed.
    pub fn link_keys(&self, fabric: &str, link_id: &[u8; 16]) -> Option<LinkKeys> {
        self.seal.as_ref().map(|seal| seal.channel.link_keys(fabric, link_id))
    }

    /// Lowers the bound on frames to what is allowed after the handshake.
    pub fn handshake_is_over(&mut self) {
        self.max_frame_bytes = FRAME_MAX_BYTES;
    }

    /// The peer's process, when this is a Unix socket.
    pub fn credentials(&self) -> Option<Credentials> {
        Credentials::of_peer(self.socket.as_fd()).ok().flatten()
    }

    /// Reads once. A stream that has failed stays so.
    pub fn fill(&mut self) -> io::Result<Intake> {
        if self.broken {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let intake = self.read();
        self.broken = intake.is_err();
        intake
    }

    /// Closes it for whoever else holds it, too: a forked child of the host's may, and closing it alone would tell the
    /// peer nothing.
    pub fn shut(&self) {
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both); // it may be gone already
    }

    /// Leaves it open until this process ends, and never says anything on it again.
    pub fn fall_silent(self) {
        std::mem::forget(self.socket);
    }

    /// Whether the peer has closed its side: nothing of its comes after that.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads and drops what has come, up to the end if that has.
    pub fn await_end(&mut self) -> Ending {
        let mut dropped = [0; 16 << 10];
        for _ in 0..READS_FOR_THE_END {
            match rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, &mut dropped)) {
                Ok(0) if self.reset => return Ending::Unknown,
                Ok(0) => return Ending::Ended,
                Ok(_) => {}
                Err(Errno::AGAIN) => return Ending::NotYet,
                Err(errno) => {
                    self.has_failed(errno);
                    return if self.ended { Ending::Ended } else { Ending::Unknown };
                }
            }
        }
        Ending::NotYet
    }

    /// Whether an error says that the peer's socket was closed: on one host only its owner does that; a network
    /// resets connections, too.
    fn is_closed_by(&self, errno: Errno) -> bool {
        errno == Errno::CONNRESET && self.credentials().is_some()
    }

    /// Keeps what an error of the socket says about its end.
    fn has_failed(&mut self, errno: Errno) {
        match self.is_closed_by(errno) {
            true => self.ended = true,
            false => self.reset = true,
        }
    }

    fn read(&mut self) -> io::Result<Intake> {
        self.input.drain(..self.parsed);
        self.parsed = 0;
        let into = self.seal.as_mut().map_or(&mut self.input, |seal| &mut seal.unopened);
        into.reserve(READ_BYTES);
        let outcome = rustix::io::retry_on_intr(|| rustix::io::read(&self.socket, spare_capacity(into)));
        match outcome {
            Ok(0) => {
                self.ended |= !self.reset;
                Ok(Intake::Closed)
            }
            Ok(_) => {
                let opened = self.seal.as_mut().map(|seal| seal.open(&mut self.input));
                opened.transpose().map(|_| Intake::Some)
            }
            Err(Errno::AGAIN) => Ok(Intake::Nothing),
            Err(errno) => {
                self.has_failed(errno);
                Err(errno.into())
            }
        }
    }

    /// The next whole frame, without its length; `None` until more has been read.
    pub fn next_frame(&mut self) -> io::Result<Option<&[u8]>> {
        let rest = &self.input[self.parsed..];
        let Some(length) = rest.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = check_length(u32::from_le_bytes(*length), self.max_frame_bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        if rest.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let start = self.parsed + LENGTH_BYTES;
        self.parsed = start + length;
        Ok(Some(&self.input[start..self.parsed]))
    }

    /// Bytes that have come and are not part of a whole frame yet.
    pub fn unparsed(&self) -> &[u8] {
        &self.input[self.parsed..]
    }

    /// Forgets so many of the [unparsed](Self::unparsed) bytes.
    pub fn skip(&mut self, count: usize) {
        self.parsed = self.input.len().min(self.parsed.saturating_add(count));
    }

    /// The peer's address, when this is a TCP socket.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        rustix::net::getpeername(&self.socket).ok().flatten().and_then(|address| address.try_into().ok())
    }

    /// Whether more output may be handed over.
    pub fn has_room(&self) -> bool {
        self.unwritten_bytes() < BACKLOG_BYTES
    }

    /// Output that waits for the socket to take more, in bytes.
    pub fn unwritten_bytes(&self) -> usize {
        self.output.len() - self.written
    }

    /// Whether output waits for the socket to take more.
    pub fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Writes what the socket takes, and queues the rest.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.seal {
            // What is long and has nothing before it is not copied.
            None if self.output.is_empty() => {
                let written = self.write(bytes)?;
                self.output.extend_from_slice(&bytes[written..]);
                return Ok(());
            }
            None => self.output.extend_from_slice(bytes),
            Some(seal) => seal.channel.seal(bytes, &mut self.output).map_err(untrusted)?,
        }
        self.flush()
    }

    /// Writes what the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        let written = self.write(&output[self.written..]);
        self.output = output;
        self.written += written?;
        if self.written == self.output.len() {
            self.output.clear();
            self.written = 0;
        } else if self.written >= BACKLOG_BYTES {
            self.output.drain(..self.written); // a stream that never empties does not keep all it has said
            self.written = 0;
        }
        Ok(())
    }

    /// Writes what the socket takes of these bytes, and says how many those are.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.blocked = false;
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            match rustix::io::retry_on_intr(|| {
                rustix::net::send(&self.socket, rest, rustix::net::SendFlags::NOSIGNAL)
            }) {
                Ok(count) => written += count,
                Err(Errno::AGAIN) => {
                    self.blocked = true;
                    break;
                }
                Err(errno) => {
                    // A pipe that is broken says that the other side has closed, or that an earlier error was read.
                    if errno != Errno::PIPE {
                        self.has_failed(errno);
                    }
                    return Err(errno.into());
                }
            }
        }
        Ok(written)
    }
}

impl Seal {
    /// Opens every whole record into `input`.
    fn open(&mut self, input: &mut Vec<u8>) -> io::Result<()> {
        let opened = self.channel.open(&mut self.unopened, input).map_err(untrusted)?;
        self.unopened.drain(..opened);
        Ok(())
    }
}

fn untrusted(error: TrustError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl AsFd for ControlStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
