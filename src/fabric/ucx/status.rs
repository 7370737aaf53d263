//! UCX's status codes as the fabric's fixed kinds of error.

use ucx_sys::Library;
use ucx_sys::bindings::*;

use crate::error::{FabricError, FabricErrorKind};

/// The error for a status that one of UCX's calls returned.
pub(super) fn error(ucx: &Library, call: &'static str, status: ucs_status_t) -> FabricError {
    let mut text = ucx.status_text(status);
    if status == UCS_ERR_IO_ERROR {
        // cma has one answer for all that process_vm_writev can refuse.
        text.push_str(
            " (the peer's process has ended, forbids access to its memory, or has not mapped the address)",
        );
    }
    FabricError::new(super::NAME, call, kind(status), status.into(), text)
}

fn kind(status: ucs_status_t) -> FabricErrorKind {
    match status {
        UCS_ERR_NO_RESOURCE | UCS_ERR_NO_MEMORY | UCS_ERR_EXCEEDS_LIMIT | UCS_ERR_SHMEM_SEGMENT => {
            FabricErrorKind::NoResource
        }
        UCS_ERR_UNREACHABLE | UCS_ERR_NO_DEVICE | UCS_ERR_REJECTED => FabricErrorKind::Unreachable,
        UCS_ERR_INVALID_ADDR | UCS_ERR_OUT_OF_RANGE => FabricErrorKind::InvalidRegion,
        UCS_ERR_CANCELED => FabricErrorKind::Cancelled,
        UCS_ERR_TIMED_OUT => FabricErrorKind::Timeout,
        UCS_ERR_NOT_IMPLEMENTED | UCS_ERR_UNSUPPORTED => FabricErrorKind::Unsupported,
        UCS_ERR_IO_ERROR | UCS_ERR_NOT_CONNECTED | UCS_ERR_CONNECTION_RESET => FabricErrorKind::PeerLost,
        // Failures of links and of endpoints have ranges of their own.
        UCS_ERR_LAST_LINK_FAILURE..=UCS_ERR_FIRST_LINK_FAILURE
        | UCS_ERR_LAST_ENDPOINT_FAILURE..=UCS_ERR_FIRST_ENDPOINT_FAILURE => FabricErrorKind::PeerLost,
        _ => FabricErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_endpoints_are_lost_peers() {
        for status in [UCS_ERR_IO_ERROR, UCS_ERR_CONNECTION_RESET, UCS_ERR_ENDPOINT_TIMEOUT, -45] {
            assert_eq!(kind(status), FabricErrorKind::PeerLost, "{status}");
        }
        assert_eq!(kind(UCS_ERR_NO_MEMORY), FabricErrorKind::NoResource);
        assert_eq!(kind(UCS_ERR_INVALID_PARAM), FabricErrorKind::Internal);
    }
}
