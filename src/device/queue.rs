//! Copies on one device, batch by batch: one kernel launch for thousands of segments.
//!
//! ```text
//!   start: segments -> work items in pinned memory -> one launch on the stream -> event
//!                                                                                  |
//!   ended: event queries, in order <-----------------------------------------------+--> second stream: the bell
//! ```
//!
//! The bell is called from a stream of its own that waits for the event: a callback takes a thread of the host's, and in
//! the stream of copies the next batch would wait for it.
//!
//! A call of the driver's that fails makes the queue *broken*: nothing is accepted any more, and what is in flight is
//! told as failed, once the device has let go of it.
//!
//! Threads: one at a time; any.
#![allow(unsafe_code)]

mod transform;

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bells::{self, Bell, Hung};
use super::kernels::{self, Entry};
use super::memory::Pinned;
use super::ring::Ring;
use super::stream::{Event, Stream, Urgency};
use super::{Device, DeviceError};
use crate::desc::Segment;

/// Copies on one device, in batches that end in the order in which they were started. One thread at a time; any.
pub struct CopyQueue {
    device: Arc<Device>,
    copies: Stream,
    bells: Stream,
    running: VecDeque<Batch>,
    /// Events of batches that have ended, to be used again.
    spare: Vec<Event>,
    ring: Ring,
    /// Work items of what is running. Freed by hand: never while a kernel may read them.
    list: ManuallyDrop<Pinned>,
    bell: Hung,
    broken: Option<DeviceError>,
}

struct Batch {
    token: u64,
    end: Event,
    /// Whether it has a part of the list.
    has_items: bool,
}

/// The answer to [`CopyQueue::start`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// The batch runs; [`CopyQueue::ended`] will tell of it.
    Accepted,
    /// No room: again after the next batch that has ended.
    Full,
}

impl Device {
    /// A queue of copies on this device. The bell is called whenever a batch has ended, on a thread of the driver's,
    /// unless an error of the device prevents it: who waits for it has a deadline. Takes long: page-locked memory, and,
    /// for the first queue of a device, the driver compiles the kernels.
    pub fn queue(self: &Arc<Self>, bell: Bell, urgency: Urgency) -> Result<CopyQueue, DeviceError> {
        self.program()?;
        let list = ManuallyDrop::new(self.pinned(ITEMS_MAX * size_of::<Entry>())?);
        Ok(CopyQueue {
            device: Arc::clone(self),
            copies: Stream::new(self, urgency)?,
            bells: Stream::new(self, Urgency::Normal)?,
            running: VecDeque::new(),
            spare: Vec::new(),
            ring: Ring::new(ITEMS_MAX),
            list,
            bell: Hung::new(bell),
            broken: None,
        })
    }
}

impl CopyQueue {
    /// Batches that can be in flight.
    pub const BATCHES_MAX: usize = 16;
    /// Segments that a batch can have.
    pub const SEGMENTS_MAX: usize = ITEMS_MAX / 4;

    /// The device that copies.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Batches that were accepted and not told of yet.
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// Why it accepts nothing any more.
    pub fn broken(&self) -> Option<&DeviceError> {
        self.broken.as_ref()
    }

    /// Starts to copy all segments, at most [`CopyQueue::SEGMENTS_MAX`], which are gone through twice: counted, then written
    /// down. Addresses are device memory, mappings of a peer's or page-locked host memory, all within reach of this device.
    /// After an error nothing of the batch is copied; all but that of a batch too long, and of a shortage of events, make
    /// the queue broken.
    ///
    /// # Safety
    /// Until the batch is told of by [`CopyQueue::ended`], or the device's context is lost, the device may read every
    /// source and write every destination: mapped, nobody's Rust reference, and no byte that is written is in another
    /// segment of the batch.
    pub unsafe fn start<S>(&mut self, token: u64, segments: S) -> Result<Started, DeviceError>
    where
        S: ExactSizeIterator<Item = Segment> + Clone,
    {
        let count = segments.len();
        if count > Self::SEGMENTS_MAX {
            let detail = format!("{count} segments in a batch, more than {}", Self::SEGMENTS_MAX);
            return Err(DeviceError::ours("copy", Some(self.device.ordinal()), detail));
        }
        if self.is_full()? {
            return Ok(Started::Full);
        }
        let device = Arc::clone(&self.device);
        let _current = device.enter()?;
        let end = self.event()?;
        let total = segments.clone().fold(0_u64, |total, segment| total.saturating_add(segment.len));
        let cut = Cut::of(count, total);
        let is_large = count <= ENGINE_SEGMENTS_MAX && total / count.max(1) as u64 >= ENGINE_MIN_BYTES;
        let launched = if is_large {
            // SAFETY: our own caller answers for the segments.
            unsafe { self.copy_each(segments) }
        } else if let Some(first) = self.ring.take(cut.items_max) {
            // SAFETY: likewise.
            unsafe { self.launch(segments, cut, first) }.map_err(Unlaunched::Nothing)
        } else {
            self.spare.push(end);
            return Ok(Started::Full);
        };
        self.accept(token, end, !is_large, launched)
    }

