//! Who is at the other end of a Unix socket. A leaf: the one `getsockopt` that rustix types too narrowly
//! (a process outside our pid namespace shows as pid 0).
#![allow(unsafe_code)]

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::fabric::Credentials;

/// The peer's credentials as the kernel recorded them at connect; `None` where the socket is no Unix socket.
pub(super) fn peer_credentials(socket: BorrowedFd<'_>) -> Option<Credentials> {
    let mut ucred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `socket` is open for the call; `ucred` and `len` are live, writable and describe each other,
    // and every bit pattern is a valid `ucred`.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut ucred).cast(),
            &raw mut len,
        )
    };
    // On TCP sockets Linux answers with pid 0 and uid -1.
    (rc == 0 && ucred.uid != u32::MAX).then_some(Credentials { pid: ucred.pid, uid: ucred.uid })
}
