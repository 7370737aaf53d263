//! The planner: two descriptor lists become the copies to post, cut into chunks.
//!
//! ```text
//!   src descriptors   dst descriptors         [a b][c][d e f]   segments
//!     0 1 2 3 4 ...     0 1 2 3 4 ...   -->    chunk 0 | chunk 1
//!        pair, check, merge, cut
//! ```
//!
//! * **Pair.** `src[i]` is copied to `dst[i]`; both must be of one non-zero length and each must lie in
//!   registered regions of its side.
//! * **Split.** What crosses from one region into the next is cut there: a pool of GPU memory is one registration to the
//!   host and a region for each chunk that backs it.
//! * **Merge.** Neighbours in the list that touch on *both* sides, inside the same two regions, become one
//!   segment; runs that ascend and runs that descend (block pools hand out both) merge alike.
//! * **Order.** The given order stays, lists are never sorted. So the pass is linear, and where destinations
//!   overlap the segments, done in order, leave what the list done in order would. Sorting would gain only
//!   where neighbours on both sides lie apart in the list, as when two pools take turns; fragmented pools
//!   are fragmented differently on the two sides and merge in no order.
//! * **Cut.** A chunk takes segments until one more would break a cap; a segment longer than a whole chunk
//!   is split over chunks of its own, the rest opens the next one.
//!
//! Pure and without allocation per descriptor: the vectors are reserved once, and [`Plan::rebuild`] uses
//! them again. Where a descriptor leaves the region of the one before it, the regions seen so far are asked,
//! and the table only for a new one. Source and destination must not overlap each other, as for any copy.

mod error;
mod seen;

use std::fmt;

pub use error::PlanError;

use self::seen::{Extent, Seen};
use super::regions::RegionLookup;
use crate::desc::{Descriptor, MemoryKind, Segment, Span, TransferOp};

/// Most descriptors in each list of one transfer.
pub const MAX_DESCRIPTORS: usize = 1 << 21;

/// Most segments of one plan, after splitting: bounds what a transfer of absurd length can allocate.
pub const MAX_SEGMENTS: usize = 1 << 23;

/// One side of a transfer.
#[derive(Debug)]
pub struct Side<'a, R> {
    /// Whose memory this is; errors say it.
    pub party: Party,
    /// Kind of all the descriptors.
    pub kind: MemoryKind,
    /// The descriptors.
    pub descs: &'a [Descriptor],
    /// The regions that side has registered.
    pub regions: &'a R,
}

/// Whose memory a descriptor points into, seen from the agent that submits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// Ours.
    Local,
    /// The peer's.
    Remote,
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Remote => "remote",
        })
    }
}

/// What one chunk may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanCaps {
    /// Segments in one chunk; 0 is taken as 1.
    pub segments_per_chunk: usize,
    /// Bytes in one chunk; 0 is taken as 1.
    pub bytes_per_chunk: u64,
}

/// The copies of one transfer, cut into chunks. See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    segments: Vec<Segment>,
    chunk_ends: Vec<u32>,
    bytes: u64,
}

/// A new plan for `src` to `dst`. Where plans are made over and over, [`Plan::rebuild`] saves the
/// allocations.
pub fn plan<S: RegionLookup, D: RegionLookup>(
    src: Side<'_, S>,
    dst: Side<'_, D>,
    caps: PlanCaps,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    plan.rebuild(src, dst, caps)?;
    Ok(plan)
}

impl Plan {
    /// Replaces this plan by the one for `src` to `dst`, in the memory it has. Empty after an error.
    pub fn rebuild<S: RegionLookup, D: RegionLookup>(
        &mut self,
        src: Side<'_, S>,
        dst: Side<'_, D>,
        caps: PlanCaps,
    ) -> Result<(), PlanError> {
        self.clear();
        check_counts(&src, &dst)?;
        let built = self.build(src, dst, caps);
        if built.is_err() {
            self.clear();
        }
        built
    }

    /// All segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Segments that it has room for without another allocation.
    pub fn capacity(&self) -> usize {
        self.segments.capacity()
    }

    /// What the segments of an operation touch on one side, in order.
    pub fn spans(&self, op: TransferOp, party: Party) -> impl Iterator<Item = Span> {
        let is_src = (op == TransferOp::Write) == (party == Party::Local);
        self.segments.iter().map(move |s| Span { addr: if is_src { s.src } else { s.dst }, len: s.len })
    }

    /// Bytes to move.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many chunks there are.
    pub fn chunk_count(&self) -> usize {
        self.chunk_ends.len()
    }

    /// How many segments the chunks before this one have.
    pub fn segments_before(&self, chunk: usize) -> usize {
        let last = chunk.min(self.chunk_ends.len()).checked_sub(1);
        last.map_or(0, |last| self.chunk_ends[last] as usize)
    }

