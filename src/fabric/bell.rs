//! A descriptor that is readable while somebody is called for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// Rung from any thread, until it is hushed. Costs a system call only where that changes something.
#[derive(Debug)]
pub(crate) struct Bell {
    fd: OwnedFd,
    rings: AtomicBool,
}

impl Bell {
    /// One that is silent.
    pub fn new() -> Result<Self, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd, rings: AtomicBool::new(false) })
    }

    /// Calls.
    pub fn ring(&self) {
        if !self.rings.swap(true, Ordering::AcqRel) {
            complain(rustix::io::write(&self.fd, &1u64.to_ne_bytes()));
        }
    }

    /// Ends the call. Whoever does looks afterwards whether there is something to do: what came just before has not
    /// rung.
    pub fn hush(&self) {
        if self.rings.load(Ordering::Acquire) {
            complain(rustix::io::read(&self.fd, &mut [0; 8]));
            self.rings.store(false, Ordering::Release);
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Neither can fail but by a descriptor that somebody else has closed.
fn complain(outcome: Result<usize, Errno>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "a wake handle of our own does not work");
    }
}
