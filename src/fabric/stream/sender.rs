//! The sending half of a link: batches queued as frames, written straight from registered memory.
//!
//! One gathered write carries as much as it may: the rest of a frame, several small frames, or a part of a
//! large one. A write that the socket cuts short is resumed where it stopped. The socket is the caller's.
//!
//! A payload with GPU memory is copied to a slot first, and goes from there:
//!
//! ```text
//!   Wanted --- a slot is free ---> Copying ---> Staged ---> written
//!                                     +-------> Failed ---> told, and never begun
//! ```

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;

use super::copies::{Ended, JobId};
use super::drive::Side;
use super::fault;
use super::frame::{Head, encode_preface};
use super::iovec::{Gather, Pieces, fetch};
use super::sealed::Sealing;
use super::slots::Slot;
use super::staging::Staging;
use crate::desc::{OpToken, PeerKey, Segment, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Batch, RegionSet};
use crate::trust::LinkKey;

/// What one turn at a socket did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// Bytes moved.
    pub(super) bytes: u64,
    /// Whether another turn may move more now; otherwise the socket has to become ready first.
    pub(super) more: bool,
}

/// Frames on their way out.
#[derive(Debug)]
pub(super) struct Sender {
    queue: VecDeque<Outgoing>,
    /// Makes records of them, where the link has keys.
    sealing: Option<Box<Sealing>>,
    /// Frames that want a slot.
    wanting: usize,
}

/// A frame, or the preface, and how much of it has been written.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// `None` for the preface, which nobody waits for.
    pub(super) token: Option<OpToken>,
    /// Head and header.
    lead: Vec<u8>,
    lead_sent: usize,
    segments: Vec<Segment>,
    /// The segment to write next, and how much of it is written.
    next: usize,
    offset: u64,
    payload: Payload,
}

/// Where the payload of a frame is.
#[derive(Debug)]
enum Payload {
    /// In host memory, to be written from where it lies.
    InPlace,
    /// A part is GPU memory: it goes to a slot,
    Wanted,
    /// is on its way there,
    Copying(JobId),
    /// has arrived, and the slot is its one segment; or it never will.
    Staged(Slot),
    Failed(FabricError),
}

/// Is told of each batch that is over.
pub(super) type Done<'a> = &'a mut dyn FnMut(OpToken, Result<(), FabricError>);

impl Sender {
    /// A sender for this link, sealed if it has a key; it begins with the preface.
    pub(super) fn new(link_id: [u8; 16], key: Option<&LinkKey>) -> Result<Self, FabricError> {
        let sealing = key.map(|key| Sealing::new(link_id, key).map(Box::new)).transpose()?;
        let mut queue = VecDeque::new();
        if sealing.is_none() {
            queue.push_back(Outgoing::new(None, encode_preface(link_id).to_vec(), Vec::new()));
        }
        Ok(Self { queue, sealing, wanting: 0 })
    }

    /// Queues a batch as a frame. The caller has checked it, and knows whether it has GPU memory.
    pub(super) fn push(&mut self, batch: Batch, has_vram: bool) {
        let head = Head { header_bytes: batch.header.len(), payload_bytes: batch.bytes() };
        let mut lead = Vec::with_capacity(super::frame::HEAD_BYTES + batch.header.len());
        lead.extend(head.encode());
        lead.extend(&batch.header);
        let mut outgoing = Outgoing::new(Some(batch.token), lead, batch.segments);
        if has_vram {
            outgoing.payload = Payload::Wanted;
            self.wanting += 1;
        }
        self.queue.push_back(outgoing);
    }

    /// Begins to copy payloads to slots, in their order, as far as there are any for this link.
    pub(super) fn stage(&mut self, peer: PeerKey, regions: &RegionSet, staging: &mut Staging) {
        if self.wanting == 0 {
            return;
        }
        let held = self.queue.iter().filter(|outgoing| outgoing.holds_slot()).count();
        let wanting = |outgoing: &&mut Outgoing| matches!(outgoing.payload, Payload::Wanted);
        for (held, outgoing) in (held..).zip(self.queue.iter_mut().filter(wanting)) {
            let Some(slot) = staging.take(Side::Send(peer), held) else { return };
            self.wanting -= 1;
            outgoing.payload = match staging.gather(peer, slot, &outgoing.segments, regions) {
                Ok(job) => Payload::Copying(job),
                Err(error) => Payload::Failed(error),
            };
        }
    }

