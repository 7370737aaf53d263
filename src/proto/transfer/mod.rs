//! The two ends of a transfer: [`Outgoing`] at the agent that submitted it, [`Incoming`] at its peer.
//!
//! Both are small state machines with one transition table each ([`OutgoingPhase::on`],
//! [`IncomingPhase::on`]). They count chunks and decide what is due; they send nothing and move nothing.
//!
//! ```text
//!  outgoing   Moving --all moved--> Committing --acked--> Settling --quiet--> Over
//!                |                      |
//!                +------- broken -------+--> Draining --quiet--> Aborting --aborted--> Over
//!
//!  incoming   Receiving --whole and committed--> Over (ACK)
//!                |
//!                +-- fault --> Failed (FAIL) --abort--> Closing --quiet--> Over (ABORTED)
//!                +-------------- abort ---------------^
//! ```
//!
//! An ACK that crosses a break-off still counts: everything is in place, so the transfer has succeeded. No ABORTED
//! comes then, even if ABORT was out: the peer is done with the transfer, and answers with the ACK again.
//!
//! Every transfer ends with ACK or ABORTED, or with its link.

mod chunks;
mod ended;
mod incoming;
mod outgoing;
mod progress;
mod runs;

use thiserror::Error;

use crate::desc::TransferOp;

pub use chunks::ChunkSet;
pub use ended::{End, EndedIds};
pub use incoming::{Committed, Incoming, IncomingEvent, IncomingPhase};
pub use outgoing::{Outgoing, OutgoingEvent, OutgoingPhase};
pub use progress::{ASK_AFTER, ASK_EVERY, Progress, STALL_REPORTED};
pub use runs::{RUNS_MAX, Run, Runs};

/// Who moves the bytes of a transfer, and so what "issuing a chunk" means to its initiator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mover {
    /// We post one-sided operations; their completion is arrival.
    Native,
    /// We post frames that the peer lands (a write over a framed lane).
    Framed,
    /// The peer pulls from our memory (a write over a lane that only reads).
    Pulled,
    /// The peer sends frames that we land (a read over a framed lane).
    Answered,
    /// We gather chunks and write each into a staging slot of the peer's, which scatters it (a write of many small pieces
    /// over a lane on which we write).
    Gathered,
}

impl Mover {
    /// Who moves an operation on a lane with these abilities, or `None` where nobody can.
    pub fn choose(op: TransferOp, native_read: bool, native_write: bool, framed: bool) -> Option<Self> {
        match op {
            TransferOp::Write if native_write => Some(Self::Native),
            TransferOp::Read if native_read => Some(Self::Native),
            TransferOp::Write if framed => Some(Self::Framed),
            TransferOp::Read if framed => Some(Self::Answered),
            TransferOp::Write if native_read => Some(Self::Pulled),
            _ => None,
        }
    }

    /// Whether the responder has to land chunks before it may acknowledge.
    pub fn responder_counts(self) -> bool {
        matches!(self, Self::Framed | Self::Pulled | Self::Gathered)
    }
}

/// Why a transfer did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransferError {
    /// The peer is gone.
    #[error("peer lost: {0}")]
    PeerLost(String),
    /// The peer refused or failed it.
    #[error("the peer failed it: {0}")]
    Remote(String),
    /// Our own side failed to move the bytes.
    #[error("moving the bytes failed: {0}")]
    Local(String),
    /// Released before its end.
    #[error("cancelled by release()")]
    Cancelled,
    /// The host invalidated the peer.
    #[error("cancelled because the peer was invalidated")]
    Invalidated,
    /// A region that it uses was deregistered.
    #[error("cancelled because memory it uses was deregistered")]
    Deregistered,
    /// The agent was shut down.
    #[error("cancelled because the agent was shut down")]
    Shutdown,
    /// A fault in Baton has ended the agent.
    #[error("the engine of this agent failed: {0}; please report it with the log")]
    EngineFailed(String),
    /// Nothing moved for the stall deadline.
    #[error("no progress for {seconds} s: {landed} of {chunks} chunks done, {in_flight} in flight")]
    Stalled {
        /// Deadline that passed, in seconds.
        seconds: u64,
        /// Chunks finished.
        landed: u32,
        /// Chunks in all.
        chunks: u32,
        /// Chunks on their way.
        in_flight: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movers_follow_the_lane() {
        use TransferOp::{Read, Write};
        assert_eq!(Mover::choose(Write, true, true, false), Some(Mover::Native));
        assert_eq!(Mover::choose(Write, true, false, false), Some(Mover::Pulled));
        assert_eq!(Mover::choose(Read, true, false, false), Some(Mover::Native));
        assert_eq!(Mover::choose(Write, false, false, true), Some(Mover::Framed));
        assert_eq!(Mover::choose(Read, false, false, true), Some(Mover::Answered));
        assert_eq!(Mover::choose(Read, false, true, false), None);
    }
}
