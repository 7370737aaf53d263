//! Leases of staging slots: who may write into which piece of a receiver's staging memory, and until when.
//!
//! The owner of the memory ([`Pool`]) grants a slot to one session for one request; the sender ([`Holdings`]) writes
//! into it once, and either vouches for what it wrote (COMMIT) or says that nothing of it is under way (REVOKED).
//!
//! ```text
//!  owner (decoder)                                     sender (prefill)
//!  Free --grant--> Granted  ------ GRANT ------------> Held --use--> Writing ==one-sided writes==>
//!                     |     <----- COMMIT ------------ Committed <--flushed-- Flushing
//!                  Sealed --drained--> Free
//!
//!  Granted --cancel, deadline--> Revoking -- REVOKE -> Revoked --flushed--> Returned
//!             Free <----------------------- REVOKED ----------------------------'
//!  Granted, Revoking --no proof in time--> Quarantined --proof--> Free
//!  Free --its last generation is used up--> Retired
//! ```
//!
//! # Invariants
//! * A slot that is granted is given again only after a proof that no write of that lease can land any more: a
//!   COMMIT or REVOKED of its session and generation, or [`Pool::handle_quiet`], the fabric's word. The end of a process
//!   is no such proof. Without one the slot is quarantined, alone.
//! * A generation of a slot is granted once; 0 is never granted, and a slot whose generation is `u32::MAX` retires.
//! * Granted + free + sealed + revoking + quarantined + retired = all ([`Tally`]).
//! * Every lease ends once at its owner: [`Action::Sealed`] or [`Action::Lost`].
//! * A sender says COMMIT or REVOKED only when none of its operations on that slot is in flight, and posts none after.
//!
//! # A wire that loses
//! Nothing here trusts the order of messages, nor that one arrives, nor that it arrives once. GRANT and REVOKE are
//! said again until they are answered; a sender answers each as often as it comes; what is late, duplicate, of another session
//! or of another generation changes nothing and is counted ([`Dropped`]).
//!
//! # What this is not
//! No thread, no clock (`now` is an argument), no memory. Gathered transfers use it
//! ([`endpoint`](super::endpoint)'s `staging`), with leases that last as long as a stream, and messages that are its events, which
//! come once and in order; so nothing is said again there. The engine's own transceiver, which is not part of the tree yet,
//! will lend slots for one request at a time.

mod holder;
mod lease;
mod outcome;
mod pool;
mod waiters;

use std::fmt;

pub use holder::{HolderEvent, HolderPhase, Holdings};
pub use lease::{SlotEvent, SlotPhase, Tally};
pub use outcome::{Action, Admission, Health, Loss, PoolError, PoolLimits};
pub use pool::Pool;

/// Slots that a pool may have; an index beyond it is no slot of anybody's.
pub const SLOTS_MAX: u32 = 1 << 16;

/// A request of the host's, as both sides know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One lease of one slot: the same slot under another generation is another lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    /// Which slot of its owner's pool.
    pub index: u32,
    /// Counts the leases of that slot; 0 is none.
    pub generation: u32,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {} (generation {})", self.index, self.generation)
    }
}

/// What an owner says to a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToHolder {
    /// GRANT: the slot is yours for this request. Said again, it asks what became of it.
    Grant {
        /// The lease.
        slot: Slot,
        /// What it is for.
        request: RequestId,
    },
    /// REVOKE: post nothing more into it, and say when nothing is under way.
    Revoke {
        /// The lease.
        slot: Slot,
    },
}

/// What a sender says to an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToOwner {
    /// COMMIT: the first `bytes` bytes are in place; nothing is under way and nothing will follow.
    Commit {
        /// The lease.
        slot: Slot,
        /// Bytes in place, from the start of the slot.
        bytes: u64,
    },
    /// REVOKED: nothing is under way and nothing will follow; what is in the slot is worth nothing.
    Revoked {
        /// The lease.
        slot: Slot,
    },
}

/// Messages that changed nothing, by why. All are harmless; many of them tell of a peer that misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Of a session that does not hold this lease, or is not known.
    pub wrong_session: u64,
    /// Of a generation that is over, or was never granted.
    pub wrong_generation: u64,
    /// Of a slot that does not exist.
    pub no_such_slot: u64,
    /// Late, duplicate, or not possible where the lease stands.
    pub out_of_phase: u64,
}

#[cfg(test)]
mod tests;
