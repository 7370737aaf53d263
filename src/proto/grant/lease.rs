//! A slot at its owner: the table of what may follow what, and the counts that must add up.

use crate::proto::transition::{named, table};

named!(
    /// Where a slot of the pool stands.
    SlotPhase {
        /// Nobody may write to it.
        Free,
        /// Leased: writes may land.
        Granted,
        /// The lease was called back; the proof that no write is under way is awaited.
        Revoking,
        /// Committed: what is in it is being read.
        Sealed,
        /// No proof came in time: writes may land for ever, so nobody gets it.
        Quarantined,
        /// Every generation has been used.
        Retired,
    }
);

named!(
    /// What happens to a slot.
    SlotEvent {
        /// It is leased, under the next generation.
        Grant,
        /// COMMIT of this lease.
        Committed,
        /// Its owner takes the lease back.
        Cancelled,
        /// REVOKED of this lease.
        Returned,
        /// The proof did not come in time, or cannot come any more.
        Unproved,
        /// The fabric says that no write of this session can land any more.
        Quiet,
        /// What was in it has been read.
        Drained,
        /// There is no further generation.
        WornOut,
    }
);

// Once called back, a lease stays called back: a COMMIT that crosses the REVOKE is a proof, and nothing else.
table!(SlotPhase, SlotEvent {
    Grant: { Free => Granted },
    Committed: { Granted => Sealed, Revoking => Free, Quarantined => Free },
    Cancelled: { Granted => Revoking },
    Returned: { Granted => Free, Revoking => Free, Quarantined => Free },
    Unproved: { Granted => Quarantined, Revoking => Quarantined },
    Quiet: { Granted => Free, Revoking => Free, Quarantined => Free },
    Drained: { Sealed => Free },
    WornOut: { Free => Retired },
});

/// How many slots stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: [u32; SlotPhase::ALL.len()],
}

impl Tally {
    /// That of a pool of free slots.
    pub fn of_free(slots: u32) -> Self {
        let mut tally = Self::default();
        tally.counts[SlotPhase::Free as usize] = slots;
        tally
    }

    /// Slots in this phase.
    pub fn of(&self, phase: SlotPhase) -> u32 {
        self.counts[phase as usize]
    }

    /// All slots, whatever their phase.
    pub fn all(&self) -> u32 {
        self.counts.iter().sum()
    }

    /// One slot goes from a phase to another.
    pub(super) fn step(&mut self, from: SlotPhase, to: SlotPhase) {
        self.counts[from as usize] -= 1;
        self.counts[to as usize] += 1;
    }
}
