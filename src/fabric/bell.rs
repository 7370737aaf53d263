//! A descriptor that is readable while somebody is called for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::sync::{AtomicBool, Ordering};

/// Rung from any thread, until it is hushed. Costs a system call only where that changes something.
#[derive(Debug)]
pub(crate) struct Bell<H = OwnedFd> {
    handle: H,
    /// It has been rung.
    rings: AtomicBool,
    /// Whoever rang it is done with that: the handle is readable. Hushed any sooner, it would be so for ever.
    is_set: AtomicBool,
}

/// What is readable while a bell rings.
pub(crate) trait Handle {
    /// Makes it readable.
    fn set(&self);

    /// Makes it readable no longer; it was.
    fn clear(&self);
}

impl Bell {
    /// One that does not ring.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self::over(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }
}

impl<H: Handle> Bell<H> {
    fn over(handle: H) -> Self {
        Self { handle, rings: AtomicBool::new(false), is_set: AtomicBool::new(false) }
    }

    /// Calls.
    pub fn ring(&self) {
        if !self.rings.swap(true, Ordering::AcqRel) {
            self.handle.set();
            self.is_set.store(true, Ordering::Release);
        }
    }

    /// Ends the call, unless there is something to do still. What has come just before, and has not rung because it rang
    /// already, is seen by the look afterwards; a call that has only begun ends with the next hush.
    pub fn hush(&self, has_more: impl FnOnce() -> bool) {
        if self.is_set.load(Ordering::Acquire) {
            self.handle.clear();
            self.is_set.store(false, Ordering::Relaxed); // ahead of the next line, which lets the next one ring
            self.rings.swap(false, Ordering::AcqRel);
        }
        if has_more() {
            self.ring();
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Handle for OwnedFd {
    fn set(&self) {
        complain(rustix::io::write(self, &1u64.to_ne_bytes()));
    }

    fn clear(&self) {
        complain(rustix::io::read(self, &mut [0; 8]));
    }
}

/// Neither can fail but by a descriptor that somebody else has closed.
fn complain(outcome: Result<usize, Errno>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "a wake handle of our own does not work");
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::{Condvar, Mutex};

    /// Stands for the descriptor: whoever waits for it to be readable waits for ever if nobody makes it so.
    #[derive(Default)]
    struct Readable {
        is_set: Mutex<bool>,
        changed: Condvar,
    }

    impl Readable {
        fn wait(&self) {
            let mut is_set = self.is_set.lock();
            while !*is_set {
                self.changed.wait(&mut is_set);
            }
        }
    }

    impl Handle for Readable {
        fn set(&self) {
            *self.is_set.lock() = true;
            self.changed.notify_all();
        }

        fn clear(&self) {
            assert!(std::mem::replace(&mut *self.is_set.lock(), false), "there is nothing to read");
        }
    }

    /// A fabric: things to do, behind a lock, and the bell.
    struct Fabric {
        to_do: Mutex<usize>,
        bell: Bell<Readable>,
    }

    impl Fabric {
        fn new() -> Arc<Self> {
            Arc::new(Self { to_do: Mutex::new(0), bell: Bell::over(Readable::default()) })
        }

        fn add(&self) {
            *self.to_do.lock() += 1;
            self.bell.ring();
        }

        /// As the fabric's poll.
        fn poll(&self) -> usize {
            let done = std::mem::take(&mut *self.to_do.lock());
            self.bell.hush(|| *self.to_do.lock() > 0);
            done
        }
    }

    /// Somebody polls who has not been woken, as everybody who waits does: in the midst of a ring, perhaps.
    fn all_is_done_and_then_it_is_quiet(ringers: usize) {
        loom::model(move || {
            let fabric = Fabric::new();
            let ringing: Vec<_> = (0..ringers)
                .map(|_| {
                    let fabric = Arc::clone(&fabric);
                    thread::spawn(move || fabric.add())
                })
                .collect();
            let mut done = fabric.poll();
            while done < ringers {
                fabric.bell.handle.wait();
                done += fabric.poll();
                thread::yield_now(); // it stays readable until whoever rang is done with that
            }
            ringing.into_iter().for_each(|ringer| ringer.join().unwrap());
            assert_eq!(fabric.poll(), 0, "done twice");
            assert!(!*fabric.bell.handle.is_set.lock(), "it is readable for ever");
        });
    }

    #[test]
    fn a_ring_is_heard_and_ends() {
        all_is_done_and_then_it_is_quiet(1);
    }

    #[test]
    fn of_two_rings_none_is_lost() {
        all_is_done_and_then_it_is_quiet(2);
    }
}
