//! Small copies between a device's memory and the processor, for which somebody waits: by a page-locked buffer and a stream of
//! our own, so that the host's streams are left alone and a device that hangs costs a deadline and nothing else.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::stream::Stream;
use super::{Device, DeviceError, Pinned, Urgency};
use crate::desc::Segment;

/// What a device has for them, once it is needed.
pub(super) type Bounce = Mutex<Option<Room>>;

pub(super) struct Room {
    stream: Stream,
    pinned: Pinned,
}

/// Which way.
#[derive(Clone, Copy)]
enum Way {
    /// From the device.
    Fetch,
    /// To the device.
    Store,
}

impl Device {
    /// Reads device memory at `addr`. Blocks until the bytes are here, or for five seconds.
    ///
    /// # Safety
    /// The memory is allocated for as long as this takes.
    pub unsafe fn fetch(self: &Arc<Self>, addr: u64, bytes: &mut [u8]) -> Result<(), DeviceError> {
        for (at, piece) in (0..).step_by(ROOM_BYTES).zip(bytes.chunks_mut(ROOM_BYTES)) {
            self.bounce(|room| {
                // SAFETY: the caller answers for the memory.
                unsafe { room.copy(Way::Fetch, addr + at, piece.len()) }?;
                piece.copy_from_slice(&room.pinned.as_slice()[..piece.len()]);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Writes device memory at `addr`. Blocks until the bytes are there, or for five seconds.
    ///
    /// # Safety
    /// The memory is allocated for as long as this takes, and nobody else writes it; after an error it may still be written.
    pub unsafe fn store(self: &Arc<Self>, addr: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        for (at, piece) in (0..).step_by(ROOM_BYTES).zip(bytes.chunks(ROOM_BYTES)) {
            self.bounce(|room| {
                room.pinned.as_mut_slice()[..piece.len()].copy_from_slice(piece);
                // SAFETY: the caller answers for the memory.
                unsafe { room.copy(Way::Store, addr + at, piece.len()) }
            })?;
        }
        Ok(())
    }

    /// Works with the room, which is made at first. What fails is left behind as it is: the device may still use it.
    fn bounce(
        self: &Arc<Self>,
        work: impl FnOnce(&mut Room) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut bounce = self.bounce_room().lock();
        let _current = self.enter()?;
        let mut room = match bounce.take() {
            Some(room) => room,
            None => Room { stream: Stream::new(self, Urgency::Urgent)?, pinned: self.pinned(ROOM_BYTES)? },
        };
        let worked = work(&mut room);
        match worked {
            Ok(()) => *bounce = Some(room),
            Err(_) => std::mem::forget(room),
        }
        worked
    }
}

impl Room {
    /// Copies between the device's memory and the buffer, and waits for it.
    ///
    /// # Safety
    /// As for [`Device::fetch`] and [`Device::store`].
    unsafe fn copy(&mut self, way: Way, addr: u64, len: usize) -> Result<(), DeviceError> {
        let here = self.pinned.device_addr();
        let (src, dst) = match way {
            Way::Fetch => (addr, here),
            Way::Store => (here, addr),
        };
        // SAFETY: the caller answers for the device's memory; the buffer is long enough, and nobody touches it until the
        // stream is idle, or ever again.
        unsafe { self.stream.copy(Segment { src, dst, len: len as u64 }) }?;
        let deadline = Instant::now() + WITHIN;
        while !self.stream.is_idle()? {
            if Instant::now() >= deadline {
                let detail = format!("{len} bytes of {addr:#x} were not copied within {WITHIN:?}");
                return Err(DeviceError::ours("cuMemcpyAsync", None, detail));
            }
            std::thread::sleep(STEP);
        }
        Ok(())
    }
}

/// Bytes copied at a time.
const ROOM_BYTES: usize = 64 << 10;
/// How long a copy may take: the device does what it was given before.
const WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked for: about as long as the shortest copy takes.
const STEP: Duration = Duration::from_micros(20);
