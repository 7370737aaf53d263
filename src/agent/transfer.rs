//! A submitted transfer, as its submitter holds it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;

use crate::desc::TransferId;
use crate::proto::transfer::TransferError;

use super::progress::Shared;

/// Where a transfer stands. The values are those of the seam.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TransferState {
    /// Bytes may still move.
    InProgress = 0,
    /// The peer has acknowledged that every byte is in place, and its sync message is queued.
    Success = 1,
    /// It failed or was cancelled; [`Transfer::error`] says why. No byte moves any more, unless [`Transfer::release`] says
    /// that a peer which was given up may still take its bytes out of our memory.
    Failure = 2,
}

/// The end of a transfer, set once.
pub(super) type Outcome = Arc<OnceCell<Result<(), TransferError>>>;

/// A transfer in progress or over. May be used from several threads.
///
/// Dropping one that is not over cancels it and waits, as [`Transfer::release`] does, until no byte can land.
pub struct Transfer {
    shared: Arc<Shared>,
    id: TransferId,
    peer: String,
    outcome: Outcome,
}

impl Transfer {
    pub(super) fn new(shared: Arc<Shared>, id: TransferId, peer: String, outcome: Outcome) -> Self {
        Self { shared, id, peer, outcome }
    }

    /// The name of the agent at the other end.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Where it stands now; lends the engine a hand.
    pub fn state(&self) -> TransferState {
        if self.outcome.get().is_none() {
            self.shared.poll();
        }
        self.peek()
    }

    /// Waits until it is over or `timeout` has passed. Without a timeout it still ends: when the peer is
    /// lost, or after the stall deadline without progress.
    pub fn wait(&self, timeout: Option<Duration>) -> TransferState {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.shared.wait_until(deadline, || self.outcome.get().is_some());
        self.peek()
    }

    /// Why it failed, once it has.
    pub fn error(&self) -> Option<TransferError> {
        self.outcome.get().and_then(|outcome| outcome.clone().err())
    }

    /// The error as a text that names the transfer and the peer; empty unless it failed.
    pub fn error_text(&self) -> String {
        match self.error() {
            None if self.is_out_of_reach() => {
                let Self { id, peer, .. } = self;
                format!("transfer {id} with peer '{peer}' is another process's: this one was forked from it")
            }
            Some(error) => format!("transfer {} with peer '{}': {error}", self.id, self.peer),
            None => String::new(),
        }
    }

    /// Cancels it if it is not over. True once no byte of it can land any more. Waits for the peer until two seconds
    /// after the peer deadline, so that a peer which has stopped is given up before. False remains for a peer that lives
    /// and does not let go, for one that was given up while it pulled and is not known to be dead, for a forked child,
    /// and for an engine that has failed over a lane on which peers reach our memory by themselves; the memory must not be
    /// reused then.
    pub fn release(&self) -> bool {
        if self.outcome.get().is_none() && !self.shared.is_forked() {
            self.shared.cancel(self.id);
            let deadline = self.shared.death_deadline();
            self.shared.wait_until(Some(deadline), || self.outcome.get().is_some());
        }
        match self.outcome.get() {
            Some(Ok(())) => true,
            Some(Err(_)) => !self.shared.may_be_touched(&self.peer),
            None => false,
        }
    }

    /// Whether it was under way when this process was forked: it goes on elsewhere, and nothing is seen of it here.
    fn is_out_of_reach(&self) -> bool {
        self.shared.is_forked() && self.outcome.get().is_none()
    }

    fn peek(&self) -> TransferState {
        match self.outcome.get() {
            None if self.is_out_of_reach() => TransferState::Failure,
            None => TransferState::InProgress,
            Some(Ok(())) => TransferState::Success,
            Some(Err(_)) => TransferState::Failure,
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if self.shared.is_forked() {
            std::mem::forget(Arc::clone(&self.shared)); // as when an agent is dropped there
        } else if !self.release() {
            tracing::error!(
                transfer = %self.id,
                peer = self.peer,
                "a transfer was dropped that the peer does not let go of; its memory must not be reused"
            );
        }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .field("state", &self.peek())
            .finish_non_exhaustive()
    }
}
