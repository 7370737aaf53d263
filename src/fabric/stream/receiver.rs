//! The receiving half of a link: frames read off a socket, payload straight into its destination.
//!
//! ```text
//!             head and header complete              payload complete
//!   Head ------------ sink.arrived ----> Payload ------ sink.landed ----> Head
//! ```
//! GPU memory is reached by way of a slot, and the next frame is read while its bytes are copied on:
//!
//! ```text
//!   Stalled --- a slot is free ---> Slot --- payload complete ---> copied ---> sink.landed
//! ```
//! While it is stalled, a receiver reads nothing, and what it has read stays where it is.
//!
//! Heads and headers pass through a small buffer; what of a payload comes in with them is copied out of it,
//! the rest is read into place. The buffer is empty while a payload is being read, unless it is stalled. A payload that may not
//! land is read and thrown away, so a refusal never puts the stream out of step.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;

use super::copies::{Ended, JobId};
use super::drive::Side;
use super::fault;
use super::frame::{HEAD_BYTES, Head};
use super::iovec::{Pieces, Scatter, place};
use super::sealed::Opening;
use super::sender::Turn;
use super::slots::{SLOT_BYTES, Slot};
use super::staging::Staging;
use crate::desc::{PeerKey, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{HEADER_MAX_BYTES, Landing, LastHit, RegionSet, Sink};
use crate::trust::LinkKey;

/// What a turn works on: the memory of one fabric.
pub(super) struct Memory<'a> {
    pub(super) regions: &'a RegionSet,
    pub(super) workspace: &'a mut Workspace,
    pub(super) staging: &'a mut Staging,
}

/// Memory that the receivers of one fabric share.
#[derive(Debug)]
pub(super) struct Workspace {
    /// Room for piece lists.
    pub(super) pieces: Pieces,
    /// Where thrown-away payload goes.
    waste: Box<[u8]>,
}

impl Default for Workspace {
    fn default() -> Self {
        Self { pieces: Pieces::default(), waste: vec![0; WASTE_BYTES].into() }
    }
}

/// Frames on their way in.
#[derive(Debug)]
pub(super) struct Receiver {
    peer: PeerKey,
    /// Bytes read and not yet understood: `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The payload being read; `None` between frames.
    payload: Option<Payload>,
    /// Makes frames of records, where the link has keys.
    opening: Option<Box<Opening>>,
    /// Payloads that are being copied from their slots, with their tickets.
    landing: Vec<(JobId, u64)>,
}

/// A payload, and how much of it is still to come.
#[derive(Debug)]
struct Payload {
    left: u64,
    target: Target,
}

#[derive(Debug)]
enum Target {
    /// Into `spans`, from `offset` in the `next` one on.
    Spans { ticket: u64, spans: Vec<Span>, next: usize, offset: u64 },
    /// Into a slot, when there is one, and from there into `spans`: some are GPU memory.
    Stalled { ticket: u64, spans: Vec<Span> },
    /// Into a slot, which has `filled` bytes.
    Slot { ticket: u64, spans: Vec<Span>, slot: Slot, filled: usize },
    /// Nowhere; if the sink had named spans, it is told why at the end.
    Waste(Option<(u64, FabricError)>),
}

impl Receiver {
    /// A receiver at the beginning of a frame, sealed if the link has a key.
    pub(super) fn new(peer: PeerKey, key: Option<&LinkKey>) -> Result<Self, FabricError> {
        let opening = key.map(|key| Opening::new(key).map(Box::new)).transpose()?;
        let buffer = vec![0; BUFFER_BYTES].into();
        Ok(Self { peer, buffer, start: 0, end: 0, payload: None, opening, landing: Vec::new() })
    }

    /// Whether nothing can be read: the payload that comes next has nowhere to go yet.
    pub(super) fn is_stalled(&self) -> bool {
        self.payload.as_ref().is_some_and(Payload::is_stalled)
    }

