//! GPU memory on its way through a stream: by page-locked slots, as no socket reads or writes it.
//!
//! ```text
//!   send:     GPU memory ==one launch==> slot --socket-->        receive:   --socket--> slot ==one launch==> GPU memory
//!                 the next batch is copied meanwhile                   the next frame is read meanwhile
//! ```
//! Of a batch that has GPU memory, all goes through a slot: what is host memory among it is copied by the processor.
//! A link has at most [`SLOTS_PER_LINK`] slots in each direction, and all links share what there is. Who finds none
//! stands in line: a sender's frames wait in their order, a receiver reads nothing of its connection, so that the peer
//! waits in turn.
//!
//! Without CUDA there are no devices and no slots, and nothing here costs anything.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::copies::{Copies, Ended, JobId};
use super::drive::Side;
use super::fault;
use super::gear::Maker;
use super::slots::{Slot, Slots};
use crate::desc::{PeerKey, Segment, Span};
use crate::device::Cuda;
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Bell, Pinning, RegionSet};

/// See the [module](self).
pub(super) struct Staging {
    maker: Option<Arc<Maker>>,
    copies: Copies,
    /// Free slots: of what is sent, of what is received.
    slots: [Slots; 2],
    /// Links that wait for a slot, by the same index; each once.
    lines: [VecDeque<Side>; 2],
    bell: Arc<Bell>,
}

impl Staging {
    /// For the devices of this driver, if there is one.
    pub(super) fn new(cuda: Option<&'static Cuda>) -> Result<Self, FabricError> {
        let bell =
            Bell::new().map_err(|error| fault::of_call("eventfd", &error.into(), "opening a fabric"))?;
        let bell = Arc::new(bell);
        let rung = Arc::clone(&bell);
        let maker = cuda.map(|cuda| Arc::new(Maker::new(cuda, Arc::new(move || rung.ring()))));
        Ok(Self {
            maker,
            copies: Copies::default(),
            slots: Default::default(),
            lines: Default::default(),
            bell,
        })
    }

    /// Whether GPU memory can be carried.
    pub(super) fn has_cuda(&self) -> bool {
        self.maker.is_some()
    }

    /// What makes a device ready, for threads that register memory.
    pub(super) fn pinning(&self) -> Option<Arc<dyn Pinning>> {
        self.maker.clone().map(|maker| maker as Arc<dyn Pinning>)
    }

    /// Readable when copies have ended, or somebody in line can go on.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// The wake-up was heard.
    pub(super) fn hush(&self) {
        self.bell.hush(|| false);
    }

    /// Makes a device ready for the memory on it. Takes long unless somebody has pinned it before.
    pub(super) fn prepare(&mut self, ordinal: u32) -> Result<(), FabricError> {
        if self.copies.has(ordinal) {
            return Ok(());
        }
        let Some(maker) = &self.maker else {
            return Err(fault::of_kind("register", FabricErrorKind::Unsupported, "there is no CUDA"));
        };
        if let Some(gear) = maker.take(ordinal)? {
            self.copies.add(ordinal, gear.queues);
            self.slots.iter().zip(gear.slots).for_each(|(slots, more)| slots.add(more));
        }
        Ok(())
    }

    /// A slot for a link that has `held` of this direction. Without one it stands in line, unless it has its share: then
    /// the end of a copy of its own is what it waits for.
    pub(super) fn take(&mut self, side: Side, held: usize) -> Option<Slot> {
        if held >= SLOTS_PER_LINK {
            return None;
        }
        let line = &mut self.lines[side.index()];
        let is_next = line.front().is_none_or(|first| *first == side);
        let slot = is_next.then(|| self.slots[side.index()].take()).flatten();
        match &slot {
            Some(_) => _ = line.pop_front(),
            None if !line.contains(&side) => line.push_back(side),
            None => {}
        }
        slot
    }

    /// Starts to copy a payload into its slot.
    pub(super) fn gather(
        &mut self,
        peer: PeerKey,
        slot: Slot,
        segments: &[Segment],
        regions: &RegionSet,
    ) -> Result<JobId, FabricError> {
        let spans = segments.iter().map(|segment| Span { addr: segment.src, len: segment.len });
        self.copies.start(Side::Send(peer), slot, spans, regions)
    }

    /// Starts to copy a payload out of its slot.
    pub(super) fn scatter(
        &mut self,
        peer: PeerKey,
        slot: Slot,
        spans: &[Span],
        regions: &RegionSet,
    ) -> Result<JobId, FabricError> {
        self.copies.start(Side::Receive(peer), slot, spans.iter().copied(), regions)
    }

    /// A copy that is over.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        if self.copies.is_idle() { None } else { self.copies.ended() }
    }

    /// Whether anything is being copied.
    pub(super) fn is_copying(&self) -> bool {
        self.copies.is_busy()
    }

    /// Who is first in line where a slot is free.
    pub(super) fn next_in_line(&self) -> Option<Side> {
        let lines = self.lines.iter().zip(&self.slots);
        let first =
            |(line, slots): (&VecDeque<Side>, &Slots)| line.front().filter(|_| !slots.is_empty()).copied();
        lines.filter_map(first).next()
    }

    /// Somebody was asked and wants nothing any more, unless it stands in line again.
    pub(super) fn leave_line(&mut self, side: Side) {
        self.lines[side.index()].retain(|waiting| *waiting != side);
    }

    /// The end of a link, behind that of its connections: when this returns, nothing of it is copied any more, or the log
    /// says that a device hangs.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        self.leave_line(Side::Send(peer));
        self.leave_line(Side::Receive(peer));
        self.copies.forget(peer);
        let others_wait = self.lines.iter().any(|line| !line.is_empty());
        if others_wait || !self.copies.is_idle() {
            self.bell.ring(); // there are slots again, or copies of others were seen to end
        }
    }
}

impl std::fmt::Debug for Staging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Staging(CUDA: {}, {} and {} in line)",
            self.has_cuda(),
            self.lines[0].len(),
            self.lines[1].len()
        )
    }
}

/// Slots that a link has at most in each direction: one on the wire, one being copied.
const SLOTS_PER_LINK: usize = 2;
