//! Who listens at the other end of a Unix socket: a leaf of its own because process id 0 (a process that this
//! pid namespace does not see) must be a value here, which the safe wrappers do not allow.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::fabric::Credentials;

/// The process that called `listen` on the socket that `socket` is connected to.
pub(super) fn listener_of(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` is writable for `len` bytes, which is its size, and every bit pattern is a valid ucred;
    // `len` is a writable socklen_t; the borrowed descriptor is open.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut len,
        )
    };
    if rc == 0 { Ok(Credentials { pid: peer.pid, uid: peer.uid }) } else { Err(io::Error::last_os_error()) }
}
