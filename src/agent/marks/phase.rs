//! The phases of a transfer: the one list that spans and ranges come from.

use std::ffi::CStr;

use tracing::{Level, Span};

use super::Facts;

/// What spans and events of phases are filtered by: `BATON_LOG=baton::transfer=trace`.
pub(super) const TARGET: &str = "baton::transfer";

/// Whether anybody takes them.
pub(super) fn are_traced() -> bool {
    tracing::enabled!(target: TARGET, Level::TRACE)
}

/// Declares the phases: each with its name, for spans and ranges, and its colour on a timeline, as `0xAARRGGBB`.
macro_rules! phases {
    ($($(#[$meaning:meta])* $phase:ident, $name:literal, $color:literal;)*) => {
        /// What a transfer is doing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(in crate::agent) enum Phase {
            $($(#[$meaning])* $phase),*
        }

        impl Phase {
            /// Their names, in their order.
            pub const NAMES: &[&'static CStr] = &[$(
                match CStr::from_bytes_with_nul(concat!($name, "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a name without a zero in it"),
                }
            ),*];

            /// Its name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$phase => $name),* }
            }

            /// Its colour.
            pub fn color(self) -> u32 {
                match self { $(Self::$phase => $color),* }
            }

            /// A span for it, which stands by itself.
            pub fn span(self, facts: &Facts) -> Span {
                let Facts { agent, peer, id, is_ours, lane, bytes, segments } = facts;
                match self {
                    $(Self::$phase => tracing::trace_span!(
                        target: TARGET,
                        parent: None,
                        $name,
                        agent = &**agent,
                        transfer = id.map(tracing::field::display),
                        ours = is_ours,
                        peer = &**peer,
                        lane,
                        bytes,
                        segments,
                    )),*
                }
            }
        }
    };
}

phases! {
    /// Finding the lane and the segments, on the thread that submits. It has no number yet.
    Plan, "plan", 0xff_9e_9e_9e;
    /// From its submission until its end is known.
    Transfer, "transfer", 0xff_42_42_42;
    /// Handing a batch to a fabric. One that has no room is tried again.
    Post, "post", 0xff_ff_b3_00;
    /// From there until the fabric has moved the bytes, or, where they come in frames, while they are put in their place.
    Copy, "copy", 0xff_43_a0_47;
    /// All bytes have left; the proof of their arrival is awaited. On lanes that can tell.
    Flush, "flush", 0xff_1e_88_e5;
    /// From COMMIT until the peer has acknowledged that every byte is in place.
    Ack, "ack", 0xff_8e_24_aa;
}
