//! Tagged messages between two ends that both know their buffers: what seam S3 is made of, sans-IO.
//!
//! A *connection* joins two processes; one end asked for it (requester), the other took it (acceptor). Per
//! connection, direction and tag there is a *stream* of messages. The n-th message of a stream goes to the n-th
//! receive on it, whichever of the two comes first.
//!
//! ```text
//!   sender                                   receiver
//!     |                                         | recv(tag, buffer)
//!     |<-- Announce {seen, buffer} -------------|   ahead of the message where it is long
//!   send(tag, data)                             |
//!     |--- Offer {length} ----------------------|-> pairs with the receive, in order
//!     |=== one-sided write, Done with it ======>|   receive is over
//!     |
//!   send(tag, short) --- Eager {bytes} -------->|   whole, within a window of credit
//! ```
//!
//! An announcement that is made ahead must be met by the message that its receive will be paired with, and by no
//! later one. Both ends count the messages of a connection; an announcement says how many its maker had seen, and
//! the sender knows what of that tag it has sent since: if that is a short message, or an offer that was taken
//! back, the announcement is stale and is dropped. At most one announcement of a stream is out at a time, that of
//! its oldest receive.
//!
//! Nothing is kept of a stream that has neither messages nor receives: tags are as many as requests.
//!
//! # Cancelling
//! A receive whose buffer has been announced ends by a word of the sender alone: Done, Failed or Withdrawn.
//! Each of them means that no byte will land any more. A send that has not been matched is retracted; one that
//! has been ends with its transfer, and the receiver is told which way.
//!
//! # What this is not
//! No threads, no clock, no agent: [`sending::Sends`] and [`receiving::Receives`] hold the two halves of all
//! connections of one process, are driven by `handle_*` and commands, and say what to send by return values.

pub mod message;
pub mod receiving;
pub mod sending;

use thiserror::Error;

/// One end of a connection, as this process numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// What a host matches messages by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub i32);

/// A send, as its process numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SendId(pub u64);

/// A receive, as its process numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecvId(pub u64);

/// Who asked for a connection. Two processes may have one in each direction; their messages do not mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// This end connected.
    Requester = 0,
    /// This end was connected to.
    Acceptor = 1,
}

impl Role {
    /// That of the other end.
    pub fn other(self) -> Self {
        match self {
            Self::Requester => Self::Acceptor,
            Self::Acceptor => Self::Requester,
        }
    }
}

/// Longest message that travels whole, instead of being written into an announced buffer.
pub const EAGER_MAX_BYTES: u64 = 8 << 10;
/// Eager bytes of one connection that may be under way or not yet received; beyond that messages are offered.
pub const EAGER_WINDOW_BYTES: u32 = 1 << 20;
/// What an eager message costs of the window beside its bytes.
pub const EAGER_OVERHEAD_BYTES: u32 = 64;
/// Messages of one connection that may wait for a receive. More is a peer that does not keep to the rules.
pub const UNRECEIVED_MAX: usize = 1 << 16;

/// Messages after which a receiver says how many it has seen, if nothing else has said it.
pub const SEEN_EVERY: u64 = 256;

/// Buffers that may be announced to a process and wait for their message.
pub const ANNOUNCED_MAX: usize = 1 << 17;

/// A peer sends more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overrun;

/// What of the window an eager message of this length takes. Nothing where it is empty: there is no buffer that
/// it could be written into instead.
pub fn eager_cost(len: usize) -> u32 {
    match len {
        0 => 0,
        len => len as u32 + EAGER_OVERHEAD_BYTES, // never above EAGER_MAX_BYTES and the overhead
    }
}

/// Why a message did not arrive, as both ends are told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MessageError {
    /// The two lengths differ; neither buffer was touched.
    #[error(
        "the sender sends {sent} bytes, the receiver expects {expected}: the two sides do not agree on the layout \
         of the KV cache or on the request"
    )]
    Length {
        /// Length of the message.
        sent: u64,
        /// Length of the receive.
        expected: u64,
    },
    /// This side's host cancelled.
    #[error("it was cancelled by its host")]
    Cancelled,
    /// The other side gave up.
    #[error("the peer gave up: {reason}")]
    Peer {
        /// In its words.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
