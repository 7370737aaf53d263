//! Who is at the other end of a Unix socket: a leaf of its own because process id 0 (a process that this pid
//! namespace does not see) must be a value here, which the safe wrappers do not allow.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The process at the other end of a Unix socket, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process id in this process's pid namespace; 0 where it is not visible.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
}

impl Credentials {
    /// Those of the process that connected to, or listened on, the socket that `socket` is connected to;
    /// `None` where it is no Unix socket.
    pub fn of_peer(socket: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: `peer` is writable for `len` bytes, which is its size, and every bit pattern is a valid
        // ucred; `len` is a writable socklen_t; the borrowed descriptor is open.
        let rc = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut peer).cast(),
                &raw mut len,
            )
        };
        if rc != 0 {
            return Err(io::Error::last_os_error());
        }
        // Linux answers on other sockets too, with a user id that nobody has.
        Ok((peer.uid != u32::MAX).then_some(Self { pid: peer.pid, uid: peer.uid }))
    }
}
