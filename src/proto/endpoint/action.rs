//! What an endpoint answers with: things to do, places for payloads, refusals of commands.

use thiserror::Error;

use crate::desc::{MemoryKind, OpToken, PeerKey, Region, Segment, Span, TransferId, TransferOp};
use crate::proto::section::AnnouncedRegion;
use crate::proto::transfer::{Runs, TransferError};

/// What the owner of an endpoint has to do.
#[derive(Debug)]
pub enum Action {
    /// Connect every fabric that both sides have, then tell [`Endpoint::handle_lane`](super::Endpoint::handle_lane) of each.
    Link {
        /// Whom.
        peer: PeerKey,
        /// Unique to this stream.
        link_id: [u8; 16],
    },
    /// Tell the peer's fabrics of a region of the peer.
    Import {
        /// Whose region.
        peer: PeerKey,
        /// The region, with its keys.
        announced: AnnouncedRegion,
    },
    /// A region of the peer is gone.
    Withdraw {
        /// Whose region.
        peer: PeerKey,
        /// The region.
        region: Region,
    },
    /// Something that kept a revoked region of ours busy is over: whoever waits for that looks again, see
    /// [`Endpoint::region_is_busy`](super::Endpoint::region_is_busy).
    Quieter,
    /// Post a batch on a lane.
    Post {
        /// To whom.
        peer: PeerKey,
        /// Index into the lanes given at construction.
        lane: usize,
        /// Comes back through [`Endpoint::handle_completed`](super::Endpoint::handle_completed).
        token: OpToken,
        /// Read or write, for the fabric.
        op: TransferOp,
        /// What to move.
        segments: Vec<Segment>,
        /// For framed lanes.
        header: Vec<u8>,
    },
    /// Have the GPUs see what network cards have written to them: of this peer, or for it. It comes ahead of whatever
    /// tells somebody that the bytes are there. Where it fails, [`Endpoint::handle_unflushed`](super::Endpoint::handle_unflushed).
    Flush {
        /// Whose lane it is.
        peer: PeerKey,
    },
    /// Queue a message for our host.
    Deliver {
        /// Who sent it.
        peer: String,
        /// The message.
        message: Vec<u8>,
    },
    /// Everything that a transfer of ours moves by itself has been moved, and the peer is told so with this step: what is
    /// left is its acknowledgement. For those who watch; there is nothing to do.
    Committed {
        /// Which.
        id: TransferId,
    },
    /// A transfer of ours is over.
    Ended {
        /// Which.
        id: TransferId,
        /// How.
        outcome: Result<(), TransferError>,
    },
    /// The peer is ready for transfers.
    Up {
        /// Whom.
        peer: PeerKey,
    },
    /// The peer has been silent for so many milliseconds; it is not given up yet.
    Silent {
        /// Whom.
        peer: PeerKey,
        /// How long.
        silent_ms: u64,
    },
    /// A transfer stands still. It is told once for each time that it does; a transfer of ours is broken off only at
    /// the stall deadline.
    Stalled(Box<Stall>),
    /// Disconnect the peer's fabrics, close its stream once its output is written, then call
    /// [`Endpoint::handle_closed`](super::Endpoint::handle_closed).
    Close {
        /// Whom.
        peer: PeerKey,
        /// Why.
        reason: String,
    },
}

impl Action {
    /// Whether somebody may wait for what it says: those who wait for anything look again once it is carried out.
    pub fn wakes(&self) -> bool {
        matches!(self, Self::Quieter | Self::Deliver { .. } | Self::Ended { .. } | Self::Up { .. })
    }
}

/// What is known of a transfer that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// With whom.
    pub peer: PeerKey,
    /// The transfer, as its initiator numbers it.
    pub id: TransferId,
    /// Whether it is ours, or one of the peer's.
    pub is_ours: bool,
    /// Read or write, seen from its initiator.
    pub op: TransferOp,
    /// Index into the lanes given at construction.
    pub lane: Option<usize>,
    /// Where it stands.
    pub phase: &'static str,
    /// Chunks that are done, as far as this side can see.
    pub done: u32,
    /// Chunks in all, where this side knows that already.
    pub chunks: Option<u32>,
    /// The first chunks that are not done.
    pub missing: Runs,
    /// Chunks that are on their way.
    pub in_flight: u32,
    /// How long it has not come on.
    pub stalled_ms: u64,
}

/// Where the payload of an arrived data frame goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Over these spans; report the ticket when it is there.
    Scatter {
        /// For [`Endpoint::handle_landed`](super::Endpoint::handle_landed).
        ticket: u64,
        /// Where to.
        spans: Vec<Span>,
    },
    /// Nowhere.
    Discard,
}

/// A command that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// The name was never loaded, or has been invalidated.
    #[error("peer '{name}' is not loaded: call loadRemoteAgent first")]
    UnknownPeer {
        /// The name.
        name: String,
    },
    /// The peer was loaded and is gone.
    #[error("peer '{name}' was lost: {reason}; load it again to reconnect")]
    PeerLost {
        /// The name.
        name: String,
        /// Why.
        reason: String,
    },
    /// No lane to the peer can do this.
    #[error("no lane to peer '{name}' can {op} from or to its {remote} with our {local} ({reasons})")]
    NoLane {
        /// The name.
        name: String,
        /// What was wanted.
        op: TransferOp,
        /// The kind of our memory.
        local: MemoryKind,
        /// The kind of the peer's.
        remote: MemoryKind,
        /// What is wrong with each lane.
        reasons: String,
    },
    /// The peer has come back since the transfer was planned, and over other lanes.
    #[error("the lane that a transfer to peer '{name}' was planned for is gone ({reasons}); submit it again")]
    LaneGone {
        /// The name.
        name: String,
        /// What is wrong with each lane.
        reasons: String,
    },
    /// A bound was reached.
    #[error("peer '{name}' has {count} {what} already; wait for some to end")]
    TooMany {
        /// The name.
        name: String,
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A message longer than a frame.
    #[error("a message of {len_bytes} bytes for peer '{name}' is longer than the limit of {max_bytes}")]
    MessageTooLong {
        /// The name.
        name: String,
        /// Its length.
        len_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
}

/// Where a peer of some name stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No live stream.
    Absent,
    /// A stream is being set up.
    Connecting(PeerKey),
    /// Ready.
    Up(PeerKey),
}
