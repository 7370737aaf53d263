//! The receiving half of a link: frames read off a socket, payload straight into its destination.
//!
//! ```text
//!             head and header complete              payload complete
//!   Head ------------ sink.arrived ----> Payload ------ sink.landed ----> Head
//! ```
//! Heads and headers pass through a small buffer; what of a payload comes in with them is copied out of it,
//! the rest is read into place. The buffer is empty while a payload is being read. A payload that may not
//! land is read and thrown away, so a refusal never puts the stream out of step.

use std::io::ErrorKind;
use std::os::fd::BorrowedFd;

use super::fault;
use super::frame::{HEAD_BYTES, Head};
use super::iovec::{Pieces, Scatter, place};
use super::sealed::Opening;
use super::sender::Turn;
use crate::desc::{PeerKey, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{HEADER_MAX_BYTES, Landing, LastHit, RegionSet, Sink};
use crate::trust::LinkKey;

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
    /// Nowhere; if the sink had named spans, it is told why at the end.
    Waste(Option<(u64, FabricError)>),
}

impl Receiver {
    /// A receiver at the beginning of a frame, sealed if the link has a key.
    pub(super) fn new(peer: PeerKey, key: Option<&LinkKey>) -> Result<Self, FabricError> {
        let opening = key.map(|key| Opening::new(key).map(Box::new)).transpose()?;
        Ok(Self { peer, buffer: vec![0; BUFFER_BYTES].into(), start: 0, end: 0, payload: None, opening })
    }

    /// Reads about `max_bytes` and tells `sink` of each frame that begins or ends. An error ends the link.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        memory: (&RegionSet, &mut Workspace),
        max_bytes: u64,
        sink: &mut dyn Sink,
    ) -> Result<Turn, FabricError> {
        let (regions, workspace) = memory;
        if let Some(mut opening) = self.opening.take() {
            let turn = self.receive_sealed(&mut opening, socket, regions, sink);
            self.opening = Some(opening);
            return turn;
        }
        let mut scatter = Scatter::new(&mut workspace.pieces, regions);
        let asked = self.scatter(&mut scatter, &mut workspace.waste, max_bytes);
        let read = match scatter.receive(socket) {
            Ok(0) => return Err(fault::closed()),
            Ok(read) => read,
            Err(error) => return nothing_read(&error),
        };
        self.account(read, asked.payload, sink);
        self.digest(regions, sink)?;
        Ok(Turn { bytes: read as u64, more: read as u64 == asked.payload + asked.buffer })
    }

    /// As [`Receiver::receive`], of records: what they carry is copied to where it belongs once it has authenticated.
    fn receive_sealed(
        &mut self,
        opening: &mut Opening,
        socket: BorrowedFd<'_>,
        regions: &RegionSet,
        sink: &mut dyn Sink,
    ) -> Result<Turn, FabricError> {
        let (read, full) = match opening.fill(socket) {
            Ok(read) => read,
            Err(error) => return nothing_read(&error),
        };
        while let Some(plain) = opening.next()? {
            self.take(plain, regions, sink)?;
        }
        Ok(Turn { bytes: read as u64, more: full })
    }

    /// Takes in bytes of the stream of frames.
    fn take(
        &mut self,
        mut plain: &[u8],
        regions: &RegionSet,
        sink: &mut dyn Sink,
    ) -> Result<(), FabricError> {
        while !plain.is_empty() {
            let step = match &mut self.payload {
                Some(payload) => {
                    let step = payload.left.min(plain.len() as u64) as usize;
                    payload.take(&plain[..step], regions);
                    step
                }
                None => {
                    let room = spare(&mut self.buffer, &mut self.start, &mut self.end);
                    let step = room.len().min(plain.len());
                    room[..step].copy_from_slice(&plain[..step]);
                    self.end += step;
                    step
                }
            };
            self.land(sink);
            self.digest(regions, sink)?;
            plain = &plain[step..];
        }
        Ok(())
    }

    /// Gives up: the ticket of the payload that will not land, if the sink waits for one.
    pub(super) fn abandon(self) -> Option<u64> {
        match self.payload?.target {
            Target::Spans { ticket, .. } => Some(ticket),
            Target::Waste(refused) => refused.map(|(ticket, _)| ticket),
        }
    }

    /// Lists where the next bytes go: the rest of the payload up to `max_bytes`, and when all of it is listed,
    /// the buffer for the head after it.
    fn scatter<'a>(&'a mut self, scatter: &mut Scatter<'a>, waste: &'a mut [u8], max_bytes: u64) -> Asked {
        let (listed, whole) = match &mut self.payload {
            None => (0, true),
            Some(payload) => {
                let listed = payload.scatter(scatter, waste, max_bytes);
                (listed, listed == payload.left)
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
    fn account(&mut self, read: usize, payload_asked: u64, sink: &mut dyn Sink) {
        let for_payload = (read as u64).min(payload_asked);
        self.end += (read as u64 - for_payload) as usize;
        if let Some(payload) = &mut self.payload {
            payload.advance(for_payload);
        }
        self.land(sink);
    }

    /// Takes all whole heads and all payload out of the buffer.
    fn digest(&mut self, regions: &RegionSet, sink: &mut dyn Sink) -> Result<(), FabricError> {
        while let Some((head, whole)) = self.head()? {
            let header = &self.buffer[self.start + HEAD_BYTES..self.start + whole];
            let landing = sink.arrived(self.peer, header, head.payload_bytes);
            self.start += whole;
            let mut payload = Payload::new(landing, head.payload_bytes, regions);
            let prefix = ((self.end - self.start) as u64).min(payload.left) as usize;
            payload.take(&self.buffer[self.start..self.start + prefix], regions);
            self.start += prefix;
            self.payload = Some(payload);
            self.land(sink);
            if self.payload.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// The head at the front of the buffer and the length of head and header, once both are there.
    fn head(&self) -> Result<Option<(Head, usize)>, FabricError> {
        let Some(bytes) = self.buffer[self.start..self.end].first_chunk() else { return Ok(None) };
        let head = Head::decode(bytes)
            .map_err(|error| fault::of_kind("readv", FabricErrorKind::PeerLost, error.to_string()))?;
        let whole = HEAD_BYTES + head.header_bytes;
        Ok((self.end - self.start >= whole).then_some((head, whole)))
    }

    /// Tells the sink if the payload is complete.
    fn land(&mut self, sink: &mut dyn Sink) {
        let Some(payload) = self.payload.take_if(|payload| payload.left == 0) else { return };
        match payload.target {
            Target::Spans { ticket, .. } => sink.landed(self.peer, ticket, Ok(())),
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
                Ok(()) => Target::Spans { ticket, spans, next: 0, offset: 0 },
                Err(error) => Target::Waste(Some((ticket, error))),
            },
        };
        Self { left: bytes, target }
    }

    fn scatter<'a>(&mut self, scatter: &mut Scatter<'a>, waste: &'a mut [u8], max_bytes: u64) -> u64 {
        if let Target::Spans { ticket, spans, next, offset } = &self.target {
            match scatter_spans(scatter, &spans[*next..], *offset, max_bytes) {
                Ok(listed) => return listed,
                Err(error) => self.target = Target::Waste(Some((*ticket, error))),
            }
        }
        let len = self.left.min(waste.len() as u64).min(max_bytes);
        scatter.push_buffer(&mut waste[..len as usize]);
        len
    }

    /// Moves bytes that came in with the header to where they belong.
    fn take(&mut self, mut bytes: &[u8], regions: &RegionSet) {
        while !bytes.is_empty() {
            let step = match &mut self.target {
                Target::Waste(_) => bytes.len(),
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
