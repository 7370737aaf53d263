//! How often each fault of a net has struck, so that a test sees that none is dead.

use std::ops::AddAssign;

/// How often each fault of a net has struck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Struck {
    /// Batches and frames that were cut off with some of their bytes in place.
    pub torn: u64,
    /// Pieces that landed in memory that its owner had deregistered.
    pub landed_late: u64,
    /// Operations that failed because they were the n-th.
    pub failed: u64,
    /// Batches that were handed back for want of room.
    pub full: u64,
    /// Polls in which nothing moved to a peer for want of room for its completions.
    pub completions_full: u64,
}

impl AddAssign for Struck {
    fn add_assign(&mut self, other: Self) {
        self.torn += other.torn;
        self.landed_late += other.landed_late;
        self.failed += other.failed;
        self.full += other.full;
        self.completions_full += other.completions_full;
    }
}
