//! GPU memory to files and back through two page-locked buffers, so that the GPU copies one while the file has the other.
//!
//! ```text
//!   offload   gather 0 | gather 1 | gather 2 |          load   read 0 | read 1    | read 2    |
//!                      | write 0  | write 1  | ...                    | scatter 0 | scatter 1 | ...
//! ```
//!
//! A stage has memory and a queue of one device. Requests of several threads have one each; those that are not in use are
//! kept for the next, a few of them.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::device::{Bell, CopyQueue, Cuda, DeviceError, Pinned, Started, Urgency};

use super::pairing::{Fill, Piece, fills};
use super::{Direction, LoopbackError, positional};

/// The stages of an agent that nobody uses.
#[derive(Default)]
pub(super) struct Stages {
    idle: Mutex<Vec<Stage>>,
}

/// Two buffers, and what copies between them and a device's memory.
struct Stage {
    queue: CopyQueue,
    buffers: [Pinned; 2],
    rung: Arc<Rung>,
    next_token: u64,
}

/// Rung when a copy has ended.
#[derive(Default)]
struct Rung {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Stages {
    /// Moves what `pieces` name, memory of devices that CUDA has, and returns when the last byte is there.
    ///
    /// # Safety
    /// Every piece lies in device memory of its device, which stays allocated until this returns, and which nobody else
    /// writes, nor reads for a load, and for a load no two of them overlap.
    pub unsafe fn move_through(
        &self,
        agent: &str,
        cuda: &'static Cuda,
        pieces: impl Iterator<Item = Piece>,
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        let failed = |source| device_failed(agent, source);
        let mut fills = fills(pieces, BUFFER_BYTES as u64, CopyQueue::SEGMENTS_MAX).peekable();
        while let Some(device) = fills.peek().and_then(|fill| fill.pieces.first()).map(|piece| piece.device) {
            let mut stage = self.take(cuda, device).map_err(failed)?;
            let of_device = std::iter::from_fn(|| {
                fills.next_if(|fill| fill.pieces.first().is_some_and(|piece| piece.device == device))
            });
            // SAFETY: the caller's promise.
            let moved = unsafe { stage.move_all(agent, of_device, direction) };
            self.give_back(stage);
            moved?;
        }
        Ok(())
    }

    fn take(&self, cuda: &'static Cuda, device: u32) -> Result<Stage, DeviceError> {
        let known = {
            let mut idle = self.idle.lock();
            let at = idle.iter().position(|stage| stage.queue.device().ordinal() == device);
            at.map(|at| idle.swap_remove(at))
        };
        known.map_or_else(|| Stage::new(cuda, device), Ok)
    }

    /// Keeps a stage for the next request, unless it copies still or its device has failed.
    fn give_back(&self, mut stage: Stage) {
        if !stage.queue.drain(SETTLE_LIMIT) {
            tracing::error!(
                device = stage.queue.device().ordinal(),
                "a copy between GPU memory and page-locked memory does not end; its buffers are left behind"
            );
            std::mem::forget(stage);
            return;
        }
        while stage.queue.ended().is_some() {}
        let mut idle = self.idle.lock();
        if stage.queue.broken().is_none() && idle.len() < IDLE_MAX {
            idle.push(stage);
        }
    }
}

impl Stage {
    fn new(cuda: &'static Cuda, ordinal: u32) -> Result<Self, DeviceError> {
        let device = cuda.device(ordinal)?;
        let rung = Arc::new(Rung::default());
        let ringing = Arc::clone(&rung);
        let bell: Bell = Arc::new(move || ringing.ring());
        // Nobody waits for these bytes as a request waits for its KV cache.
        let queue = device.queue(bell, Urgency::Normal)?;
        let buffers = [device.pinned(BUFFER_BYTES)?, device.pinned(BUFFER_BYTES)?];
        Ok(Self { queue, buffers, rung, next_token: 0 })
    }

