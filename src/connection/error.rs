//! Errors of connections, one enum per operation: each says what failed, with whom, and what to do.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::agent::address::ConnectionInfoError;
use crate::agent::{CreateError, LoadError, NotRunning, NotifyError};
use crate::proto::tagged::{MessageError, Tag};

use super::memory::Access;
use super::rendezvous::RendezvousError;

/// The connections of a rank cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// No agent.
    #[error(transparent)]
    Agent(#[from] CreateError),
    /// The ranks did not meet.
    #[error(transparent)]
    Rendezvous(#[from] RendezvousError),
    /// A rank has told nonsense.
    #[error("rank {rank} says that it listens at '{text}': {source}; do all ranks run this library?")]
    Address {
        /// The rank.
        rank: usize,
        /// What it said.
        text: String,
        /// What is wrong with it.
        source: ConnectionInfoError,
    },
    /// The system refuses a thread.
    #[error("cannot start the thread that serves connections: {0}")]
    Thread(io::Error),
}

/// A connection cannot be made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address is this rank's own.
    #[error(
        "cannot connect to {address}: that is this rank itself; connect to the ranks of the other instance"
    )]
    Oneself {
        /// Where.
        address: SocketAddr,
    },
    /// The agent there cannot be loaded.
    #[error("cannot connect to {address}: {source}")]
    Load {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: Box<LoadError>,
    },
    /// It was lost at once.
    #[error("cannot connect to {address}: {source}")]
    Introduce {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: NotifyError,
    },
    /// More than can be kept.
    #[error("cannot connect to {address}: too many connections have been made; restart this process")]
    TooMany {
        /// Where.
        address: SocketAddr,
    },
    /// This process cannot use it.
    #[error("cannot connect to {address}: {source}")]
    NotRunning {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: NotRunning,
    },
    /// It is being closed.
    #[error("cannot connect to {address}: the connections of this rank have been closed")]
    Closed {
        /// Where.
        address: SocketAddr,
    },
}

/// A message did not get through. Its memory is not touched any more.
#[derive(Debug, Error)]
#[error("{what} with tag {} {peer}: {source}", tag.0)]
pub struct MessageFailure {
    /// "sending 5 bytes", "receiving 5 bytes".
    pub what: String,
    /// The tag.
    pub tag: Tag,
    /// "to 'name'", "from 'name'", "from anybody".
    pub peer: String,
    /// Why.
    pub source: Cause,
}

impl MessageFailure {
    /// Whether it is only that this side's host has cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.source, Cause::Message(MessageError::Cancelled))
    }
}

/// Why a message did not get through.
#[derive(Debug, Error)]
pub enum Cause {
    /// The two ends do not agree, or one has cancelled.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The peer is gone.
    #[error("the connection is lost: {0}")]
    Lost(String),
    /// The bytes could not be moved.
    #[error("{0}")]
    Transfer(String),
    /// Its memory cannot be registered.
    #[error("{0}")]
    Memory(String),
    /// Its memory is none that the processor can reach.
    #[error(
        "the memory at {addr:#x} cannot be {access}: it is not mapped for that, or it is GPU memory, which this \
         version does not carry at this seam"
    )]
    Unreachable {
        /// Where.
        addr: u64,
        /// What was wanted of it.
        access: Access,
    },
    /// The handle is none of this rank's.
    #[error("there is no such connection: it was made by another manager")]
    Unknown,
    /// This process cannot use it.
    #[error(transparent)]
    NotRunning(#[from] NotRunning),
    /// It is being closed.
    #[error("the connections of this rank have been closed")]
    Closed,
}