    /// The segments of one chunk; never empty, within the caps.
    pub fn chunk(&self, index: usize) -> Option<&[Segment]> {
        let end = *self.chunk_ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.chunk_ends[index - 1] as usize };
        Some(&self.segments[start..end])
    }

    /// The chunks, in order.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = &[Segment]> {
        let mut start = 0;
        self.chunk_ends
            .iter()
            .map(move |&end| &self.segments[std::mem::replace(&mut start, end as usize)..end as usize])
    }

    /// Empties the plan and keeps its memory.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.chunk_ends.clear();
        self.bytes = 0;
    }

    fn build<S: RegionLookup, D: RegionLookup>(
        &mut self,
        src: Side<'_, S>,
        dst: Side<'_, D>,
        caps: PlanCaps,
    ) -> Result<(), PlanError> {
        self.segments.reserve(src.descs.len());
        let mut from = Cursor::new(src);
        let mut to = Cursor::new(dst);
        let mut cutter = Cutter::new(self, caps);
        let mut bytes = 0_u64;
        let mut open: Option<Segment> = None;
        for (index, (s, d)) in from.side.descs.iter().zip(to.side.descs).enumerate() {
            if s.len != d.len || s.len == 0 {
                return Err(mismatch(index, &from, &to));
            }
            bytes = bytes.checked_add(s.len).ok_or(PlanError::TooLarge { index })?;
            let same_regions = from.holds(s) & to.holds(d);
            if !same_regions {
                if !(from.enter(s) && to.enter(d)) {
                    let done = open.take();
                    done.map_or(Ok(()), |done| cutter.take(done, index))?;
                    cross(&mut from, &mut to, index, &mut cutter)?;
                    continue;
                }
            } else if let Some(open) = &mut open
                && extend(open, s, d)
            {
                continue;
            }
            let next = Segment { src: s.addr, dst: d.addr, len: s.len };
            if let Some(done) = open.replace(next) {
                cutter.take(done, index)?;
            }
        }
        if let Some(done) = open {
            cutter.take(done, from.side.descs.len() - 1)?;
        }
        cutter.close();
        self.bytes = bytes;
        Ok(())
    }
}

/// Grows `open` by a neighbour that touches it on both sides, in front or behind.
#[inline]
fn extend(open: &mut Segment, s: &Descriptor, d: &Descriptor) -> bool {
    // Nothing wraps: both lie inside one region, and regions do not.
    let behind = open.src + open.len == s.addr && open.dst + open.len == d.addr;
    let in_front = s.addr + s.len == open.src && d.addr + d.len == open.dst;
    if in_front {
        (open.src, open.dst) = (s.addr, d.addr);
    }
    if behind | in_front {
        open.len += s.len;
    }
    behind | in_front
}

/// One side while it is walked: the region of the last descriptor, which most likely holds the next one.
struct Cursor<'a, R> {
    side: Side<'a, R>,
    at: Extent,
    seen: Seen,
}

impl<'a, R: RegionLookup> Cursor<'a, R> {
    fn new(side: Side<'a, R>) -> Self {
        Self { side, at: Extent::default(), seen: Seen::default() }
    }

    #[inline]
    fn holds(&self, desc: &Descriptor) -> bool {
        self.at.holds(desc)
    }

    /// Moves to a region that holds `desc`; false where no single one does.
    #[inline]
    fn enter(&mut self, desc: &Descriptor) -> bool {
        self.at = self.seen.nearest(desc.addr);
        self.at.holds(desc) || self.look_up(desc)
    }

    /// Moves to a region that was not seen yet.
    #[cold]
    fn look_up(&mut self, desc: &Descriptor) -> bool {
        let span = Span { addr: desc.addr, len: desc.len };
        let Some(region) = self.side.regions.containing(self.side.kind, desc.device, span) else {
            return false;
        };
        self.at = Extent { base: region.span.addr, len: region.span.len, device: region.device };
        self.seen.insert(self.at);
        true
    }

    /// Whether all of a descriptor lies in regions.
    fn check_reach(&self, index: usize) -> Result<(), PlanError> {
        let mut done = 0;
        while done < self.side.descs[index].len {
            done += self.reach(index, done)?;
        }
        Ok(())
    }

