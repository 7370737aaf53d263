//! The transfer agent: what seams S1 and S2 are made of. (skeleton: the public API, body to come)

use crate::desc::{Descriptor, MemoryKind, TransferOp};
use std::time::Duration;

/// How an agent is set up.
#[derive(Clone, Debug)]
pub struct AgentConfig {
    /// Its name, unique among its peers.
    pub name: String,
}
/// Where a transfer stands. Values are those of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TransferState {
    /// Still moving.
    InProgress = 0,
    /// Every byte acknowledged.
    Success = 1,
    /// Failed.
    Failure = 2,
}
/// A list of descriptors of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptorList {
    /// Kind of all of them.
    pub kind: MemoryKind,
    /// The descriptors.
    pub descs: Vec<Descriptor>,
}
/// What to move.
#[derive(Clone, Debug)]
pub struct TransferRequest {
    /// Direction.
    pub op: TransferOp,
    /// Ours.
    pub local: DescriptorList,
    /// The peer's.
    pub remote: DescriptorList,
    /// The peer's name.
    pub peer: String,
    /// Delivered after the data, once.
    pub sync_message: Option<Vec<u8>>,
}
/// Any error of the agent's calls.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct AgentError(pub String);
/// A transfer agent. All methods take `&self` and may be called from several threads.
#[derive(Debug)]
pub struct Agent;
/// A submitted transfer. Dropping an unfinished one cancels it with a bounded drain.
#[derive(Debug)]
pub struct Transfer;
#[allow(missing_docs, unused_variables)]
impl Agent {
    pub fn new(config: AgentConfig) -> Result<Self, AgentError> {
        todo!()
    }
    pub fn name(&self) -> &str {
        todo!()
    }
    /// # Safety
    /// The memory stays mapped until deregistered.
    #[allow(unsafe_code)]
    pub unsafe fn register(&self, list: &DescriptorList) -> Result<(), AgentError> {
        todo!()
    }
    pub fn deregister(&self, list: &DescriptorList) {
        todo!()
    }
    pub fn local_blob(&self) -> Vec<u8> {
        todo!()
    }
    pub fn connection_info(&self) -> String {
        todo!()
    }
    pub fn load_blob(&self, name: &str, blob: &[u8]) -> Result<(), AgentError> {
        todo!()
    }
    pub fn load_from(&self, name: &str, connection_info: &str) -> Result<(), AgentError> {
        todo!()
    }
    pub fn invalidate(&self, name: &str) {
        todo!()
    }
    pub fn submit(&self, request: &TransferRequest) -> Result<Transfer, AgentError> {
        todo!()
    }
    pub fn notify(&self, peer: &str, message: &[u8]) -> Result<(), AgentError> {
        todo!()
    }
    pub fn take_notifications(&self) -> Vec<(String, Vec<Vec<u8>>)> {
        todo!()
    }
    pub fn check_remote(&self, name: &str, list: &DescriptorList) -> bool {
        todo!()
    }
    pub fn shutdown(&self) {
        todo!()
    }
}
#[allow(missing_docs, unused_variables)]
impl Transfer {
    pub fn state(&self) -> TransferState {
        todo!()
    }
    /// None waits until the end, a peer's death, or 30 s without progress.
    pub fn wait(&self, timeout: Option<Duration>) -> TransferState {
        todo!()
    }
    /// Why it failed; empty unless it did.
    pub fn error_text(&self) -> String {
        todo!()
    }
    /// Cancels if unfinished; true once no byte can land any more.
    pub fn release(&self) -> bool {
        todo!()
    }
}
