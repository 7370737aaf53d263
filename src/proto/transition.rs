//! How the machines are written: a flat enum of phases, one of events, and one table of what follows what.

use thiserror::Error;

/// An event that has no place in the phase it met: a bug on one of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{event} is not possible while {phase}")]
pub struct BadTransition {
    /// Where the machine was.
    pub phase: &'static str,
    /// What came.
    pub event: &'static str,
}

/// Declares an enum whose values know their names.
/// Writes the transition table of a phase: `Event: { From => To }`; everything else is a [`BadTransition`].
macro_rules! table {
    ($phase:ident, $event:ident { $($name:ident : { $($from:ident => $to:ident),* $(,)? }),* $(,)? }) => {
        impl $phase {
            /// The transition table.
            #[allow(unreachable_patterns)] // a table in which everything has its place
            pub fn on(self, event: $event) -> Result<Self, $crate::proto::transition::BadTransition> {
                match (event, self) {
                    $($(($event::$name, Self::$from) => Ok(Self::$to),)*)*
                    (event, phase) => Err($crate::proto::transition::BadTransition { phase: phase.name(), event: event.name() }),
                }
            }
        }
    };
}

macro_rules! named {
    ($(#[$doc:meta])* $enum:ident { $($(#[$vdoc:meta])* $variant:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $enum { $($(#[$vdoc])* $variant),* }

        impl $enum {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its name, for errors and pictures.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),* }
            }
        }
    };
}

pub(super) use {named, table};

/// Every outcome of a table, a line each, for the snapshots.
#[cfg(test)]
pub(super) fn picture<P: Copy, E: Copy>(
    phases: &[P],
    events: &[E],
    on: impl Fn(P, E) -> [&'static str; 3],
) -> String {
    let mut out = String::new();
    for &event in events {
        for &phase in phases {
            let [from, by, to] = on(phase, event);
            out += &format!("{from} x {by} = {to}\n");
        }
    }
    out
}
