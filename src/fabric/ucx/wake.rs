//! The handle that says "poll me": readable while work is in flight or an outcome waits.
//!
//! A copy over cma is work of this side's processor and no kernel object announces it, so the fabric raises
//! an eventfd itself for as long as a poll would find something to do.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

use crate::error::{FabricError, FabricErrorKind};

/// See the [module](self).
pub(super) struct Wake {
    fd: OwnedFd,
    raised: bool,
}

impl Wake {
    pub fn new() -> Result<Self, FabricError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|error| {
            let kind = FabricErrorKind::NoResource;
            FabricError::new(super::NAME, "eventfd", kind, error.raw_os_error(), error.to_string())
        })?;
        Ok(Self { fd, raised: false })
    }

    /// Makes the handle readable, or not.
    pub fn set(&mut self, wanted: bool) {
        if wanted == self.raised {
            return;
        }
        // Neither can fail: the counter goes from 0 to 1 and back, and the descriptor is our own.
        let done = if wanted {
            rustix::io::write(&self.fd, &1_u64.to_ne_bytes())
        } else {
            rustix::io::read(&self.fd, &mut [0_u8; 8])
        };
        if done.is_ok() {
            self.raised = wanted;
        }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
