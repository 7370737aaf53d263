//! Letting go of everything after a panic, without a step of what the panic may have left half done.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::panic_text;
use crate::proto::transfer::TransferError;

use super::Core;

/// How the fabrics went.
pub(super) struct Closing {
    /// None panicked: nothing of ours moves any more.
    pub have_closed: bool,
    /// None had let a peer reach our memory by itself.
    pub are_framed: bool,
}

impl Core {
    /// Ends every transfer with `text`, shuts every socket, drops every fabric. The endpoint is not asked for anything.
    /// Does not panic. Returns whether nothing can touch our memory any more, as far as that can be known.
    pub(in crate::agent) fn abandon(&mut self, text: &str) -> bool {
        for (_, outcome) in self.transfers.drain() {
            self.mishaps.transfers_failed += 1;
            let _ = outcome.set(Err(TransferError::EngineFailed(text.to_owned()))); // a success that was told stays one
        }
        self.marks.clear();
        self.farewells.values_mut().for_each(|farewell| *farewell = Some(text.to_owned()));
        self.signal.raise();
        let closing = self.close_fabrics();
        // After the fabrics: the end of a stream tells the peer that nothing of ours moves any more.
        for (_, stream) in self.streams.drain() {
            match closing.have_closed {
                true => stream.shut(),
                false => stream.fall_silent(), // that, and our process's end, tell the truth
            }
        }
        self.processes.clear();
        self.leave_lobby();
        self.pinners.clear();
        self.free_staging(closing.have_closed && closing.are_framed);
        closing.have_closed && closing.are_framed
    }

    /// Drops the fabrics.
    pub(super) fn close_fabrics(&mut self) -> Closing {
        let mut closing = Closing { have_closed: true, are_framed: true };
        for fabric in self.fabrics.drain(..) {
            // AssertUnwindSafe: it is gone afterwards, one way or the other.
            let closed = catch_unwind(AssertUnwindSafe(|| {
                let limits = fabric.limits();
                drop(fabric);
                limits.framed
            }));
            match closed {
                Ok(is_framed) => closing.are_framed &= is_framed,
                Err(payload) => {
                    tracing::error!(panic = panic_text(payload), "a fabric panicked while it was closed");
                    closing.have_closed = false;
                }
            }
        }
        closing
    }
}
