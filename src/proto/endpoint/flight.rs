//! What is on its way for an endpoint: posted batches, copies, landing payloads.

use crate::desc::{PeerKey, RegionKey, TransferId};
use crate::proto::wire::StagingSlot;

use super::staging::SlotPair;

/// Something on its way: a posted batch or a landing payload.
#[derive(Debug)]
pub(super) struct Flight {
    pub peer: PeerKey,
    /// The lane that it is on.
    pub lane: usize,
    pub id: TransferId,
    pub chunk: u32,
    pub bytes: u64,
    pub kind: FlightKind,
    /// Our regions that it touches for the peer; for a transfer of ours, the transfer has them.
    pub regions: Vec<RegionKey>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlightKind {
    /// A batch we posted for a transfer of ours.
    OutgoingPost,
    /// The payload of an answer to a read of ours.
    AnswerLanding,
    /// A batch that pulls for the peer's write.
    PullPost,
    /// A batch that answers the peer's read.
    AnswerPost,
    /// The payload of the peer's write.
    WriteLanding,
    /// A copy that gathers a chunk of a transfer of ours into a slot of our own.
    Gather(SlotPair),
    /// A batch that writes what was gathered into a slot of the peer's.
    SlotWrite(SlotPair),
    /// A copy that scatters what the peer has written into a slot of ours.
    Scatter(StagingSlot),
}

impl FlightKind {
    /// Whether it is for a transfer of ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::OutgoingPost | Self::AnswerLanding | Self::Gather(_) | Self::SlotWrite(_))
    }
}
