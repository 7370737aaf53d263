//! Errors of the agent's calls, one enum per operation: each says what failed, on whom, and what to do.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::config::SettingError;
use crate::desc::{Descriptor, MemoryKind};
use crate::error::FabricError;
use crate::proto::blob::BlobError;
use crate::proto::endpoint::{CommandError, PEERS_MAX};
use crate::proto::plan::PlanError;
use crate::proto::regions::RegionError;
use crate::proto::stock::CURE;
use crate::trust::TrustError;

use super::address::{AdvertiseError, ConnectionInfoError};
use super::foreign::Foreign;
use super::gpus::GpuFault;
use super::mappings::MemoryFault;

/// An agent cannot be created.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The name is empty or too long.
    #[error("cannot create agent '{name}': {reason}")]
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No address to tell peers.
    #[error("cannot create agent '{name}': {source}")]
    Address {
        /// The agent.
        name: String,
        /// Why.
        source: AdvertiseError,
    },
    /// A backend that was asked for by name is not to be had.
    #[error("cannot create agent '{name}': {source}")]
    Setting {
        /// The agent.
        name: String,
        /// Why.
        source: SettingError,
    },
    /// Every lane that was allowed is not to be had here.
    #[error("cannot create agent '{name}': no lane can be had ({reasons}); see BATON_LANES")]
    NoLane {
        /// The agent.
        name: String,
        /// Each lane with its reason.
        reasons: String,
    },
    /// The system refuses a socket, a thread or a handle.
    #[error("cannot create agent '{name}': {what}: {source}")]
    System {
        /// The agent.
        name: String,
        /// What was wanted.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Memory cannot be registered.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// A kind that no lane of this version carries.
    #[error(
        "registerMemory on agent '{agent}': {kind} memory is not supported (descriptor {index}, {descriptor}); DRAM and \
         VRAM are, and FILE through the loopback agent"
    )]
    UnsupportedKind {
        /// The agent.
        agent: String,
        /// The kind.
        kind: MemoryKind,
        /// Which descriptor.
        index: usize,
        /// The descriptor.
        descriptor: Descriptor,
    },
    /// The descriptor is not a span of memory.
    #[error("registerMemory on agent '{agent}': descriptor {index}: {source}")]
    BadRegion {
        /// The agent.
        agent: String,
        /// Which descriptor.
        index: usize,
        /// Why.
        source: RegionError,
    },
    /// There is no memory, or it may not be written.
    #[error("registerMemory on agent '{agent}': descriptor {index} ({descriptor}): {source}")]
    Memory {
        /// The agent.
        agent: String,
        /// Which descriptor.
        index: usize,
        /// The descriptor.
        descriptor: Descriptor,
        /// Why.
        source: MemoryFault,
    },
    /// It is not memory of a GPU that this process can use.
    #[error("registerMemory on agent '{agent}': descriptor {index} (VRAM {descriptor}): {source}")]
    Gpu {
        /// The agent.
        agent: String,
        /// Which descriptor.
        index: usize,
        /// The descriptor.
        descriptor: Descriptor,
        /// Why.
        source: Box<GpuFault>,
    },
    /// A fabric will not have it.
    #[error("registerMemory on agent '{agent}': descriptor {index} ({descriptor}): {source}")]
    Fabric {
        /// The agent.
        agent: String,
        /// Which descriptor.
        index: usize,
        /// The descriptor.
        descriptor: Descriptor,
        /// Why.
        source: FabricError,
    },
    /// The agent cannot be used any more.
    #[error(transparent)]
    NotRunning(#[from] NotRunning),
}

