//! How often each kind of fault has struck, so that none is dead without anybody knowing.

use std::fmt;
use std::ops::AddAssign;

use baton::fabric::sim::Struck;

use crate::wire::FramesStruck;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $text:literal),* $(,)?) => {
        /// A kind of fault, or of thing that a host does at a bad moment.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $kind),* }

        impl Kind {
            /// Every kind, in the table's order.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// What the table calls it.
            pub fn text(self) -> &'static str {
                match self { $(Self::$kind => $text),* }
            }
        }
    };
}

kinds!(
    FrameDelayed = "control frames delayed",
    FrameDropped = "control frame dropped",
    FrameDuplicated = "control frame duplicated",
    FrameReordered = "control frame reordered",
    DataOvertook = "data overtook control frames",
    Torn = "batch or frame torn",
    LandedLate = "write landed after deregistration",
    OperationFailed = "n-th fabric operation failed",
    QueueFull = "fabric queue full",
    CompletionsFull = "completion queue full",
    OutputFull = "control stream full",
    StreamCut = "control stream cut",
    LaneBroken = "lane broke",
    LaneStuck = "lane stuck",
    Crashed = "process crashed and restarted",
    MachineLost = "machine lost and restarted",
    OldBlob = "old blob replayed",
    PausedShort = "process paused, shorter than the peer deadline",
    PausedLong = "process paused, longer than the peer deadline",
    ClockJumped = "clock jumped ahead",
    Cancelled = "transfer cancelled",
    Invalidated = "peer invalidated with work in flight",
    Deregistered = "memory deregistered with work in flight",
    ShutDown = "agent shut down with work in flight",
    DialedAtOnce = "both sides dialed at once",
    Stalled = "stall of a transfer reported",
);

/// See the [module](self).
#[derive(Clone, Debug, Default)]
pub struct Coverage([u64; Kind::ALL.len()]);

impl Coverage {
    /// This kind has struck.
    pub fn strike(&mut self, kind: Kind) {
        self.0[kind as usize] += 1;
    }

    /// How often it has.
    pub fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// The same, with what streams and fabrics have counted, and the stalls that were reported.
    pub fn with(&self, frames: FramesStruck, fabric: Struck, stalls: usize) -> Self {
        let mut all = self.clone();
        for (kind, count) in [
            (Kind::FrameDelayed, frames.delayed),
            (Kind::FrameDropped, frames.dropped),
            (Kind::FrameDuplicated, frames.duplicated),
            (Kind::FrameReordered, frames.reordered),
            (Kind::DataOvertook, frames.overtaken),
            (Kind::OutputFull, frames.output_full),
            (Kind::Torn, fabric.torn),
            (Kind::LandedLate, fabric.landed_late),
            (Kind::OperationFailed, fabric.failed),
            (Kind::QueueFull, fabric.full),
            (Kind::CompletionsFull, fabric.completions_full),
            (Kind::Stalled, stalls as u64),
        ] {
            all.0[kind as usize] += count;
        }
        all
    }
}

impl AddAssign<&Self> for Coverage {
    fn add_assign(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, more)| *count += more);
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Kind::ALL.iter().try_for_each(|kind| writeln!(f, "  {:<48} {:>12}", kind.text(), self.of(*kind)))
    }
}
