//! Reads and writes of a file at an offset, from and to memory that is named by address.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use super::{Direction, LoopbackError};

/// Moves `len` bytes between `addr` and `offset` of the file, however many calls that takes.
///
/// # Safety
/// `len` bytes at `addr` stay mapped until this returns, writable for a load, and nobody holds a Rust reference to them. What
/// is not mapped is an error of the kernel's.
pub(super) unsafe fn copy(
    agent: &str,
    fd: RawFd,
    offset: u64,
    addr: u64,
    len: u64,
    direction: Direction,
) -> Result<(), LoopbackError> {
    let call = match direction {
        Direction::Offload => "pwrite",
        Direction::Load => "pread",
    };
    let failed = |done: u64, error: io::Error| LoopbackError::Io {
        agent: agent.to_owned(),
        call,
        fd,
        offset: offset + done,
        len_bytes: len - done,
        error,
    };
    let mut done = 0;
    while done < len {
        let step = (len - done).min(STEP_MAX_BYTES) as usize;
        let at = libc::off64_t::try_from(offset + done)
            .map_err(|_| failed(done, io::Error::from_raw_os_error(libc::EOVERFLOW)))?;
        let start = (addr + done) as *mut libc::c_void;
        // The raw calls, because this memory is the host's and no Rust slice over it may exist.
        let moved = match direction {
            // SAFETY: `step` bytes at `start` are mapped (the caller's promise); the kernel checks the rest.
            Direction::Offload => unsafe { libc::pwrite64(fd, start, step, at) },
            // SAFETY: as above, and writable.
            Direction::Load => unsafe { libc::pread64(fd, start, step, at) },
        };
        match moved {
            0 if direction == Direction::Load => {
                let (agent, len_bytes) = (agent.to_owned(), len - done);
                return Err(LoopbackError::EndOfFile { agent, fd, offset: offset + done, len_bytes });
            }
            0 => return Err(failed(done, io::ErrorKind::WriteZero.into())),
            1.. => done += moved as u64,
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => {}
                error => return Err(failed(done, error)),
            },
        }
    }
    Ok(())
}

/// Bytes per call: below the kernel's own cut of 2 GiB less a page, and whole pages.
const STEP_MAX_BYTES: u64 = 1 << 30;