    /// Reads about `max_bytes` and tells `sink` of each frame that begins or ends. An error ends the link.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: &mut Memory<'_>,
        max_bytes: u64,
        sink: &mut dyn Sink,
    ) -> Result<Turn, FabricError> {
        if self.is_stalled() {
            return Ok(Turn { bytes: 0, more: false });
        }
        if let Some(opening) = &mut self.opening {
            let (read, full) = match opening.fill(socket) {
                Ok(read) => read,
                Err(error) => return nothing_read(&error),
            };
            self.resume(memory, sink)?;
            return Ok(Turn { bytes: read as u64, more: full });
        }
        let mut scatter = Scatter::new(&mut memory.workspace.pieces, memory.regions);
        let asked = self.scatter(&mut scatter, &mut memory.workspace.waste, max_bytes);
        let read = match scatter.receive(socket) {
            Ok(0) => return Err(fault::closed()),
            Ok(read) => read,
            Err(error) => return nothing_read(&error),
        };
        self.account(read, asked.payload, memory, sink);
        self.digest(memory, sink)?;
        Ok(Turn { bytes: read as u64, more: read as u64 == asked.payload + asked.buffer })
    }

    /// Goes on with what has been read: all of it, unless it stalls.
    pub(super) fn resume(&mut self, memory: &mut Memory<'_>, sink: &mut dyn Sink) -> Result<(), FabricError> {
        self.digest(memory, sink)?;
        let Some(mut opening) = self.opening.take() else { return Ok(()) };
        let outcome = self.take_records(&mut opening, memory, sink);
        self.opening = Some(opening);
        outcome
    }

    /// Takes what records carry, once it has authenticated, to where it belongs.
    fn take_records(
        &mut self,
        opening: &mut Opening,
        memory: &mut Memory<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), FabricError> {
        while !self.is_stalled()
            && let Some(plain) = opening.next()?
        {
            let taken = self.take(plain, memory, sink)?;
            opening.take(taken);
        }
        Ok(())
    }

    /// Takes in bytes of the stream of frames; how many, before it stalled.
    fn take(
        &mut self,
        plain: &[u8],
        memory: &mut Memory<'_>,
        sink: &mut dyn Sink,
    ) -> Result<usize, FabricError> {
        let mut taken = 0;
        while taken < plain.len() && !self.is_stalled() {
            let rest = &plain[taken..];
            let step = match &mut self.payload {
                Some(payload) => {
                    let step = payload.left.min(rest.len() as u64) as usize;
                    payload.take(&rest[..step], memory.regions);
                    step
                }
                None => {
                    let room = spare(&mut self.buffer, &mut self.start, &mut self.end);
                    let step = room.len().min(rest.len());
                    room[..step].copy_from_slice(&rest[..step]);
                    self.end += step;
                    step
                }
            };
            self.land(memory, sink);
            self.digest(memory, sink)?;
            taken += step;
        }
        Ok(taken)
    }

    /// A payload has been copied on from its slot.
    pub(super) fn copied(&mut self, ended: Ended, sink: &mut dyn Sink) {
        let Some(at) = self.landing.iter().position(|(job, _)| *job == ended.id) else { return };
        let (_, ticket) = self.landing.swap_remove(at);
        drop(ended.slot); // whoever waits for one may have it
        sink.landed(self.peer, ticket, ended.outcome);
    }

    /// Gives up: the tickets of payloads that will not land, if the sink waits for any.
    pub(super) fn abandon(self) -> Vec<u64> {
        let landing = self.landing.into_iter().map(|(_, ticket)| ticket);
        landing.chain(self.payload.and_then(|payload| payload.target.ticket())).collect()
    }

    /// Lists where the next bytes go: the rest of the payload up to `max_bytes`, and when all of it is listed,
    /// the buffer for the head after it.
    fn scatter<'a>(&'a mut self, scatter: &mut Scatter<'a>, waste: &'a mut [u8], max_bytes: u64) -> Asked {
        let (listed, whole) = match &mut self.payload {
            None => (0, true),
            Some(payload) => {
                let left = payload.left;
                let listed = payload.scatter(scatter, waste, max_bytes);
                (listed, listed == left)
            }
        };
        if !whole || scatter.is_full() {
            return Asked { payload: listed, buffer: 0 };
        }
        let spare = spare(&mut self.buffer, &mut self.start, &mut self.end);
        let asked = Asked { payload: listed, buffer: spare.len() as u64 };
        scatter.push_buffer(spare);
        asked
    }

    /// Shares out `read` bytes: first the payload's, then the buffer's.
    fn account(&mut self, read: usize, payload_asked: u64, memory: &mut Memory<'_>, sink: &mut dyn Sink) {
        let for_payload = (read as u64).min(payload_asked);
        self.end += (read as u64 - for_payload) as usize;
        if let Some(payload) = &mut self.payload {
            payload.advance(for_payload);
        }
        self.land(memory, sink);
    }

    /// Takes all whole heads and all payload out of the buffer, unless it stalls.
    fn digest(&mut self, memory: &mut Memory<'_>, sink: &mut dyn Sink) -> Result<(), FabricError> {
        loop {
            if let Some(payload) = &mut self.payload {
                if payload.is_stalled() {
                    let slot = memory.staging.take(Side::Receive(self.peer), self.landing.len());
                    let Some(slot) = slot else { return Ok(()) };
                    payload.enter(slot);
                }
                let prefix = ((self.end - self.start) as u64).min(payload.left) as usize;
                payload.take(&self.buffer[self.start..self.start + prefix], memory.regions);
                self.start += prefix;
                self.land(memory, sink);
                if self.payload.is_some() {
                    return Ok(());
                }
            }
            let Some((head, whole)) = self.head()? else { return Ok(()) };
            let header = &self.buffer[self.start + HEAD_BYTES..self.start + whole];
            let landing = sink.arrived(self.peer, header, head.payload_bytes);
            self.start += whole;
            self.payload = Some(Payload::new(landing, head.payload_bytes, memory.regions));
        }
    }

    /// The head at the front of the buffer and the length of head and header, once both are there.
    fn head(&self) -> Result<Option<(Head, usize)>, FabricError> {
        let Some(bytes) = self.buffer[self.start..self.end].first_chunk() else { return Ok(None) };
        let head = Head::decode(bytes)
            .map_err(|error| fault::of_kind("readv", FabricErrorKind::PeerLost, error.to_string()))?;
        let whole = HEAD_BYTES + head.header_bytes;
        Ok((self.end - self.start >= whole).then_some((head, whole)))
    }

    /// Tells the sink if the payload is complete, or begins to copy it on from its slot.
    fn land(&mut self, memory: &mut Memory<'_>, sink: &mut dyn Sink) {
        let Some(payload) = self.payload.take_if(|payload| payload.left == 0) else { return };
        match payload.target {
            Target::Spans { ticket, .. } | Target::Stalled { ticket, .. } => {
                sink.landed(self.peer, ticket, Ok(()));
            }
            Target::Slot { ticket, spans, slot, .. } => {
                match memory.staging.scatter(self.peer, slot, &spans, memory.regions) {
                    Ok(job) => self.landing.push((job, ticket)),
                    Err(error) => sink.landed(self.peer, ticket, Err(error)),
                }
            }
            Target::Waste(Some((ticket, error))) => sink.landed(self.peer, ticket, Err(error)),
            Target::Waste(None) => {}
        }
    }
}