    /// Whether nothing is accepted before a batch has ended; why nothing ever is, if so.
    fn is_full(&self) -> Result<bool, DeviceError> {
        match &self.broken {
            Some(error) => Err(error.clone()),
            None => Ok(self.running.len() == Self::BATCHES_MAX),
        }
    }

    /// An event for the end of a batch. The context is current.
    fn event(&mut self) -> Result<Event, DeviceError> {
        self.spare.pop().map_or_else(|| Event::new(&self.device), Ok)
    }

    /// Takes note of a batch that was launched, unless nothing of it was.
    fn accept(
        &mut self,
        token: u64,
        end: Event,
        has_items: bool,
        launched: Result<(), Unlaunched>,
    ) -> Result<Started, DeviceError> {
        let launched = match launched {
            Err(Unlaunched::Nothing(error)) => {
                self.broken = Some(error.clone());
                return Err(error);
            }
            Err(Unlaunched::Rest(error)) => Err(error),
            Ok(()) => Ok(()),
        };
        // From here on the device may be copying: the batch is accepted, whatever fails.
        let announced = launched.and_then(|()| self.announce(&end));
        self.running.push_back(Batch { token, end, has_items });
        self.broken = announced.err();
        Ok(Started::Accepted)
    }

    /// Few large pieces: a copy of the driver's for each, which may take a copy engine and leave the processors free.
    ///
    /// # Safety
    /// As for `start`.
    unsafe fn copy_each(&self, segments: impl Iterator<Item = Segment>) -> Result<(), Unlaunched> {
        tracing::trace!("large copies are launched");
        for (at, segment) in segments.enumerate().filter(|(_, segment)| segment.len > 0) {
            // SAFETY: the caller answers for the segment.
            let copied = unsafe { self.copies.copy(segment) };
            copied.map_err(
                |error| if at == 0 { Unlaunched::Nothing(error) } else { Unlaunched::Rest(error) },
            )?;
        }
        Ok(())
    }

    /// One launch for all of them; their work items go to the list from place `first` on.
    ///
    /// # Safety
    /// As for `start`.
    unsafe fn launch(
        &mut self,
        segments: impl Iterator<Item = Segment>,
        cut: Cut,
        first: usize,
    ) -> Result<(), DeviceError> {
        let list = self.list.entries(first, cut.items_max);
        let Some(items) = kernels::write_items(segments, cut.item_bytes, list) else {
            let detail = "the segments were others when they were counted";
            return Err(DeviceError::ours("copy", Some(self.device.ordinal()), detail));
        };
        if items == 0 {
            return Ok(());
        }
        let list = self.list.device_addr() + (first * size_of::<Entry>()) as u64;
        let program = self.device.program()?;
        tracing::trace!(items, "copies are launched");
        // SAFETY: the list lies in page-locked memory, and these places are the batch's until it has ended; the caller
        // answers for the segments.
        unsafe { program.copy(&self.device, &self.copies, list, items) }
    }

    /// Has the end of what was started told: by an event, and by the bell.
    fn announce(&self, end: &Event) -> Result<(), DeviceError> {
        end.record(&self.copies)?;
        self.bells.wait_for(end)?;
        self.bells.call(bells::ring, self.bell.number())
    }

