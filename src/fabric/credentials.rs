//! Who is at the other end of a Unix socket: a leaf of its own because process id 0 (a process that this pid
//! namespace does not see) must be a value here, which the safe wrappers do not allow.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

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

    /// A pidfd of the same process, readable once it has ended. `None` where it is no Unix socket, where the process is
    /// this one, and where neither the kernel's own answer (Linux 6.5) nor the process id leads to one.
    pub fn pidfd_of_peer(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
        let peer = Self::of_peer(socket).ok().flatten()?;
        if peer.pid == rustix::process::getpid().as_raw_pid() {
            return None;
        }
        let by_pid = || pidfd_open(Pid::from_raw(peer.pid)?, PidfdFlags::empty()).ok();
        peer_pidfd(socket).or_else(by_pid)
    }
}

/// `SO_PEERPIDFD`: unlike a process id, it cannot have come to mean another process.
fn peer_pidfd(socket: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut fd: RawFd = -1;
    let mut len = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: `fd` is writable for `len` bytes, which is its size; `len` is a writable socklen_t; the borrowed
    // descriptor is open.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut len,
        )
    };
    // SAFETY: on success the kernel has made a new descriptor, close-on-exec, which nobody else knows of.
    (rc == 0 && fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Not in libc yet.
const SO_PEERPIDFD: libc::c_int = 77;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_kernel_names_the_process_and_pins_it() {
        let (here, there) = UnixStream::pair().expect("a pair");
        let credentials = Credentials::of_peer(here.as_fd()).expect("asked").expect("a Unix socket");
        assert_eq!(credentials.pid as u32, std::process::id());
        assert!(Credentials::pidfd_of_peer(here.as_fd()).is_none(), "nobody watches oneself");
        if let Some(pidfd) = peer_pidfd(here.as_fd()) {
            let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(0), "we live");
        }
        drop(there);
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        assert!(Credentials::pidfd_of_peer(tcp.as_fd()).is_none());
    }
}
