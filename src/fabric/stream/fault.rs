//! The one place where an errno, or a breach of the framing, becomes a [`FabricError`].

use std::io;

use crate::device::DeviceError;
use crate::error::{FabricError, FabricErrorKind};

/// Name of the fabric, in [`FabricError`] and in every log line.
pub(super) const NAME: &str = "stream";

/// A system call that failed; `doing` says to whom or where.
pub(super) fn of_call(call: &'static str, error: &io::Error, doing: &str) -> FabricError {
    let code = error.raw_os_error().unwrap_or(0);
    FabricError::new(NAME, call, kind_of(code), code, format!("{doing}: {error}"))
}

/// A call into CUDA that failed.
pub(super) fn of_device(error: &DeviceError, doing: &str) -> FabricError {
    let code = i32::try_from(error.code).unwrap_or(0);
    FabricError::new(NAME, error.call, error.kind(), code, format!("{doing}: {error}"))
}

/// The peer closed its end.
pub(super) fn closed() -> FabricError {
    let detail = "the peer closed its data connection (it has exited, or has dropped this agent)";
    FabricError::new(NAME, "read", FabricErrorKind::PeerLost, 0, detail)
}

/// A failure that no system call reported.
pub(super) fn of_kind(call: &'static str, kind: FabricErrorKind, detail: impl Into<String>) -> FabricError {
    FabricError::new(NAME, call, kind, 0, detail)
}

fn kind_of(errno: i32) -> FabricErrorKind {
    match errno {
        libc::ECONNRESET | libc::EPIPE | libc::ENOTCONN | libc::ESHUTDOWN => FabricErrorKind::PeerLost,
        libc::ECONNREFUSED
        | libc::EHOSTUNREACH
        | libc::ENETUNREACH
        | libc::ENETDOWN
        | libc::ENOENT
        | libc::EACCES
        | libc::EPERM
        | libc::EADDRNOTAVAIL
        | libc::EAFNOSUPPORT => FabricErrorKind::Unreachable,
        libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS | libc::EAGAIN | libc::EADDRINUSE => {
            FabricErrorKind::NoResource
        }
        libc::ETIMEDOUT => FabricErrorKind::Timeout,
        libc::EFAULT => FabricErrorKind::InvalidRegion,
        _ => FabricErrorKind::Internal,
    }
}