    /// The next batch that has ended, in the order in which they were started: its token, and whether its bytes are in
    /// place. Never blocks.
    pub fn ended(&mut self) -> Option<(u64, Result<(), DeviceError>)> {
        let outcome = self.outcome_of_first()?;
        let batch = self.running.pop_front()?;
        if batch.has_items {
            self.ring.give_back();
        }
        self.spare.push(batch.end);
        Some((batch.token, outcome))
    }

    /// Whether the batch that was started first has ended, and how.
    fn outcome_of_first(&mut self) -> Option<Result<(), DeviceError>> {
        let first = self.running.front()?;
        let entered = self.device.enter();
        if self.broken.is_none() {
            match entered.as_ref().map_err(Clone::clone).and_then(|_| first.end.is_reached()) {
                Ok(reached) => return reached.then_some(Ok(())),
                Err(error) => self.broken = Some(error),
            }
        }
        let error = self.broken.clone()?;
        // A context that is lost copies nothing any more; one that is not is waited for.
        let is_over = entered.is_err() || self.copies.is_idle().unwrap_or(true);
        is_over.then_some(Err(error))
    }

    /// Waits until nothing is copied any more, at most for `within`; whether that is so. What has ended is told by
    /// [`CopyQueue::ended`] all the same.
    pub fn drain(&mut self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        while !self.is_idle() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(DRAIN_STEP));
        }
        true
    }

    /// Whether the device copies nothing of this queue's: it has done all, or its context is lost.
    fn is_idle(&self) -> bool {
        if self.running.is_empty() {
            return true;
        }
        let Ok(_current) = self.device.enter() else { return true };
        self.copies.is_idle().unwrap_or(true)
    }
}

impl Drop for CopyQueue {
    fn drop(&mut self) {
        if self.drain(DROP_WAIT) {
            // SAFETY: dropped here only, and not used after: no kernel reads it any more.
            unsafe { ManuallyDrop::drop(&mut self.list) };
        } else {
            tracing::error!(
                "{:?} copies still after {DROP_WAIT:?}: a list of copies stays behind",
                self.device
            );
        }
    }
}

/// Why a batch was not put into the stream as a whole.
enum Unlaunched {
    /// Nothing of it was.
    Nothing(DeviceError),
    /// Its first part was.
    Rest(DeviceError),
}

/// How a batch is cut into work items.
#[derive(Clone, Copy)]
struct Cut {
    item_bytes: u64,
    /// Places of the list that are enough; never more than there are.
    items_max: usize,
}

impl Cut {
    /// For `count` segments, at most [`CopyQueue::SEGMENTS_MAX`], of `total` bytes in all.
    fn of(count: usize, total: u64) -> Self {
        let room = (ITEMS_MAX - count) as u64;
        let needed = (total / room + 1).next_multiple_of(ITEM_STEP);
        let item_bytes = kernels::item_bytes(total).max(needed);
        Self { item_bytes, items_max: kernels::items_at_most(count, total, item_bytes) }
    }
}

/// Work items that all batches in flight can have: 6 MiB of page-locked memory.
const ITEMS_MAX: usize = 256 << 10;
/// What the length of an item is a multiple of.
const ITEM_STEP: u64 = 128;
/// Up to so many pieces of at least so many bytes on average go to the driver's own copies. Both are guesses until
/// measured.
const ENGINE_SEGMENTS_MAX: usize = 4;
const ENGINE_MIN_BYTES: u64 = 4 << 20;
/// How often a drain looks.
const DRAIN_STEP: Duration = Duration::from_micros(50);
/// How long a queue that is dropped waits for its copies.
const DROP_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crosses_threads_may() {
        fn sent<T: Send>() {}
        fn shared<T: Send + Sync>() {}
        sent::<CopyQueue>();
        shared::<Device>();
        shared::<Pinned>();
        shared::<crate::device::Mapping>();
        shared::<crate::device::Shared>();
    }

    #[test]
    fn every_batch_that_is_let_in_fits_the_list() {
        for count in [0, 1, 1000, CopyQueue::SEGMENTS_MAX] {
            for total in [0, 1, 4096, 72 << 20, 1 << 40, u64::MAX] {
                let cut = Cut::of(count, total);
                assert!(cut.items_max <= ITEMS_MAX, "{count} segments of {total} bytes: {}", cut.items_max);
                assert_eq!(cut.item_bytes % ITEM_STEP, 0);
            }
        }
    }
}