    /// How many bytes of a descriptor behind the first `done` ones lie in one region.
    fn reach(&self, index: usize, done: u64) -> Result<u64, PlanError> {
        let Side { party, kind, descs, regions } = self.side;
        let descriptor = descs[index];
        let Some(end) = descriptor.end() else {
            return Err(PlanError::Wraps { index, party, descriptor });
        };
        let at = descriptor.addr + done;
        if let Some(region) = regions.reaching(kind, descriptor.device, at) {
            return Ok(region.span.end().unwrap_or(end).min(end) - at);
        }
        let miss =
            regions.explain(kind, descriptor.device, Span { addr: descriptor.addr, len: descriptor.len });
        Err(PlanError::OutsideRegion { index, party, kind, descriptor, miss })
    }
}

/// Cuts a pair where either side crosses from one region into the next.
#[cold]
fn cross<S: RegionLookup, D: RegionLookup>(
    from: &mut Cursor<'_, S>,
    to: &mut Cursor<'_, D>,
    index: usize,
    cutter: &mut Cutter<'_>,
) -> Result<(), PlanError> {
    let (s, d) = (from.side.descs[index], to.side.descs[index]);
    from.check_reach(index)?;
    to.check_reach(index)?;
    let mut done = 0;
    while done < s.len {
        let len = from.reach(index, done)?.min(to.reach(index, done)?);
        if cutter.plan.segments.len() >= MAX_SEGMENTS {
            return Err(PlanError::TooLarge { index });
        }
        cutter.take(Segment { src: s.addr + done, dst: d.addr + done, len }, index)?;
        done += len;
    }
    // What comes next is not merged with a part of this.
    (from.at, to.at) = (Extent::default(), Extent::default());
    Ok(())
}

/// Cuts finished segments into chunks.
struct Cutter<'a> {
    plan: &'a mut Plan,
    caps: PlanCaps,
    segments: usize,
    bytes: u64,
}

impl<'a> Cutter<'a> {
    fn new(plan: &'a mut Plan, caps: PlanCaps) -> Self {
        let caps = PlanCaps {
            segments_per_chunk: caps.segments_per_chunk.max(1),
            bytes_per_chunk: caps.bytes_per_chunk.max(1),
        };
        Self { plan, caps, segments: 0, bytes: 0 }
    }

    /// Takes the next segment; `index` is the descriptor that ended it.
    #[inline]
    fn take(&mut self, segment: Segment, index: usize) -> Result<(), PlanError> {
        if self.segments == self.caps.segments_per_chunk
            || segment.len > self.caps.bytes_per_chunk - self.bytes
        {
            self.close();
            return self.split(segment, index);
        }
        self.push(segment);
        Ok(())
    }

    /// Lays `segment` out from the start of a chunk.
    fn split(&mut self, mut rest: Segment, index: usize) -> Result<(), PlanError> {
        let piece = self.caps.bytes_per_chunk;
        while rest.len > piece {
            if self.plan.segments.len() >= MAX_SEGMENTS {
                return Err(PlanError::TooLarge { index });
            }
            self.push(Segment { len: piece, ..rest });
            self.close();
            rest = Segment { src: rest.src + piece, dst: rest.dst + piece, len: rest.len - piece };
        }
        self.push(rest);
        Ok(())
    }

    #[inline]
    fn push(&mut self, segment: Segment) {
        self.plan.segments.push(segment);
        self.segments += 1;
        self.bytes += segment.len;
    }

    /// Ends the chunk at hand, if it has anything.
    fn close(&mut self) {
        if self.segments > 0 {
            // At most MAX_SEGMENTS and MAX_DESCRIPTORS together: far below u32::MAX.
            self.plan.chunk_ends.push(self.plan.segments.len() as u32);
        }
        (self.segments, self.bytes) = (0, 0);
    }
}

fn check_counts<S, D>(src: &Side<'_, S>, dst: &Side<'_, D>) -> Result<(), PlanError> {
    let (from, to) = (src.descs.len(), dst.descs.len());
    if from != to {
        let (local, remote) = if src.party == Party::Local { (from, to) } else { (to, from) };
        return Err(PlanError::CountsDiffer { local, remote });
    }
    match from {
        0 => Err(PlanError::Empty),
        count if count > MAX_DESCRIPTORS => Err(PlanError::TooMany { count }),
        _ => Ok(()),
    }
}

/// What is wrong with a pair that is of two lengths or none.
#[cold]
fn mismatch<S, D>(index: usize, from: &Cursor<'_, S>, to: &Cursor<'_, D>) -> PlanError {
    let (s, d) = (from.side.descs[index], to.side.descs[index]);
    for (party, descriptor) in [(from.side.party, s), (to.side.party, d)] {
        if descriptor.len == 0 {
            return PlanError::ZeroLength { index, party, descriptor };
        }
    }
    let (local, remote) = if from.side.party == Party::Local { (s, d) } else { (d, s) };
    PlanError::LengthsDiffer { index, local, remote }
}

#[cfg(test)]
mod tests;
