//! Bugs on purpose, one line each at the place where somebody could make them, so that the simulation can prove that it would
//! find them.
//!
//! Only the feature `planted` makes them possible, and it cannot be switched on in a release build. Without it [`is`] is a
//! constant `false`, and nothing of this is in the library. With it, `plant` switches one bug on, for the
//! thread that calls it, until its guard is dropped. `cargo test --features planted --test simulation planted` runs them all.
//!
//! What this is not: a way to inject faults. Faults come from the world outside (`tests/simulation`); these are ours.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("the feature `planted` is for tests of the simulation: it has no place in a release build");

macro_rules! bugs {
    ($($(#[$doc:meta])* $bug:ident),* $(,)?) => {
        /// A bug that can be switched on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Planted { $($(#[$doc])* $bug),* }

        impl Planted {
            /// Every bug.
            pub const ALL: &'static [Self] = &[$(Self::$bug),*];
        }
    };
}

bugs!(
    /// COMMIT is acknowledged as soon as nothing is landing, whatever is missing.
    AckWithoutCoverage,
    /// ABORT is answered while chunks are landing.
    AbortedBeforeQuiet,
    /// COMMIT of one-sided writes is said when all are posted.
    CommitBeforeFlush,
    /// A transfer that is broken off ends while operations of ours are in flight.
    EndBeforeDrain,
    /// A cancelled transfer ends without a word to the peer.
    AbortUnsaid,
    /// A transfer that is broken off does not wait for ABORTED.
    AbortUnanswered,
    /// The second chunk of a transfer is not issued.
    ChunkSkipped,
    /// The number of a transfer wraps after eight.
    TransferIdWraps,
    /// How a transfer ended is said once: a question that comes later gets no answer.
    EndSaidOnce,
    /// The message of a transfer is delivered with its COMMIT, whatever is missing.
    SyncMessageBeforeData,
    /// A transfer fails at its responder, and the initiator is not told.
    FailUnsaid,
    /// A region that the peer has deregistered is written to as before.
    RegionRemoveIgnored,
    /// A region is said to be let go of while a batch is on its way there.
    ReleasedBeforeQuiet,
    /// Nothing is said when there is nothing to say.
    HeartbeatUnsaid,
    /// An event that comes twice is taken twice.
    EventTwice,
    /// An event is taken though the one before is missing.
    EventSkipped,
    /// An event that is lost is not said again.
    EventNotKept,
    /// A peer that is silent for ever is waited for.
    SilenceNeverFatal,
    /// A transfer that does not come on is waited for.
    StallNeverJudged,
    /// A transfer that does not come on is not asked about.
    NeverAsked,
    /// The transfers with a peer that is lost are not ended.
    PeerLossForgotten,
    /// What was in flight to a peer that is lost is still counted.
    FlightsForgotten,
    /// A word of the chunk bitmap counts 63 chunks.
    BitmapOffByOne,
    /// A stream that was meant for the process before this one comes up.
    StaleSessionTaken,
    /// Memory is deregistered, and the peers are not told.
    RevokeUnsaid,
    /// Memory counts as out of use before the peers have let go of it.
    RevokeNotAwaited,
    /// Memory goes out of use, and whoever waits for that is not woken.
    QuietUnsaid,
    /// A newer blob of a name is taken for the session that is up.
    OldSessionKept,
    /// A staging slot is lent again before what is in it has been read.
    SlotReadTooEarly,
    /// A staging slot is said to be filled when the write into it is posted.
    SlotFilledUnwritten,
    /// The slots that a peer held when it was let go of are lent to others, whatever it may still write there.
    SlotsFreedWithStream,
    /// Grants: an answer for an older lease of the slot is taken for one of this lease.
    GrantGenerationUnchecked,
    /// Grants: an answer of another session is taken for one of the holder.
    GrantSessionUnchecked,
    /// Grants: a cancelled lease is free at once, whatever is under way.
    GrantFreedOnCancel,
    /// Grants: a lease that is not proved over is free, too.
    GrantQuarantineSkipped,
    /// Grants: a slot is given again under the generation that it had.
    GrantGenerationKept,
    /// Grants: a slot is given on beyond its last generation.
    GrantNeverRetired,
    /// Grants: COMMIT is said when all is posted.
    GrantCommitBeforeFlush,
    /// Grants: REVOKED is said while posted operations are in flight.
    GrantRevokedBeforeFlush,
    /// Grants: a REVOKE that comes before its GRANT is answered and forgotten.
    GrantRevokeForgotten,
    /// Grants: a GRANT that comes again gets no answer.
    GrantAnswerLost,
    /// Grants: a lease that was called back is used all the same.
    GrantUsedAfterRevoke,
    /// Grants: a REVOKE is said once and never again.
    GrantRevokeSaidOnce,
);

/// Whether this bug is switched on.
#[cfg(not(feature = "planted"))]
pub const fn is(_bug: Planted) -> bool {
    false
}

#[cfg(feature = "planted")]
pub use switch::{Plant, is, plant};

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static ON: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Whether this bug is switched on.
    pub fn is(bug: Planted) -> bool {
        ON.get() == Some(bug)
    }

    /// Switches a bug on for this thread, until the guard is dropped.
    pub fn plant(bug: Planted) -> Plant {
        ON.set(Some(bug));
        Plant(())
    }

    /// Keeps a bug switched on.
    #[must_use]
    #[derive(Debug)]
    pub struct Plant(());

    impl Drop for Plant {
        fn drop(&mut self) {
            ON.set(None);
        }
    }
}
