//! The seam's values as the engine's: enums by number, lists without a loop, names as text.
#![allow(unsafe_code)]

use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use crate::agent::loopback::FileSpan;
use crate::agent::{AgentConfig, DescriptorList, Transfer, TransferError, TransferRequest, TransferState};
use crate::config::backend::{Backend, NixlChoice};
use crate::config::rendezvous::RendezvousSettings;
use crate::config::{self, EngineSettings, Environment};
use crate::connection::ConnectionsConfig;
use crate::desc::{Descriptor, MemoryKind, TransferOp};

use super::bridge::shared::{AgentSettings, File, Memory, Request};
use super::guard::SeamError;

// SAFETY: `Descriptor` is repr(C) with MemoryDesc's fields in MemoryDesc's order (u64, u64, u32), and neither
// has a destructor. Both sides assert 24 bytes with the fields at 0, 8 and 16: here below, and there in
// cpp/abi/transfer_agent.h.
unsafe impl cxx::ExternType for Descriptor {
    type Id = cxx::type_id!("tensorrt_llm::executor::kv_cache::MemoryDesc");
    type Kind = cxx::kind::Trivial;
}

const _: () = {
    assert!(size_of::<Descriptor>() == 24 && align_of::<Descriptor>() == 8);
    assert!(std::mem::offset_of!(Descriptor, addr) == 0);
    assert!(std::mem::offset_of!(Descriptor, len) == 8);
    assert!(std::mem::offset_of!(Descriptor, device) == 16);
};

/// A name that the host gave, as text.
pub fn text<'a>(field: &'static str, bytes: &'a [u8]) -> Result<&'a str, SeamError> {
    std::str::from_utf8(bytes)
        .map_err(|_| SeamError::NotText { field, text: bytes.escape_ascii().to_string() })
}

/// A list of descriptors.
pub fn descriptor_list<'a>(memory: &Memory<'a>) -> Result<DescriptorList<'a>, SeamError> {
    let kind = MemoryKind::from_wire(memory.kind)
        .ok_or(SeamError::BadValue { field: "memory type", value: memory.kind })?;
    Ok(DescriptorList { kind, descs: memory.descs.into() })
}

/// The libcuda that the environment names, for an agent that has no other settings.
pub fn cuda_library() -> Result<Option<PathBuf>, SeamError> {
    Ok(config::cuda_library(&Environment::from_process())?)
}

/// A transfer to submit.
pub fn transfer_request<'a>(request: &Request<'a>) -> Result<TransferRequest<'a>, SeamError> {
    let op = match request.op {
        0 => TransferOp::Read,
        1 => TransferOp::Write,
        value => return Err(SeamError::BadValue { field: "transfer operation", value }),
    };
    Ok(TransferRequest {
        op,
        local: descriptor_list(&request.local)?,
        remote: descriptor_list(&request.remote)?,
        peer: text("name of the remote agent", request.peer)?.to_owned(),
        sync_message: request.has_message.then(|| request.message.to_vec()),
    })
}

/// The files of a loopback request.
pub fn file_spans(files: &[File]) -> Vec<FileSpan> {
    files.iter().map(|file| FileSpan { fd: file.fd, len: file.len }).collect()
}

/// The engine's configuration: the host's, and the environment's.
///
/// The host's tuning for NIXL's own plugins means nothing here; each kind of it is named in the log.
pub fn agent_config(settings: &AgentSettings<'_>) -> Result<AgentConfig, SeamError> {
    let name = text("agent name", settings.name)?.to_owned();
    if !settings.backend_params.is_empty() {
        let params = settings.backend_params.join(", ");
        // Not a warning: the host's Python runtime passes its thread count to every agent it makes.
        tracing::info!(agent = name, params, "backend parameters of the host have no meaning for Baton");
    }
    if settings.bounce_buffer_mib > 0 {
        let size_mib = settings.bounce_buffer_mib;
        tracing::info!(
            agent = name,
            size_mib,
            "the host asks for a bounce buffer, which Baton does not need"
        );
    }
    let backend = if settings.is_nixl { Backend::Nixl } else { Backend::Mooncake };
    Ok(AgentConfig { name, settings: engine_settings(backend)? })
}

