//! The process of a peer on this host, pinned: its pid cannot come to mean another one unnoticed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{FabricError, FabricErrorKind};

use super::ptracer::{Allowance, yama_scope};
use super::{Credentials, Link};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct PeerProcess {
    pub pid: Pid,
    pidfd: OwnedFd,
    /// Held while the peer may reach into us; `None` where no leave is needed.
    _allowance: Option<Allowance>,
}

impl PeerProcess {
    /// Pins the process that the kernel says is at the other end of a link, if it may be one that `fabric` reaches into:
    /// of this user, or one that has shown that it has our key. Until it is dropped the peer may reach into us, too.
    pub fn pin(fabric: &'static str, link: &Link) -> Result<Self, FabricError> {
        let pid = admitted(fabric, link.credentials, link.keys.is_some())?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| {
            let (kind, detail) = match errno {
                Errno::SRCH => (FabricErrorKind::Unreachable, format!("process {pid} is gone")),
                Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                    (FabricErrorKind::NoResource, format!("to pin process {pid}: {errno}"))
                }
                _ => {
                    let detail = format!("cannot pin process {pid} (Linux 5.3 or later is needed)");
                    (FabricErrorKind::Unsupported, detail)
                }
            };
            FabricError::new(fabric, "pidfd_open", kind, errno.raw_os_error(), detail)
        })?;
        let wants_leave = yama_scope() == Some(1) && pid != rustix::process::getpid();
        Ok(Self { pid, pidfd, _allowance: wants_leave.then(|| Allowance::new(pid)) })
    }

    /// Whether it is this process.
    pub fn is_us(&self) -> bool {
        self.pid == rustix::process::getpid()
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(1..))
    }
}

impl AsFd for PeerProcess {
    /// Its pidfd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// The pid of a peer in a pid namespace that we see, which runs as the same user or has shown that it has our key.
fn admitted(
    fabric: &'static str,
    credentials: Option<Credentials>,
    has_key: bool,
) -> Result<Pid, FabricError> {
    let unsupported = |detail| FabricError::new(fabric, "connect", FabricErrorKind::Unsupported, 0, detail);
    let Some(credentials) = credentials else {
        return Err(unsupported(String::from(
            "the kernel does not say which process the peer is: its control stream is no Unix socket",
        )));
    };
    let Some(pid) = Some(credentials.pid).filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
        return Err(unsupported(String::from(
            "the peer's process is in a pid namespace that is not visible here",
        )));
    };
    let own = rustix::process::geteuid().as_raw();
    if credentials.uid != own && !has_key {
        return Err(unsupported(format!(
            "needs the same user on both sides, or a key in common (BATON_PSK_FILE): process {pid} runs as uid {}, \
             this one as uid {own}",
            credentials.uid
        )));
    }
    Ok(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_is_refused_with_both_uids() {
        let own = rustix::process::geteuid().as_raw();
        let pid = rustix::process::getpid().as_raw_pid();
        let of = |uid| Some(Credentials { pid, uid });
        let error = admitted("local", of(own + 7), false).expect_err("another user");
        assert_eq!(error.kind, FabricErrorKind::Unsupported);
        assert!(error.detail.contains("needs the same user"), "{error}");
        assert!(error.detail.contains(&format!("uid {}, this one as uid {own}", own + 7)), "{error}");
        assert!(admitted("local", of(own + 7), true).is_ok(), "the key says who it is");
    }

    #[test]
    fn pids_that_name_no_process_are_refused() {
        for pid in [0, -1, i32::MIN] {
            let uid = rustix::process::geteuid().as_raw();
            assert!(admitted("cuda", Some(Credentials { pid, uid }), true).is_err(), "{pid}");
        }
        assert!(admitted("cuda", None, true).is_err());
    }
}