/// What it means that a read brought nothing.
fn nothing_read(error: &std::io::Error) -> Result<Turn, FabricError> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(Turn { bytes: 0, more: false }),
        ErrorKind::Interrupted => Ok(Turn { bytes: 0, more: true }),
        ErrorKind::UnexpectedEof => Err(fault::closed()),
        _ => Err(fault::of_call("readv", error, "reading from the peer")),
    }
}

/// How many bytes one read asks for.
struct Asked {
    payload: u64,
    buffer: u64,
}

impl Payload {
    fn new(landing: Landing, bytes: u64, regions: &RegionSet) -> Self {
        let target = match landing {
            Landing::Discard => Target::Waste(None),
            Landing::Scatter { ticket, spans } => match check(&spans, bytes, regions) {
                Ok(()) if bytes > 0 && regions.has_vram(spans.iter().copied()) => {
                    Target::Stalled { ticket, spans }
                }
                Ok(()) => Target::Spans { ticket, spans, next: 0, offset: 0 },
                Err(error) => Target::Waste(Some((ticket, error))),
            },
        };
        Self { left: bytes, target }
    }

    fn is_stalled(&self) -> bool {
        matches!(self.target, Target::Stalled { .. })
    }

    /// A slot for a payload that is stalled. One that is too long for any will not land.
    fn enter(&mut self, slot: Slot) {
        let Target::Stalled { ticket, spans } = &mut self.target else { return };
        let (ticket, spans) = (*ticket, std::mem::take(spans));
        self.target = if self.left <= SLOT_BYTES as u64 {
            Target::Slot { ticket, spans, slot, filled: 0 }
        } else {
            let detail = format!("{} bytes for GPU memory in one frame: the most is {SLOT_BYTES}", self.left);
            Target::Waste(Some((ticket, fault::of_kind("readv", FabricErrorKind::Unsupported, detail))))
        };
    }

