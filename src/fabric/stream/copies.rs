//! Copies in flight between slots and GPU memory: the leaf of the stream that starts them.
//!
//! ```text
//!   start: check the regions -> host memory by the processor, at once; GPU memory by a launch on each device it lies on
//!   ended: all launches of the job have ended -> the slot again, or why its bytes are not in place
//! ```
//! A slot is a job's until the devices have let go of it, whoever has lost interest meanwhile.
#![allow(unsafe_code)]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::drive::Side;
use super::fault;
use super::iovec::{fetch, place};
use super::slots::Slot;
use crate::desc::{MemoryKind, PeerKey, Segment, Span};
use crate::device::{CopyQueue, Started};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{LastHit, RegionSet};

/// A copy that was started; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct JobId(u64);

/// A copy that is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) id: JobId,
    /// Whose it was.
    pub(super) side: Side,
    pub(super) slot: Slot,
    /// Whether its bytes are in place.
    pub(super) outcome: Result<(), FabricError>,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Copies {
    devices: BTreeMap<u32, Queues>,
    jobs: HashMap<JobId, Job>,
    over: VecDeque<Ended>,
    last_id: u64,
}

/// The queues of one device.
struct Queues {
    /// Of what is sent, of what is received.
    queues: [CopyQueue; 2],
    /// What the job that is being started has to copy here.
    list: Vec<Segment>,
}

struct Job {
    /// `None` once nobody is interested any more.
    side: Option<Side>,
    slot: Slot,
    /// Launches that have not ended.
    running: usize,
    outcome: Result<(), FabricError>,
}

impl Copies {
    /// Adds the queues of a device.
    pub(super) fn add(&mut self, ordinal: u32, queues: [CopyQueue; 2]) {
        self.devices.insert(ordinal, Queues { queues, list: Vec::new() });
    }

    /// Whether it has queues of this device.
    pub(super) fn has(&self, ordinal: u32) -> bool {
        self.devices.contains_key(&ordinal)
    }

    /// Whether anything is being copied.
    pub(super) fn is_busy(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// Whether there is nothing to tell and nothing to wait for.
    pub(super) fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.over.is_empty()
    }

    /// Starts to copy between the beginning of `slot` and `spans`, all of which follow each other in it: out of them where
    /// something is sent, into them where something is received. [`Copies::ended`] gives the slot back. After an error
    /// the job never was; a part of what is host memory may have been written.
    pub(super) fn start(
        &mut self,
        side: Side,
        mut slot: Slot,
        spans: impl Iterator<Item = Span>,
        regions: &RegionSet,
    ) -> Result<JobId, FabricError> {
        self.sort(side, &mut slot, spans, regions)?;
        self.last_id += 1;
        let id = JobId(self.last_id);
        let mut job = Job { side: Some(side), slot, running: 0, outcome: Ok(()) };
        for (ordinal, Queues { queues, list }) in &mut self.devices {
            if list.is_empty() || job.outcome.is_err() {
                continue;
            }
            let queue = &mut queues[side.index()];
            // SAFETY: each segment is between part of the slot, which is the job's until all its launches have ended, and
            // part of a registered region of this device's memory, found in the set a moment ago. Its owner keeps that
            // mapped until it is deregistered, which is after this batch has ended or its peer was disconnected, and both
            // come behind the end of the copy, or a line in the log says that it hangs. Nobody has references to either.
            // Parts of the slot do not overlap; where spans of a landing do, their bytes are either's, and no others.
            let started = unsafe { queue.start(id.0, list.iter().copied()) };
            match started {
                Ok(Started::Accepted) => job.running += 1,
                // Cannot be: a queue has room for a batch of every slot there is.
                Ok(Started::Full) => {
                    let detail = format!("the queue of device {ordinal} is full");
                    job.outcome = Err(fault::of_kind("copy", FabricErrorKind::NoResource, detail));
                }
                Err(error) => job.outcome = Err(fault::of_device(&error, doing(side))),
            }
        }
        match (job.running, job.outcome) {
            (0, Err(error)) => Err(error),
            // The regions are others than they were when the payload was found to be staged.
            (0, Ok(())) => {
                Err(fault::of_kind("copy", FabricErrorKind::InvalidRegion, "none of it is GPU memory"))
            }
            (_, outcome) => {
                job.outcome = outcome;
                self.jobs.insert(id, job);
                Ok(id)
            }
        }
    }
}

