//! Who a peer is, and how that is proved.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Credentials, Link};

use super::error;
use super::nonce::NonceAt;
use super::ptracer::Allowance;
use super::pull::{Puller, Regions};

/// A process, pinned: the pid cannot come to mean another one unnoticed.
pub(super) struct Identity {
    pub pid: Pid,
    pub pidfd: OwnedFd,
    pub nonce: NonceAt,
    /// Held while the peer may read us; `None` where no leave is needed.
    _allowance: Option<Allowance>,
}

impl Identity {
    /// Pins the process that the kernel says is at the other end. Whether it is the one that wrote the address is
    /// for [`Identity::prove`] to find out.
    pub fn pin(link: &Link, yama_scope: Option<u32>) -> Result<Self, FabricError> {
        let nonce = NonceAt::parse(&link.address)?;
        let pid = admitted(link.credentials, link.keys.is_some())?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
            Errno::SRCH => {
                error("pidfd_open", FabricErrorKind::Unreachable, errno, format!("process {pid} is gone"))
            }
            Errno::MFILE | Errno::NFILE | Errno::NOMEM => error(
                "pidfd_open",
                FabricErrorKind::NoResource,
                errno,
                format!("to pin process {pid}: {errno}"),
            ),
            _ => error(
                "pidfd_open",
                FabricErrorKind::Unsupported,
                errno,
                format!("cannot pin process {pid} (Linux 5.3 or later is needed)"),
            ),
        })?;
        let leave = yama_scope == Some(1) && pid != rustix::process::getpid();
        Ok(Self { pid, pidfd, nonce, _allowance: leave.then(|| Allowance::new(pid)) })
    }

    /// Reads the nonce where the peer says it is.
    pub fn prove(&self, puller: &mut Puller, regions: &Regions) -> Result<(), FabricError> {
        let pid = self.pid;
        match puller.call(regions).pull(pid.as_raw_pid(), &self.nonce) {
            Ok(pulled) if pulled.proven => Ok(()),
            Ok(_) => Err(self.stranger(0)),
            Err(errno @ Errno::FAULT) => Err(self.stranger(errno.raw_os_error())),
            Err(errno @ Errno::SRCH) => {
                Err(error(READV, FabricErrorKind::Unreachable, errno, format!("process {pid} is gone")))
            }
            Err(errno) => Err(refused(pid, errno)),
        }
    }

    /// Whether the process has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(1..))
    }

    fn stranger(&self, code: i32) -> FabricError {
        let detail = format!(
            "process {} does not hold the nonce at {:#x}: it is not the one that gave this address (restarted, \
             or its agent is closed)",
            self.pid, self.nonce.addr
        );
        FabricError::new("local", READV, FabricErrorKind::Unreachable, code, detail)
    }
}

/// The pid of a peer in a pid namespace that we see, which runs as the same user or has shown that it has our key.
fn admitted(credentials: Option<Credentials>, has_key: bool) -> Result<Pid, FabricError> {
    let unsupported = |detail| FabricError::new("local", "connect", FabricErrorKind::Unsupported, 0, detail);
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

/// What a refusal of `process_vm_readv` means to the person who has to act on it.
pub(super) fn refused(pid: Pid, errno: Errno) -> FabricError {
    let detail = match errno {
        Errno::PERM => format!(
            "may not read the memory of process {pid}: another uid, a process that is not dumpable, \
             kernel.yama.ptrace_scope above 1, or seccomp (docker: --cap-add SYS_PTRACE) forbids it; without this \
             lane the bytes go by stream"
        ),
        Errno::NOSYS => format!(
            "process_vm_readv is not to be had here (kernel or seccomp) to read process {pid}; without this lane \
             the bytes go by stream"
        ),
        _ => format!("cannot read the memory of process {pid}: {errno}"),
    };
    let kind = if errno == Errno::NOMEM { FabricErrorKind::NoResource } else { FabricErrorKind::Unsupported };
    error(READV, kind, errno, detail)
}

/// The call that does the work, as errors name it.
pub(super) const READV: &str = "process_vm_readv";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_every_cause_and_the_way_out() {
        let error = refused(rustix::process::getpid(), Errno::PERM);
        assert_eq!((error.kind, error.code), (FabricErrorKind::Unsupported, Errno::PERM.raw_os_error()));
        for word in ["uid", "dumpable", "yama.ptrace_scope", "seccomp", "by stream", "process_vm_readv"] {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn another_user_is_refused_with_both_uids() {
        let own = rustix::process::geteuid().as_raw();
        let pid = rustix::process::getpid().as_raw_pid();
        let error = admitted(Some(Credentials { pid, uid: own + 7 }), false).expect_err("another user");
        assert_eq!(error.kind, FabricErrorKind::Unsupported);
        assert!(error.detail.contains("needs the same user"), "{error}");
        assert!(error.detail.contains(&format!("uid {}, this one as uid {own}", own + 7)), "{error}");
        assert!(admitted(Some(Credentials { pid, uid: own + 7 }), true).is_ok(), "the key says who it is");
    }

    #[test]
    fn pids_that_name_no_process_are_refused() {
        for pid in [0, -1, i32::MIN] {
            let uid = rustix::process::geteuid().as_raw();
            assert!(admitted(Some(Credentials { pid, uid }), true).is_err(), "{pid}");
        }
        assert!(admitted(None, true).is_err());
    }
}
