//! The two halves of a link between sides that have a key in common: what makes records of frames, and what makes
//! frames of records again.
//!
//! ```text
//!   memory --copied once--> record, sealed in place --> socket --> record, opened in place --copied once--> memory
//! ```
//! The copies are what the plain way spares: a record is sealed where it stands, and nothing may land that has not
//! authenticated. Buffers are made once for each link. A connection begins with the preface in the clear; the proof
//! in it lets the other side in.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::fault;
use super::frame::encode_sealed_preface;
use super::sender::{Done, Outgoing, Turn, is_ready};
use crate::desc::OpToken;
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::RegionSet;
use crate::trust::{
    LinkKey, Opener, PLAIN_MAX_BYTES, RECORD_HEAD_BYTES, RECORD_MAX_BYTES, Sealer, TAG_BYTES, TrustError,
    body_len,
};

/// Frames on their way out. Records are made when all before them are with the kernel, so that what waits here is
/// bounded and no older than the socket is slow.
#[derive(Debug)]
pub(super) struct Sealing {
    sealer: Sealer,
    /// Records that wait for the kernel: `buffer[written..end]`.
    buffer: Box<[u8]>,
    written: usize,
    end: usize,
    /// Batches whose last byte is in the buffer.
    sealed: Vec<OpToken>,
}

/// Records on their way in.
#[derive(Debug)]
pub(super) struct Opening {
    opener: Opener,
    /// What has come and is not opened yet: `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// What was opened and not taken: it lies before `start`.
    opened: Range<usize>,
}

impl Sealing {
    /// Begins with the preface of the link.
    pub(super) fn new(link_id: [u8; 16], key: &LinkKey) -> Result<Self, FabricError> {
        let mut buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        let preface = encode_sealed_preface(link_id, key.proof());
        buffer[..preface.len()].copy_from_slice(&preface);
        let sealer = key.sealer().map_err(|error| distrusted("sendmsg", error))?;
        Ok(Self { sealer, buffer, written: 0, end: preface.len(), sealed: Vec::new() })
    }

    /// Whether nothing waits for the kernel.
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.end
    }

    /// Batches that wait for the kernel, wholly sealed.
    pub(super) fn batches(&self) -> usize {
        self.sealed.len()
    }

    /// One turn: seals more of `queue` if all before it is written, then writes what the socket takes.
    pub(super) fn send(
        &mut self,
        queue: &mut VecDeque<Outgoing>,
        socket: BorrowedFd<'_>,
        regions: &RegionSet,
        done: Done<'_>,
    ) -> Result<Turn, FabricError> {
        if self.is_empty() {
            self.refill(queue, regions)?;
        }
        if self.is_empty() {
            return Ok(Turn { bytes: 0, more: false });
        }
        let waiting = &self.buffer[self.written..self.end];
        match rustix::net::send(socket, waiting, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(sent) => {
                self.written += sent;
                if self.is_empty() {
                    self.sealed.drain(..).for_each(|token| done(token, Ok(())));
                }
                Ok(Turn { bytes: sent as u64, more: self.is_empty() && is_ready(queue) })
            }
            Err(Errno::AGAIN) => Ok(Turn { bytes: 0, more: false }),
            Err(Errno::INTR) => Ok(Turn { bytes: 0, more: true }),
            Err(error) => Err(fault::of_call("sendmsg", &error.into(), "writing to the peer")),
        }
    }

    /// The batches that will not complete, oldest first.
    pub(super) fn abandon(self) -> Vec<OpToken> {
        self.sealed
    }

    fn refill(&mut self, queue: &mut VecDeque<Outgoing>, regions: &RegionSet) -> Result<(), FabricError> {
        (self.written, self.end) = (0, 0);
        while self.buffer.len() - self.end >= RECORD_MAX_BYTES
            && queue.front().is_some_and(Outgoing::is_whole)
        {
            let start = self.end + RECORD_HEAD_BYTES;
            let plain =
                take(queue, regions, &mut self.buffer[start..start + PLAIN_MAX_BYTES], &mut self.sealed)?;
            let end = start + plain + TAG_BYTES;
            let record = &mut self.buffer[self.end..end];
            self.sealer.seal(record).map_err(|error| distrusted("sendmsg", error))?;
            self.end = end;
        }
        Ok(())
    }
}

impl Opening {
    /// Opens what the other side of the link seals.
    pub(super) fn new(key: &LinkKey) -> Result<Self, FabricError> {
        let opener = key.opener().map_err(|error| distrusted("recv", error))?;
        Ok(Self { opener, buffer: vec![0; BUFFER_BYTES].into(), start: 0, end: 0, opened: 0..0 })
    }

    /// Reads once, when all that was opened has been taken: how many bytes came, and whether more may be there.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<(usize, bool)> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let room = &mut self.buffer[self.end..];
        let (_, read) = rustix::net::recv(socket, &mut *room, RecvFlags::DONTWAIT)?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let full = read == room.len();
        self.end += read;
        Ok((read, full))
    }

    /// What the next whole record carries, or what is left of the one before.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, FabricError> {
        if self.opened.is_empty() && !self.open_next()? {
            return Ok(None);
        }
        Ok(Some(&self.buffer[self.opened.clone()]))
    }

    /// So much of it has been taken.
    pub(super) fn take(&mut self, bytes: usize) {
        self.opened.start += bytes;
    }

    /// Opens the next record, if it is there.
    fn open_next(&mut self) -> Result<bool, FabricError> {
        let Some(head) = self.buffer[self.start..self.end].first_chunk() else { return Ok(false) };
        let len = body_len(*head).map_err(|error| distrusted("recv", error))?;
        let body = self.start + RECORD_HEAD_BYTES;
        if self.end - body < len {
            return Ok(false);
        }
        self.start = body + len;
        let opened = self.opener.open(&mut self.buffer[body..body + len]);
        let plain = opened.map_err(|error| distrusted("recv", error))?.len();
        self.opened = body..body + plain;
        Ok(true)
    }
}

/// Fills `out` from the front of the queue; says how much that was. Frames that are wholly taken leave the queue.
fn take(
    queue: &mut VecDeque<Outgoing>,
    regions: &RegionSet,
    out: &mut [u8],
    taken: &mut Vec<OpToken>,
) -> Result<usize, FabricError> {
    let mut len = 0;
    while len < out.len()
        && let Some(front) = queue.front_mut().filter(|front| front.is_whole())
    {
        len += front.copy(regions, &mut out[len..])?;
        if front.is_written() {
            taken.extend(queue.pop_front().and_then(|outgoing| outgoing.token));
        }
    }
    Ok(len)
}

fn distrusted(call: &'static str, error: TrustError) -> FabricError {
    fault::of_kind(call, FabricErrorKind::PeerLost, format!("the data connection of the peer: {error}"))
}

/// Room for four of the longest records: one system call moves as much, and it stays in a core's second cache.
const BUFFER_BYTES: usize = 4 * RECORD_MAX_BYTES;
