//! Why a transfer cannot be planned: texts for the host's log, each with the way out.

use thiserror::Error;

use super::super::regions::Miss;
use super::{MAX_DESCRIPTORS, MAX_SEGMENTS, Party};
use crate::desc::{Descriptor, MemoryKind};

/// Why a transfer cannot be planned. Everything here is the caller's to mend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// There is nothing to do.
    #[error("the transfer names no memory, both descriptor lists are empty: pass at least one descriptor")]
    Empty,
    /// The lists cannot be paired.
    #[error(
        "{local} local descriptors but {remote} remote ones: they are paired one to one, pass as many of each"
    )]
    CountsDiffer {
        /// Local descriptors.
        local: usize,
        /// Remote descriptors.
        remote: usize,
    },
    /// The lists are too long.
    #[error("{count} descriptors are more than one transfer may have ({MAX_DESCRIPTORS}): split it")]
    TooMany {
        /// Descriptors in each list.
        count: usize,
    },
    /// The bytes are too many for one plan.
    #[error("descriptor {index} takes the transfer past {MAX_SEGMENTS} chunks: split it into several")]
    TooLarge {
        /// The descriptor that went too far.
        index: usize,
    },
    /// A pair differs in length.
    #[error("descriptor {index}: local {local} and remote {remote} differ in length: a pair is one copy")]
    LengthsDiffer {
        /// Which pair.
        index: usize,
        /// Its local half.
        local: Descriptor,
        /// Its remote half.
        remote: Descriptor,
    },
    /// A descriptor has no bytes.
    #[error("{party} descriptor {index} ({descriptor}) has zero length: leave the pair out")]
    ZeroLength {
        /// Which one.
        index: usize,
        /// Whose.
        party: Party,
        /// What it says.
        descriptor: Descriptor,
    },
    /// A descriptor leaves the address space.
    #[error(
        "{party} descriptor {index} ({descriptor}) runs past the end of the address space: check its length"
    )]
    Wraps {
        /// Which one.
        index: usize,
        /// Whose.
        party: Party,
        /// What it says.
        descriptor: Descriptor,
    },
    /// A descriptor is not in a registered region.
    #[error(
        "{party} descriptor {index} ({kind} {descriptor}) is not inside one registered region: {miss}; {}",
        advice(*party)
    )]
    OutsideRegion {
        /// Which one.
        index: usize,
        /// Whose.
        party: Party,
        /// Kind of memory.
        kind: MemoryKind,
        /// What it says.
        descriptor: Descriptor,
        /// What is there instead.
        miss: Miss,
    },
}

fn advice(party: Party) -> &'static str {
    match party {
        Party::Local => "register the memory with this agent first",
        Party::Remote => "register the memory on the peer, then load the peer's metadata again",
    }
}
