//! Letting go of everything after a panic, without a step of what the panic may have left half done.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use crate::error::panic_text;
use crate::proto::transfer::TransferError;

use super::super::lobby::Lobby;
use super::Core;

impl Core {
    /// Ends every transfer with `text`, shuts every socket, drops every fabric. The endpoint is not asked for anything.
    /// Does not panic. Returns whether nothing can touch our memory any more, as far as that can be known.
    pub(in crate::agent) fn abandon(&mut self, text: &str) -> bool {
        for stream in self.streams.values() {
            // A forked child of the host's may hold the socket: closing it alone would tell the peer nothing.
            let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
        }
        for (_, outcome) in self.transfers.drain() {
            let _ = outcome.set(Err(TransferError::EngineFailed(text.to_owned()))); // a success that was told stays one
        }
        self.farewells.values_mut().for_each(|farewell| *farewell = Some(text.to_owned()));
        self.busy.store(false, Ordering::Release);
        self.signal.raise();
        let is_quiet = self.close_fabrics();
        self.streams.clear();
        self.processes.clear();
        self.lobby = Lobby::default();
        self.pinnings.clear();
        is_quiet
    }

    /// Drops the fabrics; whether all have closed and none let a peer reach our memory by itself.
    fn close_fabrics(&mut self) -> bool {
        let mut is_quiet = true;
        for fabric in self.fabrics.drain(..) {
            // AssertUnwindSafe: it is gone afterwards, one way or the other.
            let closed = catch_unwind(AssertUnwindSafe(|| {
                let limits = fabric.limits();
                drop(fabric);
                limits.framed
            }));
            is_quiet &= closed
                .inspect_err(|_| tracing::error!("a fabric panicked while it was closed"))
                .unwrap_or_else(|payload| {
                    drop(panic_text(payload));
                    false
                });
        }
        is_quiet
    }
}
