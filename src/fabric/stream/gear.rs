//! What the stream has on each device: its queues of copies and its slots. They take long to make, so threads that
//! register memory make them, ahead of the one that drives.
#![allow(unsafe_code)] // only to implement the trait: there is no unsafe block here

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::fault;
use super::slots::SLOT_BYTES;
use crate::desc::{MemoryKind, Region, RegionKey};
use crate::device::{Bell, CopyQueue, Cuda, Device, DeviceError, Pinned, Urgency};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::Pinning;

/// What the stream has on one device, for what it sends and for what it receives.
pub(super) struct Gear {
    pub(super) queues: [CopyQueue; 2],
    pub(super) slots: [Vec<Pinned>; 2],
}

/// Makes the gear of each device once. Any thread may use it.
pub(super) struct Maker {
    cuda: &'static Cuda,
    bell: Bell,
    places: Mutex<HashMap<u32, Arc<Place>>>,
    pinned: Mutex<HashSet<RegionKey>>,
}

/// The gear of one device.
struct Place {
    /// How many devices were asked for before.
    before: usize,
    state: Mutex<State>,
}

enum State {
    /// Not made, or that failed.
    Nothing,
    Made(Box<Gear>),
    /// The fabric has it.
    Taken,
}

impl Maker {
    /// The bell is for the queues: it rings when copies have ended.
    pub(super) fn new(cuda: &'static Cuda, bell: Bell) -> Self {
        Self { cuda, bell, places: Mutex::default(), pinned: Mutex::default() }
    }

    /// The gear of a device, made now if nobody has made it; `None` where it was taken before.
    pub(super) fn take(&self, ordinal: u32) -> Result<Option<Gear>, FabricError> {
        let place = self.place(ordinal);
        let mut state = place.state.lock();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Made(gear) => Ok(Some(*gear)),
            State::Taken => Ok(None),
            State::Nothing => self.make(ordinal, place.before).map(Some).inspect_err(|_| {
                *state = State::Nothing;
            }),
        }
    }

    /// Makes the gear of a device if there is none.
    fn prepare(&self, ordinal: u32) -> Result<(), FabricError> {
        let place = self.place(ordinal);
        let mut state = place.state.lock();
        if matches!(*state, State::Nothing) {
            *state = State::Made(Box::new(self.make(ordinal, place.before)?));
        }
        Ok(())
    }

    fn place(&self, ordinal: u32) -> Arc<Place> {
        let mut places = self.places.lock();
        let before = places.len();
        let new = || Arc::new(Place { before, state: Mutex::new(State::Nothing) });
        Arc::clone(places.entry(ordinal).or_insert_with(new))
    }

    fn make(&self, ordinal: u32, before: usize) -> Result<Gear, FabricError> {
        let made = self.cuda.device(ordinal).and_then(|device| {
            let queue = || device.queue(Arc::clone(&self.bell), Urgency::Urgent);
            let count =
                SLOTS_PER_DEVICE.min(CopyQueue::BATCHES_MAX.saturating_sub(before * SLOTS_PER_DEVICE));
            Ok(Gear { queues: [queue()?, queue()?], slots: [slots(&device, count)?, slots(&device, count)?] })
        });
        made.map_err(|error| fault::of_device(&error, "making room for GPU memory"))
    }
}

impl Pinning for Maker {
    unsafe fn pin(&self, region: &Region) -> Result<(), FabricError> {
        if self.pinned.lock().contains(&region.key) {
            let detail = format!("region {} is registered already", region.key);
            return Err(fault::of_kind("register", FabricErrorKind::InvalidRegion, detail));
        }
        if region.kind == MemoryKind::Vram {
            self.prepare(region.device)?;
        }
        self.pinned.lock().insert(region.key);
        Ok(())
    }

    fn unpin(&self, key: RegionKey) {
        self.pinned.lock().remove(&key);
    }
}

fn slots(device: &Arc<Device>, count: usize) -> Result<Vec<Pinned>, DeviceError> {
    (0..count).map(|_| device.pinned(SLOT_BYTES)).collect()
}

/// Slots that a device adds to those of each direction: a link has two at a time, one on the wire and one being copied,
/// and links that stand still keep theirs. Only as many devices add some as one queue can have batches of: a batch may
/// be for any device, and so is never refused.
const SLOTS_PER_DEVICE: usize = 8;
