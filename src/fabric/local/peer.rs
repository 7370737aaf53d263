//! Who a peer is, and how that is proved.

use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::Link;
use crate::fabric::peer_process::PeerProcess;

use super::error;
use super::nonce::NonceAt;
use super::pull::{Puller, Regions};

/// A process, pinned: the pid cannot come to mean another one unnoticed.
pub(super) struct Identity {
    pub process: PeerProcess,
    pub nonce: NonceAt,
}

impl Identity {
    /// Pins the process that the kernel says is at the other end. Whether it is the one that wrote the address is
    /// for [`Identity::prove`] to find out.
    pub fn pin(link: &Link) -> Result<Self, FabricError> {
        let nonce = NonceAt::parse(&link.address)?;
        Ok(Self { process: PeerProcess::pin("local", link)?, nonce })
    }

    /// Reads the nonce where the peer says it is.
    pub fn prove(&self, puller: &mut Puller, regions: &Regions) -> Result<(), FabricError> {
        let pid = self.process.pid;
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

    fn stranger(&self, code: i32) -> FabricError {
        let detail = format!(
            "process {} does not hold the nonce at {:#x}: it is not the one that gave this address (restarted, \
             or its agent is closed)",
            self.process.pid, self.nonce.addr
        );
        FabricError::new("local", READV, FabricErrorKind::Unreachable, code, detail)
    }
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
}
