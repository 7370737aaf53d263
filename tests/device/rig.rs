//! What the tests stand on: the driver, a queue that can be waited for, random layouts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton::desc::Segment;
use baton::device::{CopyQueue, Cuda, Device, DeviceConfig, DeviceError, Pinned, Started, Urgency};
use parking_lot::{Condvar, Mutex};

/// Longest that anything may take here.
pub const WATCHDOG: Duration = Duration::from_secs(60);

pub fn cuda() -> &'static Cuda {
    Cuda::open(&DeviceConfig { library: Some(fake_cuda::driver()) }).expect("a driver for the tests")
}

pub fn device() -> Arc<Device> {
    cuda().device(0).expect("the first device")
}

/// Rings of a queue's bell, which can be waited for.
#[derive(Default)]
pub struct Rings {
    count: Mutex<u64>,
    rung: Condvar,
}

impl Rings {
    pub fn bell(self: &Arc<Self>) -> baton::device::Bell {
        let rings = Arc::clone(self);
        Arc::new(move || {
            *rings.count.lock() += 1;
            rings.rung.notify_all();
        })
    }

    /// Waits until it has rung so often in all.
    pub fn wait(&self, wanted: u64) {
        let mut count = self.count.lock();
        let timeout = self.rung.wait_while_for(&mut count, |count| *count < wanted, WATCHDOG);
        assert!(!timeout.timed_out(), "{count} rings, not {wanted}");
    }
}

pub fn queue(device: &Arc<Device>) -> CopyQueue {
    device.queue(Arc::new(|| ()), Urgency::Normal).expect("a queue")
}

/// The next batch that ends, or has ended.
pub fn next_end(queue: &mut CopyQueue) -> (u64, Result<(), DeviceError>) {
    let deadline = Instant::now() + WATCHDOG;
    loop {
        if let Some(ended) = queue.ended() {
            return ended;
        }
        assert!(Instant::now() < deadline, "{} batches hang", queue.in_flight());
        std::thread::yield_now();
    }
}

/// Starts a batch in a queue that is not full.
///
/// # Safety
/// As for [`CopyQueue::start`].
pub unsafe fn start(queue: &mut CopyQueue, token: u64, segments: &[Segment]) {
    // SAFETY: the caller answers for the segments.
    let started = unsafe { queue.start(token, segments.iter().copied()) };
    assert_eq!(started, Ok(Started::Accepted));
}

/// Copies all segments; what came of it.
///
/// # Safety
/// As for [`CopyQueue::start`].
pub unsafe fn copy(queue: &mut CopyQueue, segments: &[Segment]) -> Result<(), DeviceError> {
    // SAFETY: the caller answers for the segments.
    unsafe { start(queue, 99, segments) };
    let (token, outcome) = next_end(queue);
    assert_eq!((token, queue.in_flight()), (99, 0));
    outcome
}

/// Page-locked memory that holds these bytes.
pub fn pinned(device: &Arc<Device>, bytes: &[u8]) -> Pinned {
    let mut pinned = device.pinned(bytes.len()).expect("page-locked memory");
    pinned.as_mut_slice().copy_from_slice(bytes);
    pinned
}

/// Numbers that are the same in every run with this seed (xorshift).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }
}