    /// A payload is in its slot, or will never be.
    pub(super) fn staged(&mut self, ended: Ended) {
        let is_its =
            |outgoing: &&mut Outgoing| matches!(outgoing.payload, Payload::Copying(job) if job == ended.id);
        let Some(outgoing) = self.queue.iter_mut().find(is_its) else { return };
        let len = outgoing.segments.iter().map(|segment| segment.len).sum();
        outgoing.segments = vec![Segment { src: 0, dst: 0, len }];
        outgoing.payload = match ended.outcome {
            Ok(()) => Payload::Staged(ended.slot),
            Err(error) => Payload::Failed(error),
        };
    }

    /// Frames that are not wholly written.
    pub(super) fn len(&self) -> usize {
        self.queue.len() + self.sealing.as_ref().map_or(0, |sealing| sealing.batches())
    }

    /// Whether there is something to write, or to tell.
    pub(super) fn is_ready(&self) -> bool {
        is_ready(&self.queue) || self.sealing.as_ref().is_some_and(|sealing| !sealing.is_empty())
    }

    /// Writes about `max_bytes` and calls `done` for each batch that is wholly with the kernel.
    pub(super) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: (&RegionSet, &mut Pieces),
        max_bytes: u64,
        done: Done<'_>,
    ) -> Result<Turn, FabricError> {
        self.tell_failed(done);
        if let Some(sealing) = &mut self.sealing {
            return sealing.send(&mut self.queue, socket, memory.0, done);
        }
        let mut gather = Gather::new(memory.1, memory.0);
        let asked = self.gather(&mut gather, max_bytes)?;
        if asked == 0 {
            return Ok(Turn { bytes: 0, more: false });
        }
        match gather.send(socket) {
            Ok(sent) => {
                let sent = sent as u64;
                self.advance(sent, done);
                Ok(Turn { bytes: sent, more: sent == asked && is_ready(&self.queue) })
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock => Ok(Turn { bytes: 0, more: false }),
                ErrorKind::Interrupted => Ok(Turn { bytes: 0, more: true }),
                _ => Err(fault::of_call("sendmsg", &error, "writing to the peer")),
            },
        }
    }

    /// Gives up: the tokens of all batches that will not complete, oldest first.
    pub(super) fn abandon(self) -> impl Iterator<Item = OpToken> {
        let sealed = self.sealing.map(|sealing| sealing.abandon()).unwrap_or_default();
        sealed.into_iter().chain(self.queue.into_iter().filter_map(|outgoing| outgoing.token))
    }

    /// Lists up to about `max_bytes` of what is to be written next, and says how many bytes that is.
    fn gather<'a>(&'a self, gather: &mut Gather<'a>, max_bytes: u64) -> Result<u64, FabricError> {
        let mut listed = 0;
        for outgoing in self.queue.iter().take_while(|outgoing| outgoing.is_whole()) {
            if listed >= max_bytes || gather.is_full() {
                break;
            }
            listed += outgoing.gather(gather, max_bytes - listed)?;
        }
        Ok(listed)
    }

    /// Takes frames out of the queue whose payload could not be had, in their turn.
    fn tell_failed(&mut self, done: Done<'_>) {
        if self.sealing.as_ref().is_some_and(|sealing| sealing.batches() > 0) {
            return; // batches before it are not told of yet
        }
        while let Some(Payload::Failed(error)) = self.queue.front().map(|front| &front.payload) {
            let error = error.clone();
            if let Some(token) = self.queue.pop_front().and_then(|outgoing| outgoing.token) {
                done(token, Err(error));
            }
        }
    }

    fn advance(&mut self, mut sent: u64, done: Done<'_>) {
        while let Some(front) = self.queue.front_mut().filter(|front| front.is_whole()) {
            sent -= front.advance(sent);
            if !front.is_written() {
                return;
            }
            if let Some(token) = self.queue.pop_front().and_then(|outgoing| outgoing.token) {
                done(token, Ok(()));
            }
        }
    }
}