/// A peer cannot be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The blob cannot be read.
    #[error("cannot load agent '{peer}': {source}")]
    Blob {
        /// The name asked for.
        peer: String,
        /// Why.
        source: BlobError,
    },
    /// The blob is of somebody else.
    #[error("cannot load agent '{peer}': the blob is that of agent '{found}'")]
    OtherName {
        /// The name asked for.
        peer: String,
        /// The name in the blob.
        found: String,
    },
    /// An agent is not its own peer.
    #[error("cannot load agent '{peer}': that is this agent itself")]
    Oneself {
        /// The name.
        peer: String,
    },
    /// `connectionInfo` is not an address.
    #[error("cannot load agent '{peer}': {source}")]
    Address {
        /// The name asked for.
        peer: String,
        /// Why.
        source: ConnectionInfoError,
    },
    /// Nothing useful answers at the address.
    #[error("cannot load agent '{peer}' from {address}: {reason}")]
    Fetch {
        /// The name asked for.
        peer: String,
        /// Where.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// A side without Baton answers at the address.
    #[error("cannot load agent '{peer}' from {address}: {foreign} listens there: {CURE}")]
    Foreign {
        /// The name asked for.
        peer: String,
        /// Where.
        address: SocketAddr,
        /// What it is.
        foreign: Foreign,
    },
    /// The peer, or its blob, is not trusted, or does not trust us.
    #[error("cannot load agent '{peer}': {source}")]
    Trust {
        /// The peer.
        peer: String,
        /// Why, and what to do.
        source: TrustError,
    },
    /// None of the peer's endpoints can be reached.
    #[error("cannot connect to agent '{peer}': {attempts}")]
    Unreachable {
        /// The peer.
        peer: String,
        /// Each endpoint and what came of it.
        attempts: String,
    },
    /// The stream was up and went down before the handshake was over.
    #[error("cannot load agent '{peer}': {reason}")]
    Refused {
        /// The peer.
        peer: String,
        /// Why.
        reason: String,
    },
    /// The handshake was not over in time.
    #[error("cannot load agent '{peer}': no handshake within {limit_ms} ms; is its process alive?")]
    Timeout {
        /// The peer.
        peer: String,
        /// The deadline.
        limit_ms: u128,
    },
    /// Connected, but nothing can carry data.
    #[error("cannot load agent '{peer}': no lane in common ({reasons}); see BATON_LANES")]
    NoLane {
        /// The peer.
        peer: String,
        /// What is wrong with each lane.
        reasons: String,
    },
    /// There is no room for another peer.
    #[error(
        "cannot load agent '{peer}': this agent has {PEERS_MAX} peers already; invalidate those that are not needed"
    )]
    TooMany {
        /// The peer.
        peer: String,
    },
    /// The system refuses something on our side.
    #[error("cannot load agent '{peer}': {what}: {source}")]
    System {
        /// The peer.
        peer: String,
        /// What was wanted.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The agent cannot be used any more.
    #[error(transparent)]
    NotRunning(#[from] NotRunning),
}

impl LoadError {
    /// Whether the reason is that the other side does without Baton.
    pub fn is_mixed_pair(&self) -> bool {
        matches!(self, Self::Foreign { .. } | Self::Blob { source: BlobError::NoBaton { .. }, .. })
    }
}

/// A transfer cannot be submitted. Nothing has been written.
#[derive(Debug, Error)]
pub enum SubmitError {
    /// Every lane that carries such memory wants keys, and some region has none.
    #[error(
        "cannot {op} with agent '{peer}' from or to its {remote} with our {local}: some of that memory can be reached by \
         no lane in common; the log says why where it was registered"
    )]
    OutOfReach {
        /// Direction.
        op: crate::desc::TransferOp,
        /// The peer.
        peer: String,
        /// The kind of our memory.
        local: MemoryKind,
        /// The kind of the peer's.
        remote: MemoryKind,
    },
    /// The descriptors are not a transfer.
    #[error("cannot {op} with agent '{peer}': {source}")]
    Plan {
        /// Direction.
        op: crate::desc::TransferOp,
        /// The peer.
        peer: String,
        /// What is wrong.
        source: PlanError,
    },
    /// The peer, the lane or a bound.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The agent cannot be used any more.
    #[error(transparent)]
    NotRunning(#[from] NotRunning),
}

/// A notification cannot be sent.
#[derive(Debug, Error)]
pub enum NotifyError {
    /// The peer or a bound.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The agent cannot be used any more.
    #[error(transparent)]
    NotRunning(#[from] NotRunning),
}

/// The agent cannot be used any more; nothing but its destruction is left to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotRunning {
    /// It has been shut down.
    #[error("agent '{agent}' has been shut down")]
    ShutDown {
        /// The agent.
        agent: String,
    },
    /// A fault in Baton has ended it.
    #[error(
        "the engine of agent '{agent}' failed: {text}; this agent can no longer be used: destroy it and make another; \
         please report it with the log"
    )]
    Failed {
        /// The agent.
        agent: String,
        /// What the panic said.
        text: String,
    },
    /// This process was forked from the one that has the agent.
    #[error(
        "agent '{agent}' is in the process that this one was forked from; a forked child cannot use it: make an agent in \
         the child, or start it by spawn instead of fork"
    )]
    ForkedChild {
        /// The agent.
        agent: String,
    },
}
