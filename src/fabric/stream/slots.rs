//! Page-locked memory that the payload of one frame of GPU memory passes through, lent out slot by slot.

use std::sync::Arc;

use parking_lot::Mutex;

use super::LIMITS;
use crate::device::Pinned;

/// The slots of one direction that nobody has. All devices of the process can reach each of them.
#[derive(Clone, Default)]
pub(super) struct Slots(Arc<Mutex<Vec<Pinned>>>);

/// One slot, until it is dropped: then it is free again.
pub(super) struct Slot {
    /// `None` within `drop` alone.
    memory: Option<Pinned>,
    home: Slots,
}

impl Slots {
    /// Adds page-locked memory, [`SLOT_BYTES`] long each.
    pub(super) fn add(&self, memory: Vec<Pinned>) {
        self.0.lock().extend(memory);
    }

    /// Whether none is free.
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// A free slot, if there is one.
    pub(super) fn take(&self) -> Option<Slot> {
        let memory = self.0.lock().pop();
        memory.map(|memory| Slot { memory: Some(memory), home: self.clone() })
    }
}

impl Slot {
    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], Pinned::as_slice)
    }

    /// Its bytes, to be written.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut().map_or(&mut [], Pinned::as_mut_slice)
    }

    /// Its first byte, for devices.
    pub(super) fn device_addr(&self) -> u64 {
        self.memory.as_ref().map_or(0, Pinned::device_addr)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.home.0.lock().extend(self.memory.take());
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({:#x})", self.device_addr())
    }
}

/// What a slot holds: the payload of the longest frame that a fabric of ours sends.
pub(super) const SLOT_BYTES: usize = LIMITS.bytes_per_batch as usize;