impl Outgoing {
    fn new(token: Option<OpToken>, lead: Vec<u8>, segments: Vec<Segment>) -> Self {
        Self { token, lead, lead_sent: 0, segments, next: 0, offset: 0, payload: Payload::InPlace }
    }

    /// Whether it is written, or its failure told, once all before it are.
    fn is_ready(&self) -> bool {
        self.is_whole() || matches!(self.payload, Payload::Failed(_))
    }

    /// Whether all of it can be written.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.payload, Payload::InPlace | Payload::Staged(_))
    }

    fn holds_slot(&self) -> bool {
        matches!(self.payload, Payload::Copying(_) | Payload::Staged(_))
    }

    /// The bytes of its slot, where it has one.
    fn slot_bytes(&self, offset: u64, len: u64) -> Option<&[u8]> {
        let Payload::Staged(slot) = &self.payload else { return None };
        slot.bytes().get(offset as usize..(offset + len) as usize)
    }

    /// Whether nothing of it is left to write.
    pub(super) fn is_written(&self) -> bool {
        self.lead_sent == self.lead.len() && self.next == self.segments.len()
    }

    fn gather<'a>(&'a self, gather: &mut Gather<'a>, max_bytes: u64) -> Result<u64, FabricError> {
        let lead = &self.lead[self.lead_sent..];
        if !lead.is_empty() {
            gather.push_bytes(lead);
        }
        let mut listed = lead.len() as u64;
        let mut offset = self.offset;
        for segment in &self.segments[self.next..] {
            if listed >= max_bytes || gather.is_full() {
                break;
            }
            let span =
                Span { addr: segment.src + offset, len: (segment.len - offset).min(max_bytes - listed) };
            match self.slot_bytes(offset, span.len) {
                Some(bytes) => gather.push_bytes(bytes),
                None if gather.push_span(span) => {}
                None => return Err(gone(span)),
            }
            listed += span.len;
            offset = 0;
        }
        Ok(listed)
    }

    /// Copies what is to be written next into `out` and counts it as written; says how much that was.
    pub(super) fn copy(&mut self, regions: &RegionSet, out: &mut [u8]) -> Result<usize, FabricError> {
        let lead = &self.lead[self.lead_sent..];
        let mut len = lead.len().min(out.len());
        out[..len].copy_from_slice(&lead[..len]);
        let mut offset = self.offset;
        for segment in &self.segments[self.next..] {
            if len == out.len() {
                break;
            }
            let step = (segment.len - offset).min((out.len() - len) as u64);
            let span = Span { addr: segment.src + offset, len: step };
            let room = &mut out[len..len + step as usize];
            match self.slot_bytes(offset, step) {
                Some(bytes) => room.copy_from_slice(bytes),
                None if fetch(regions, span.addr, room) => {}
                None => return Err(gone(span)),
            }
            len += room.len();
            offset = 0;
        }
        self.advance(len as u64);
        Ok(len)
    }

    /// Takes note of up to `sent` written bytes and says how many of them were this frame's.
    fn advance(&mut self, sent: u64) -> u64 {
        let lead = ((self.lead.len() - self.lead_sent) as u64).min(sent);
        self.lead_sent += lead as usize;
        let mut left = sent - lead;
        while let Some(segment) = self.segments.get(self.next) {
            let step = (segment.len - self.offset).min(left);
            left -= step;
            self.offset += step;
            if self.offset < segment.len {
                break;
            }
            self.next += 1;
            self.offset = 0;
        }
        sent - left
    }
}

/// Whether the first frame of a queue can be written, or its failure told.
pub(super) fn is_ready(queue: &VecDeque<Outgoing>) -> bool {
    queue.front().is_some_and(Outgoing::is_ready)
}

/// A region was deregistered under a posted batch: the frame has begun and cannot be taken back, so the link
/// has to go.
fn gone(span: Span) -> FabricError {
    let detail = format!(
        "source memory {:#x}+{} was deregistered while a batch that uses it was in flight",
        span.addr, span.len
    );
    fault::of_kind("sendmsg", FabricErrorKind::InvalidRegion, detail)
}
