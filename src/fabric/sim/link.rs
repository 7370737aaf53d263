//! One side's view of a line: what is queued, what is arriving, how it stands.

use std::collections::{BTreeMap, VecDeque};

use crate::desc::{OpToken, RegionKey, Segment, Span, TransferOp};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Batch, Region};

use super::arriving::Arriving;
use super::error;
use super::memory::Outside;
use super::rng::Rng;
use super::world::{Item, World};

/// How a link stands.
#[derive(Debug)]
pub(super) enum State {
    /// Up once the other side is there and so many more polls have gone by.
    Connecting(u64),
    Up,
    Lost(FabricError),
}

/// A batch and how far it is.
#[derive(Debug)]
pub(super) struct Flight {
    pub batch: Batch,
    segment: usize,
    offset: u64,
    header_sent: bool,
}

/// One side of one line.
#[derive(Debug)]
pub(super) struct LinkSide {
    pub id: [u8; 16],
    pub side: usize,
    pub state: State,
    pub queue: VecDeque<Flight>,
    /// Batches that are over and not reported.
    pub done: Vec<(OpToken, Result<(), FabricError>)>,
    pub arriving: Option<Arriving>,
    pub imported: Imported,
}

impl LinkSide {
    /// A link that comes up after `delay_polls` polls.
    pub fn new(id: [u8; 16], side: usize, delay_polls: u64) -> Self {
        let state = State::Connecting(delay_polls);
        let (queue, done, imported) = (VecDeque::new(), Vec::new(), Imported::default());
        Self { id, side, state, queue, done, arriving: None, imported }
    }

    /// Batches that have not been reported.
    pub fn in_flight(&self) -> usize {
        self.queue.len() + self.done.len()
    }

    /// Moves the next piece of one queued batch, at most `max_bytes`, one-sidedly. Returns the bytes moved.
    pub fn move_piece(&mut self, world: &World, me: usize, max_bytes: u64, rng: &mut Rng) -> u64 {
        let Some(other) = world.other(self.id, self.side) else { return 0 };
        let window = if world.config.ordered { 1 } else { self.queue.len().min(REORDER_WINDOW) };
        let at = rng.index(window);
        let Some(flight) = self.queue.get_mut(at) else { return 0 };
        let mut moved = 0;
        let mut outcome = Ok(());
        while let Some(piece) = flight.piece(max_bytes - moved) {
            let (from, to) = match flight.batch.op {
                TransferOp::Read => ((other.member, piece.src), (me, piece.dst)),
                TransferOp::Write => ((me, piece.src), (other.member, piece.dst)),
            };
            let known = match world.memories.land_late() {
                true => Ok(()),
                false => self.imported.check(world, other.member, flight.batch.op, piece),
            };
            outcome = known.and_then(|()| {
                world.memories.copy(from, to, piece.len).map_err(|outside| revoked(outside.0))
            });
            if outcome.is_err() {
                break;
            }
            flight.advance(piece.len);
            moved += piece.len;
        }
        if outcome.is_err() || flight.is_over() {
            let token = flight.batch.token;
            self.queue.remove(at);
            self.done.push((token, outcome));
        }
        moved
    }

    /// Fails the batch that would move next.
    pub fn fail_front(&mut self, error: FabricError) {
        if let Some(flight) = self.queue.pop_front() {
            self.done.push((flight.batch.token, Err(error)));
        }
    }

    /// Batches and frames of which only some bytes are in place.
    pub fn torn(&self) -> u64 {
        let torn = self.queue.iter().filter(|flight| flight.segment > 0 || flight.offset > 0).count();
        torn as u64 + u64::from(self.arriving.is_some())
    }

    /// Sends the next piece of the first queued frame, at most `max_bytes`. Returns the bytes sent.
    pub fn send_piece(&mut self, world: &mut World, me: usize, max_bytes: u64) -> u64 {
        let (id, side) = (self.id, self.side);
        let Some(flight) = self.queue.front_mut() else { return 0 };
        if !flight.header_sent {
            flight.header_sent = true;
            let (header, payload_bytes) = (std::mem::take(&mut flight.batch.header), flight.batch.bytes());
            let bytes = header.len() as u64;
            world.send(id, side, Item::Header { header, payload_bytes });
            return bytes;
        }
        let (mut bytes, mut outcome) = (Vec::new(), Ok(()));
        while let Some(piece) = flight.piece(max_bytes - bytes.len() as u64) {
            outcome = world.memories.read(me, Span { addr: piece.src, len: piece.len }, &mut bytes);
            if outcome.is_err() {
                break;
            }
            flight.advance(piece.len);
        }
        let sent = bytes.len() as u64;
        world.send(id, side, Item::Payload(bytes));
        if let Err(Outside(span)) = outcome {
            // Half a frame is on the way: the line is of no more use. The caller broke the contract.
            let token = flight.batch.token;
            self.queue.pop_front();
            self.done.push((token, Err(revoked(span))));
            world.leave(id, side);
        } else if flight.is_over() {
            let token = flight.batch.token;
            self.queue.pop_front();
            self.done.push((token, Ok(())));
        }
        sent
    }
}

/// Regions that the peer has announced, with their keys.
#[derive(Debug, Default)]
pub(super) struct Imported(pub BTreeMap<RegionKey, (Region, u64)>);

impl Imported {
    /// Refuses the peer's side of a segment unless it lies in a region that is announced, and still is what was
    /// announced. Styles without keys announce nothing.
    pub fn check(
        &self,
        world: &World,
        owner: usize,
        op: TransferOp,
        segment: Segment,
    ) -> Result<(), FabricError> {
        if !world.config.has_keys() {
            return Ok(());
        }
        let addr = if op == TransferOp::Read { segment.src } else { segment.dst };
        let end = addr.checked_add(segment.len);
        let holds = |region: &Region| {
            addr >= region.span.addr && end.is_some_and(|end| end - region.span.addr <= region.span.len)
        };
        let valid = self.0.iter().any(|(key, (region, secret))| {
            holds(region) && world.members[owner].keys.get(key) == Some(secret)
        });
        if valid { Ok(()) } else { Err(revoked(Span { addr, len: segment.len })) }
    }
}

impl Flight {
    /// A batch of which nothing has moved.
    pub fn new(batch: Batch) -> Self {
        Self { batch, segment: 0, offset: 0, header_sent: false }
    }

    /// The next copy, at most `max_bytes` long; `None` where the batch is over or `max_bytes` is 0.
    fn piece(&self, max_bytes: u64) -> Option<Segment> {
        let segment = self.batch.segments.get(self.segment)?;
        let len = (segment.len - self.offset).min(max_bytes);
        let (src, dst) = (segment.src + self.offset, segment.dst + self.offset);
        (len > 0).then_some(Segment { src, dst, len })
    }

    /// Goes ahead by a piece.
    fn advance(&mut self, bytes: u64) {
        self.offset += bytes;
        if self.batch.segments.get(self.segment).is_some_and(|segment| segment.len == self.offset) {
            self.segment += 1;
            self.offset = 0;
        }
    }

    fn is_over(&self) -> bool {
        self.segment == self.batch.segments.len()
    }
}

fn revoked(span: Span) -> FabricError {
    let detail =
        format!("{:#x}+{} is in no region that its owner has registered and announced", span.addr, span.len);
    error("poll", FabricErrorKind::InvalidRegion, detail)
}

/// Batches of one peer that move at the same time where order is not kept.
const REORDER_WINDOW: usize = 4;