impl Copies {
    /// Copies what is host memory, and lists for each device what lies on it.
    fn sort(
        &mut self,
        side: Side,
        slot: &mut Slot,
        spans: impl Iterator<Item = Span>,
        regions: &RegionSet,
    ) -> Result<(), FabricError> {
        self.devices.values_mut().for_each(|device| device.list.clear());
        let start = slot.device_addr();
        let (mut at, mut last) = (0, LastHit::default());
        for span in spans {
            let Some(region) = regions.find(span, &mut last) else { return Err(gone(span)) };
            let end = at + span.len as usize;
            let Some(bytes) = slot.bytes_mut().get_mut(at..end) else {
                let detail = format!("a payload of {end} bytes and more does not fit a slot");
                return Err(fault::of_kind("copy", FabricErrorKind::Internal, detail));
            };
            match (region.kind, side) {
                (MemoryKind::Vram, _) => {
                    let Some(device) = self.devices.get_mut(&region.device) else { return Err(gone(span)) };
                    let (here, there) = (start + at as u64, span.addr);
                    let (src, dst) = match side {
                        Side::Send(_) => (there, here),
                        Side::Receive(_) => (here, there),
                    };
                    device.list.push(Segment { src, dst, len: span.len });
                }
                (_, Side::Send(_)) if !fetch(regions, span.addr, bytes) => return Err(gone(span)),
                (_, Side::Receive(_)) if !place(regions, span.addr, bytes) => return Err(gone(span)),
                _ => {}
            }
            at = end;
        }
        Ok(())
    }

    /// A job that is over and was not told of yet.
    pub(super) fn ended(&mut self) -> Option<Ended> {
        if self.over.is_empty() {
            self.look();
        }
        self.over.pop_front()
    }

    /// Asks the devices which launches have ended.
    fn look(&mut self) {
        for (doing, queue) in self.devices.values_mut().flat_map(|device| {
            let doing = [doing(Side::Send(PeerKey(0))), doing(Side::Receive(PeerKey(0)))];
            doing.into_iter().zip(&mut device.queues)
        }) {
            while queue.in_flight() > 0
                && let Some((token, outcome)) = queue.ended()
            {
                let id = JobId(token);
                let Some(job) = self.jobs.get_mut(&id) else { continue };
                job.running -= 1;
                if let Err(error) = outcome {
                    job.outcome = Err(fault::of_device(&error, doing));
                }
                if job.running == 0
                    && let Some(Job { side: Some(side), slot, outcome, .. }) = self.jobs.remove(&id)
                {
                    self.over.push_back(Ended { id, side, slot, outcome });
                }
            }
        }
    }

    /// Nobody wants to hear of this peer's jobs any more: waits, within a bound, until nothing of them is copied, and
    /// says in the log if they go on.
    pub(super) fn forget(&mut self, peer: PeerKey) {
        let is_its = |job: &Job| job.side.is_some_and(|side| side.peer() == peer);
        if self.jobs.values().any(is_its) {
            self.drain();
            self.look();
        }
        self.over.retain(|ended| ended.side.peer() != peer);
        let hanging: Vec<_> = self.jobs.values_mut().filter(|job| is_its(job)).collect();
        if !hanging.is_empty() {
            tracing::error!(
                %peer,
                batches = hanging.len(),
                "GPU memory is still being copied for a peer that is let go of, and was for {DRAIN_LIMIT:?}: a device hangs; \
                 memory that was registered with it must not be used for anything else"
            );
        }
        hanging.into_iter().for_each(|job| job.side = None);
    }

    /// Waits until no device copies anything, within a bound; whether that is so.
    fn drain(&mut self) -> bool {
        let deadline = Instant::now() + DRAIN_LIMIT;
        let mut queues = self.devices.values_mut().flat_map(|device| &mut device.queues);
        queues.all(|queue| queue.drain(deadline.saturating_duration_since(Instant::now())))
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        if !self.drain() {
            // A device may still touch them: they stay behind. Their queues say so in the log.
            self.jobs.drain().for_each(|(_, job)| std::mem::forget(job.slot));
        }
    }
}

fn doing(side: Side) -> &'static str {
    match side {
        Side::Send(_) => "copying out of GPU memory what is to be sent",
        Side::Receive(_) => "copying into GPU memory what was received",
    }
}

fn gone(span: Span) -> FabricError {
    let detail = format!("{span} is not inside registered memory any more");
    fault::of_kind("copy", FabricErrorKind::InvalidRegion, detail)
}

/// How long the end of a link waits for its copies: less than a silence that is reported to peers.
const DRAIN_LIMIT: Duration = Duration::from_millis(1500);