    fn scatter<'a>(&'a mut self, scatter: &mut Scatter<'a>, waste: &'a mut [u8], max_bytes: u64) -> u64 {
        if let Target::Spans { ticket, spans, next, offset } = &self.target {
            match scatter_spans(scatter, &spans[*next..], *offset, max_bytes) {
                Ok(listed) => return listed,
                Err(error) => self.target = Target::Waste(Some((*ticket, error))),
            }
        }
        if let Target::Slot { slot, filled, .. } = &mut self.target {
            let len = self.left.min(max_bytes);
            scatter.push_buffer(&mut slot.bytes_mut()[*filled..*filled + len as usize]); // it fits: see `enter`
            return len;
        }
        let len = self.left.min(waste.len() as u64).min(max_bytes);
        scatter.push_buffer(&mut waste[..len as usize]);
        len
    }

    /// Moves bytes that came in with the header to where they belong.
    fn take(&mut self, mut bytes: &[u8], regions: &RegionSet) {
        while !bytes.is_empty() {
            let step = match &mut self.target {
                Target::Waste(_) | Target::Stalled { .. } => bytes.len(),
                Target::Slot { slot, filled, .. } => {
                    let room = &mut slot.bytes_mut()[*filled..*filled + bytes.len()]; // it fits: see `enter`
                    room.copy_from_slice(bytes);
                    bytes.len()
                }
                Target::Spans { ticket, spans, next, offset } => {
                    // In range: the spans add up to the payload, and `bytes` is no longer than what is left.
                    let span = spans[*next];
                    let step = (span.len - *offset).min(bytes.len() as u64) as usize;
                    if !place(regions, span.addr + *offset, &bytes[..step]) {
                        self.target = Target::Waste(Some((*ticket, outside(span))));
                        continue;
                    }
                    step
                }
            };
            self.advance(step as u64);
            bytes = &bytes[step..];
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.left -= bytes;
        if let Target::Slot { filled, .. } = &mut self.target {
            *filled += bytes as usize;
        }
        let Target::Spans { spans, next, offset, .. } = &mut self.target else { return };
        let mut bytes = bytes;
        while let Some(span) = spans.get(*next) {
            let step = (span.len - *offset).min(bytes);
            bytes -= step;
            *offset += step;
            if *offset < span.len {
                break;
            }
            *next += 1;
            *offset = 0;
        }
    }
}

impl Target {
    /// What the sink waits for.
    fn ticket(&self) -> Option<u64> {
        match self {
            Self::Spans { ticket, .. } | Self::Stalled { ticket, .. } | Self::Slot { ticket, .. } => {
                Some(*ticket)
            }
            Self::Waste(refused) => refused.as_ref().map(|(ticket, _)| *ticket),
        }
    }
}

/// Whether `spans` are registered and add up to `bytes`.
fn check(spans: &[Span], bytes: u64, regions: &RegionSet) -> Result<(), FabricError> {
    let mut last = LastHit::default();
    if let Some(span) = spans.iter().find(|span| !regions.covers(**span, &mut last)) {
        return Err(outside(*span));
    }
    let sum = spans.iter().try_fold(0u64, |sum, span| sum.checked_add(span.len));
    if sum == Some(bytes) {
        return Ok(());
    }
    let detail = format!("a payload of {bytes} bytes was given spans of {sum:?} bytes");
    Err(fault::of_kind("readv", FabricErrorKind::Internal, detail))
}

/// Lists `spans` from `offset` in the first one on, up to `max_bytes`. A span outside every region (it was
/// deregistered meanwhile) is an error unless others stand before it; it then comes up again first.
fn scatter_spans(
    scatter: &mut Scatter<'_>,
    spans: &[Span],
    mut offset: u64,
    max_bytes: u64,
) -> Result<u64, FabricError> {
    let mut listed = 0;
    for span in spans {
        if listed >= max_bytes || scatter.is_full() {
            break;
        }
        let piece = Span { addr: span.addr + offset, len: (span.len - offset).min(max_bytes - listed) };
        if !scatter.push_span(piece) {
            return if listed > 0 { Ok(listed) } else { Err(outside(*span)) };
        }
        listed += piece.len;
        offset = 0;
    }
    Ok(listed)
}

/// Room at the end of the buffer for the head and header that come next, and a little more.
fn spare<'a>(buffer: &'a mut [u8], start: &mut usize, end: &mut usize) -> &'a mut [u8] {
    buffer.copy_within(*start..*end, 0);
    (*start, *end) = (0, *end - *start);
    let announced = buffer[..*end].first_chunk().and_then(|bytes| Head::decode(bytes).ok());
    let wanted = announced.map_or(HEAD_BYTES, |head| HEAD_BYTES + head.header_bytes);
    let upto = wanted.max(PROBE_BYTES).min(buffer.len());
    &mut buffer[*end..upto]
}

fn outside(span: Span) -> FabricError {
    let detail = format!("destination {:#x}+{} is not inside registered memory", span.addr, span.len);
    fault::of_kind("readv", FabricErrorKind::InvalidRegion, detail)
}

/// The longest head and header.
const BUFFER_BYTES: usize = HEAD_BYTES + HEADER_MAX_BYTES;
/// Read ahead of a frame: enough for most headers and for several small frames; of a large payload, this
/// much at most passes through the buffer.
const PROBE_BYTES: usize = 4096;
const WASTE_BYTES: usize = 64 * 1024;
