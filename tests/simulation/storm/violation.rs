//! What a storm says when something that must hold does not.

use std::fmt;

use thiserror::Error;

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident = $text:literal),* $(,)?) => {
        /// What must hold.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule { $($(#[$doc])* $rule),* }

        impl fmt::Display for Rule {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$rule => $text),* })
            }
        }
    };
}

rules!(
    /// No byte changes in memory that is leased to nobody, or that was said to be quiet.
    LateWrite = "late write",
    /// A byte of a lease becomes nothing but what the lease brings.
    WrongByte = "wrong byte",
    /// SUCCESS, or the message of a write, only with every byte in place at that moment.
    Coverage = "success without coverage",
    /// A transfer ends once, and only one that was submitted.
    EndedOnce = "twice ended",
    /// A sync message comes once, before the end of its transfer, and never with one that fails.
    Message = "message",
    /// Notifications come once, in order, and are lost only with their stream.
    Notification = "notification",
    /// Every transfer ends by its deadline, and everything comes to rest once nothing is wrong any more.
    Hang = "hang",
    /// Whoever waits until memory is out of use is woken once it is.
    Unwoken = "not woken",
    /// Nothing is left of what is over.
    Leak = "leak",
    /// Once nothing is wrong any more, everything succeeds.
    Afterwards = "failed afterwards",
    /// A stream that works and that nobody uses stays.
    Idle = "idle stream lost",
    /// A stream is to the process whose blob was loaded.
    Session = "wrong session",
    /// Nothing panics.
    Panic = "panic",
);

/// A rule that did not hold, and how.
#[derive(Clone, Debug)]
pub struct Broken {
    pub rule: Rule,
    pub text: String,
}

/// Whether a rule held.
pub type Held = Result<(), Broken>;

impl Rule {
    /// It does not hold.
    pub fn broken(self, text: impl Into<String>) -> Broken {
        Broken { rule: self, text: text.into() }
    }
}

/// A rule that did not hold in a run, and how to run it again.
#[derive(Clone, Debug, Error)]
#[error(
    "[{rule}] seed {seed}, step {step}: {text}\nreplay: BATON_SIM_SEED={seed} BATON_SIM_TRACE=1 cargo test --test \
     simulation -- --exact {CASE} --nocapture"
)]
pub struct Violation {
    pub rule: Rule,
    pub seed: u64,
    /// Where the run was.
    pub step: u64,
    pub text: String,
}

/// The test that replays.
const CASE: &str = "storm::many::storm_of_a_thousand_seeds";
