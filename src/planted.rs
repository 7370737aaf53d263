//! Bugs on purpose, one line each at the place where somebody could make them, so that the simulation can prove that it would
//! find them.
//!
//! Only the feature `planted` makes them possible, and it cannot be switched on in a release build. Without it [`is`] is a
//! constant `false`, and nothing of this is in the library. With it, [`plant`] switches one bug on, for the
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
