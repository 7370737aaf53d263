//! What transfers are doing, for those who watch: every phase is a span of `tracing` and a range of NVTX, both from the one
//! list in [`phase`].
//!
//! ```text
//!   ours     |- plan -||-------------------------- transfer --------------------------|
//!                         |- post -||-- copy --||- flush -|      |------- ack -------|
//!   theirs                |- post -||-- copy --|        where this side moves the bytes, or they land here
//! ```
//!
//! With nobody watching nothing is noted: each place asks [`are_watched`] first, which is two loads.
//!
//! A phase that is not over when its transfer or its peer goes ends with it.

mod open;
mod phase;

use std::collections::HashMap;
use std::sync::Arc;

use crate::desc::{OpToken, PeerKey, TransferId};
use crate::fabric::Batch;
use crate::nvtx;
use crate::proto::endpoint::{Endpoint, Submission};

pub(super) use self::open::{Facts, Open};
pub(super) use self::phase::Phase;

/// Lets the profiler that started this process, if one did, see the phases from now on.
pub(super) fn attach(profiler: Option<&std::path::Path>) {
    let Some(path) = profiler else { return };
    match nvtx::attach(path, c"baton", Phase::NAMES) {
        Ok(()) => tracing::info!(library = %path.display(), "a profiler draws transfers as NVTX ranges"),
        Err(error) => {
            tracing::warn!(library = %path.display(), error, "NVTX_INJECTION64_PATH names no profiler that works here; no ranges");
        }
    }
}

/// Whether anybody watches.
pub(super) fn are_watched() -> bool {
    phase::are_traced() || nvtx::domain().is_some()
}

/// The planning of a transfer of this agent's begins.
pub(super) fn planning(agent: &str, peer: &str) -> Option<Open> {
    are_watched().then(|| Open::begin(Phase::Plan, Facts::new(agent, peer)))
}

/// What is to be known of a planned transfer that gets its number now.
pub(super) fn planned(endpoint: &Endpoint, submission: &Submission) -> Option<Facts> {
    are_watched().then(|| {
        let plan = &submission.plan;
        let lane = endpoint.lanes().get(submission.lane).map(|lane| lane.name);
        let agent = &endpoint.identity().name;
        let (bytes, segments) = (plan.bytes(), plan.segments().len());
        Facts { lane, bytes: Some(bytes), segments: Some(segments), ..Facts::new(agent, &submission.peer) }
    })
}

/// The phases of an agent's transfers that are under way, as far as somebody watches.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// By token or ticket.
    flights: HashMap<u64, (PeerKey, Open)>,
    /// Transfers of ours.
    transfers: HashMap<TransferId, Transfer>,
}

/// A transfer of ours.
#[derive(Debug)]
struct Transfer {
    // The order in which they end.
    ack: Option<Open>,
    whole: Open,
}

/// A batch that is being posted.
#[derive(Debug)]
pub(super) struct Posting {
    token: OpToken,
    peer: PeerKey,
    post: Open,
}

impl Marks {
    /// A transfer of ours has been submitted, as it was planned.
    pub fn submitted(&mut self, id: TransferId, planning: Option<Open>, facts: Option<Facts>) {
        let Some(facts) = facts else { return };
        let facts = Facts { id: Some(id), ..facts };
        if let Some(mut plan) = planning {
            plan.learn(facts.clone());
        }
        self.transfers.insert(id, Transfer { ack: None, whole: Open::begin(Phase::Transfer, facts) });
    }

    /// A transfer of ours waits for its acknowledgement.
    pub fn committed(&mut self, id: TransferId) {
        if !self.transfers.is_empty()
            && let Some(transfer) = self.transfers.get_mut(&id)
        {
            transfer.ack = Some(Open::begin(Phase::Ack, transfer.whole.facts().clone()));
        }
    }

    /// A transfer of ours is over.
    pub fn ended(&mut self, id: TransferId) {
        if !self.transfers.is_empty() {
            self.transfers.remove(&id);
        }
    }

    /// A batch is being handed to a fabric.
    pub fn posting(&self, endpoint: &Endpoint, batch: &Batch) -> Option<Posting> {
        if !are_watched() {
            return None;
        }
        let (peer, facts) = flight(endpoint, batch.token.0, batch.segments.len())?;
        Some(Posting { token: batch.token, peer, post: Open::begin(Phase::Post, facts) })
    }

    /// The fabric has taken it, and copies.
    pub fn copying(&mut self, posting: Option<Posting>) {
        let Some(Posting { token, peer, post }) = posting else { return };
        let facts = post.facts().clone();
        drop(post);
        self.flights.insert(token.0, (peer, Open::begin(Phase::Copy, facts)));
    }

    /// All bytes of a batch have left.
    pub fn flushing(&mut self, token: OpToken) {
        if let Some((peer, copy)) = self.over(token.0) {
            let facts = copy.facts().clone();
            drop(copy);
            self.flights.insert(token.0, (peer, Open::begin(Phase::Flush, facts)));
        }
    }

    /// A payload of so many pieces is being read to its place.
    pub fn landing(&mut self, endpoint: &Endpoint, ticket: u64, segments: usize) {
        if are_watched()
            && let Some((peer, facts)) = flight(endpoint, ticket, segments)
        {
            self.flights.insert(ticket, (peer, Open::begin(Phase::Copy, facts)));
        }
    }

    /// A batch is over, or a payload has landed. Its last phase ends when what is returned is dropped.
    pub fn over(&mut self, number: u64) -> Option<(PeerKey, Open)> {
        if self.flights.is_empty() { None } else { self.flights.remove(&number) }
    }

    /// The fabrics have let go of a peer.
    pub fn parted(&mut self, peer: PeerKey) {
        self.flights.retain(|_, (with, _)| *with != peer);
    }

    /// Nothing goes on any more.
    pub fn clear(&mut self) {
        self.flights.clear();
        self.transfers.clear();
    }
}

/// With whom something is on its way, and what is to be known of it.
fn flight(endpoint: &Endpoint, number: u64, segments: usize) -> Option<(PeerKey, Facts)> {
    let flight = endpoint.flight(number)?;
    let facts = Facts {
        agent: Arc::from(endpoint.identity().name.as_str()),
        peer: Arc::from(endpoint.peer(flight.peer)?.name()),
        id: Some(flight.id),
        is_ours: flight.is_ours,
        lane: endpoint.lanes().get(flight.lane).map(|lane| lane.name),
        bytes: Some(flight.bytes),
        segments: Some(segments),
    };
    Some((flight.peer, facts))
}
