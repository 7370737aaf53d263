//! Errors that more than one room speaks of. Errors of a single operation stand beside that operation.

use std::any::Any;

use thiserror::Error;

/// What went wrong inside a fabric. A fabric may not invent kinds: what differs goes in
/// [`FabricError::detail`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum FabricErrorKind {
    /// The machine or library has run out of something (descriptors, memory, sockets).
    #[error("out of resources")]
    NoResource,
    /// No way to the peer exists.
    #[error("unreachable")]
    Unreachable,
    /// The peer was there and is gone.
    #[error("peer lost")]
    PeerLost,
    /// An address outside every registered region, or a region key nobody gave.
    #[error("invalid region")]
    InvalidRegion,
    /// The operation was cancelled from this side.
    #[error("cancelled")]
    Cancelled,
    /// A deadline passed.
    #[error("timed out")]
    Timeout,
    /// This fabric, on this machine, cannot do that.
    #[error("unsupported")]
    Unsupported,
    /// A fault in Baton or in the library below it.
    #[error("internal error")]
    Internal,
}

/// A failure of a fabric: which fabric, doing what, with which native code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fabric}: {call}: {kind}{}{}", code_text(*code), detail_text(detail))]
pub struct FabricError {
    /// Name of the fabric.
    pub fabric: &'static str,
    /// The call that failed, as its library spells it.
    pub call: &'static str,
    /// Which of the fixed kinds this is.
    pub kind: FabricErrorKind,
    /// The native code (errno, ucs_status_t), 0 where there is none.
    pub code: i32,
    /// What a person needs beyond the kind: the library's own text, the address, what to do.
    pub detail: String,
}

impl FabricError {
    /// A failure with a native code and a text.
    pub fn new(
        fabric: &'static str,
        call: &'static str,
        kind: FabricErrorKind,
        code: i32,
        detail: impl Into<String>,
    ) -> Self {
        Self { fabric, call, kind, code, detail: detail.into() }
    }
}

fn code_text(code: i32) -> String {
    if code == 0 { String::new() } else { format!(" ({code})") }
}

fn detail_text(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

/// What a panic that was caught has said. The payload itself is not dropped: one whose drop panics would get past
/// whoever has caught it.
pub fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned());
    std::mem::forget(payload);
    text.unwrap_or_else(|| "a panic without a text".to_owned())
}