    /// Moves all fills, all of this stage's device.
    ///
    /// # Safety
    /// As for [`Stages::move_through`].
    unsafe fn move_all(
        &mut self,
        agent: &str,
        fills: impl Iterator<Item = Fill>,
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        let mut copying: VecDeque<(usize, Fill)> = VecDeque::new();
        for (number, fill) in fills.enumerate() {
            let buffer = number % self.buffers.len();
            if copying.len() == self.buffers.len() {
                self.finish(agent, &mut copying, direction)?;
            }
            if direction == Direction::Load {
                self.with_file(agent, buffer, &fill, direction)?;
            }
            // SAFETY: the caller's promise for the device's memory; the buffer is ours, and nothing else has it until
            // the copy has ended, for its turn has come again.
            unsafe { self.start(buffer, &fill, direction) }.map_err(|source| device_failed(agent, source))?;
            copying.push_back((buffer, fill));
        }
        while !copying.is_empty() {
            self.finish(agent, &mut copying, direction)?;
        }
        Ok(())
    }

    /// Starts the copy between a buffer and the device.
    ///
    /// # Safety
    /// As for [`CopyQueue::start`], until the copy has ended.
    unsafe fn start(&mut self, buffer: usize, fill: &Fill, direction: Direction) -> Result<(), DeviceError> {
        let (token, addr) = (self.next_token, self.buffers[buffer].device_addr());
        self.next_token += 1;
        let started = match direction {
            // SAFETY: the caller's promise.
            Direction::Offload => unsafe { self.queue.start(token, fill.gather(addr)) },
            // SAFETY: likewise.
            Direction::Load => unsafe { self.queue.start(token, fill.scatter(addr)) },
        };
        match started? {
            Started::Accepted => Ok(()),
            // Two batches are in flight at most, and the list of work has room for as many.
            Started::Full => Err(self.refused("a queue with room is full")),
        }
    }

    /// Waits for the copy that was started first; of an offload its bytes go to their files.
    fn finish(
        &mut self,
        agent: &str,
        copying: &mut VecDeque<(usize, Fill)>,
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        let Some((buffer, fill)) = copying.pop_front() else { return Ok(()) };
        self.await_first().map_err(|source| device_failed(agent, source))?;
        match direction {
            Direction::Offload => self.with_file(agent, buffer, &fill, direction),
            Direction::Load => Ok(()),
        }
    }

    /// Moves a fill between a buffer, which no copy has, and its files.
    fn with_file(
        &mut self,
        agent: &str,
        buffer: usize,
        fill: &Fill,
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        let start = self.buffers[buffer].as_ptr() as u64;
        for (at, Piece { fd, offset, len, .. }) in fill.placed() {
            // SAFETY: within the buffer, of which a fill has at most its length; it is ours alone, and nobody has a slice
            // of it.
            unsafe { positional::copy(agent, fd, offset, start + at, len, direction) }?;
        }
        Ok(())
    }

    fn await_first(&mut self) -> Result<(), DeviceError> {
        let deadline = Instant::now() + COPY_LIMIT;
        loop {
            let heard = self.rung.count();
            if let Some((_, outcome)) = self.queue.ended() {
                return outcome;
            }
            if Instant::now() >= deadline {
                return Err(self.refused(&format!("a copy has not ended after {COPY_LIMIT:?}")));
            }
            // After an error of the device nobody rings.
            self.rung.wait_beyond(heard, LOOK_AGAIN);
        }
    }

    fn refused(&self, detail: &str) -> DeviceError {
        let device = Some(self.queue.device().ordinal());
        DeviceError { call: "copy", code: 0, name: String::new(), device, detail: detail.to_owned() }
    }
}

impl Rung {
    fn ring(&self) {
        *self.count.lock() += 1;
        self.changed.notify_all();
    }

    fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Waits until it has been rung more often, at most for `within`.
    fn wait_beyond(&self, heard: u64, within: Duration) {
        let mut count = self.count.lock();
        if *count == heard {
            self.changed.wait_for(&mut count, within);
        }
    }
}

fn device_failed(agent: &str, source: DeviceError) -> LoopbackError {
    LoopbackError::Device { agent: agent.to_owned(), source: Box::new(source) }
}

/// Bytes of each of the two buffers: large enough for the copy engines, and for direct writes of a fast disk.
const BUFFER_BYTES: usize = 8 << 20;
/// Stages that are kept for the next request.
const IDLE_MAX: usize = 4;
/// How long a copy of a buffer may take: a hundred thousand times what it takes.
const COPY_LIMIT: Duration = Duration::from_secs(30);
/// How long what is copied still is waited for after an error.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
/// How often a copy is looked after that nobody rings for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