/// The configuration of a rank's connections: all of it is the environment's.
pub fn connections_config(name: String) -> Result<ConnectionsConfig, SeamError> {
    let settings = engine_settings(Backend::Ucx)?;
    let rendezvous = RendezvousSettings::from_environment(&Environment::from_process())?;
    Ok(ConnectionsConfig { name, settings, rendezvous })
}

/// What the environment says: its warnings once per process, and for an agent under NIXL's name the line that
/// operators look for.
fn engine_settings(backend: Backend) -> Result<EngineSettings, SeamError> {
    static WARNED: Once = Once::new();
    let environment = Environment::from_process();
    let parsed = EngineSettings::from_environment(&environment, backend);
    if let Ok((_, warnings)) = &parsed {
        WARNED.call_once(|| warnings.iter().for_each(|warning| tracing::warn!("{warning}")));
    }
    if backend == Backend::Nixl {
        // Also ahead of a backend that then cannot be created, as the stock agent has it.
        tracing::info!("{}", NixlChoice::from_environment(&environment)?.log_line());
    }
    Ok(parsed?.0)
}

/// Where a transfer stands, as the value of NIXL's `nixl_status_t` that says it best. Hosts log it; nothing is
/// decided by it.
pub fn status_code(transfer: &Transfer) -> i32 {
    match (transfer.state(), transfer.error()) {
        (TransferState::Success, _) => SUCCESS,
        (TransferState::InProgress, _) => IN_PROGRESS,
        (TransferState::Failure, error) => error.as_ref().map_or(ERR_UNKNOWN, error_code),
    }
}

fn error_code(error: &TransferError) -> i32 {
    match error {
        TransferError::PeerLost(_) => ERR_REMOTE_DISCONNECT,
        TransferError::Remote(_)
        | TransferError::Local(_)
        | TransferError::Stalled { .. }
        | TransferError::EngineFailed(_) => ERR_BACKEND,
        TransferError::Cancelled
        | TransferError::Invalidated
        | TransferError::Deregistered
        | TransferError::Shutdown => ERR_CANCELED,
    }
}

// nixl_types.h of NIXL 1.x; the values up to -10 are also those of 0.x.
const IN_PROGRESS: i32 = 1;
const SUCCESS: i32 = 0;
const ERR_BACKEND: i32 = -3;
const ERR_UNKNOWN: i32 = -8;
const ERR_REMOTE_DISCONNECT: i32 = -10;
const ERR_CANCELED: i32 = -11;

/// The timeout of `wait`: negative means none.
pub fn timeout(timeout_ms: i64) -> Option<Duration> {
    u64::try_from(timeout_ms).ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(kind: u8, descs: &[Descriptor]) -> Memory<'_> {
        Memory { kind, descs }
    }

    #[test]
    fn unknown_values_are_named() {
        let text = descriptor_list(&memory(5, &[])).unwrap_err().to_string();
        assert!(text.starts_with("memory type has the value 5"), "{text}");
        let request = Request {
            op: 2,
            local: memory(0, &[]),
            remote: memory(0, &[]),
            peer: b"gen0",
            has_message: false,
            message: &[],
        };
        let text = transfer_request(&request).unwrap_err().to_string();
        assert!(text.starts_with("transfer operation has the value 2"), "{text}");
    }

    #[test]
    fn empty_message_is_not_no_message() {
        let mut request = Request {
            op: 1,
            local: memory(0, &[]),
            remote: memory(1, &[]),
            peer: b"gen0",
            has_message: true,
            message: &[],
        };
        assert_eq!(transfer_request(&request).unwrap().sync_message, Some(vec![]));
        request.has_message = false;
        assert_eq!(transfer_request(&request).unwrap().sync_message, None);
    }

    #[test]
    fn names_have_to_be_text() {
        let error = text("agent name", b"ctx\xff").unwrap_err();
        assert_eq!(error.to_string(), "agent name is not valid UTF-8: ctx\\xff");
    }

    #[test]
    fn negative_timeouts_mean_none() {
        assert_eq!(timeout(-1), None);
        assert_eq!(timeout(i64::MIN), None);
        assert_eq!(timeout(0), Some(Duration::ZERO));
        assert_eq!(timeout(250), Some(Duration::from_millis(250)));
    }
}
