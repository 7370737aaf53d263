//! Where a fabric's events meet the protocol: translates, decides nothing.

use std::time::Instant;

use crate::desc::{MemoryKind, OpToken, PeerKey};
use crate::error::FabricError;
use crate::fabric::{Landing, Sink};
use crate::proto::endpoint::{Endpoint, Placement};

use super::marks::Marks;

/// What is polled.
#[derive(Clone, Copy, Debug)]
pub(super) enum Polled {
    /// A lane, by its fabric's name.
    Lane(&'static str),
    /// What copies memory of this kind within our process.
    Copier(MemoryKind),
}

/// The sink of one poll of one fabric.
pub(super) struct Tap<'a> {
    endpoint: &'a mut Endpoint,
    marks: &'a mut Marks,
    source: Polled,
    now: Instant,
    /// Counts the frames whose payload has no place.
    dropped: &'a mut u64,
    /// Peers whose link broke. For whoever polls: what they had said on their streams comes first.
    lost: Vec<(PeerKey, FabricError)>,
}

impl<'a> Tap<'a> {
    /// Hands the events of `source` to `endpoint`.
    pub fn new(
        endpoint: &'a mut Endpoint,
        marks: &'a mut Marks,
        source: Polled,
        now: Instant,
        dropped: &'a mut u64,
    ) -> Self {
        Self { endpoint, marks, source, now, dropped, lost: Vec::new() }
    }

    /// The peers whose link broke in this poll.
    pub fn into_lost(self) -> Vec<(PeerKey, FabricError)> {
        self.lost
    }
}

impl Sink for Tap<'_> {
    fn connected(&mut self, peer: PeerKey, outcome: Result<(), FabricError>) {
        match (self.source, outcome) {
            (Polled::Lane(lane), outcome) => self.endpoint.handle_lane(peer, lane, as_text(outcome)),
            (Polled::Copier(kind), Ok(())) => self.endpoint.handle_copier(peer, kind),
            (Polled::Copier(kind), Err(error)) => {
                tracing::warn!(%kind, %error, "small pieces are not gathered for this peer");
            }
        }
    }

    fn flushing(&mut self, token: OpToken) {
        self.marks.flushing(token);
    }

    fn completed(&mut self, token: OpToken, outcome: Result<(), FabricError>) {
        self.marks.over(token.0);
        self.endpoint.handle_completed(token, as_text(outcome), self.now);
    }

    fn arrived(&mut self, peer: PeerKey, header: &[u8], payload_bytes: u64) -> Landing {
        match self.endpoint.handle_arrived(peer, header, payload_bytes) {
            Placement::Scatter { ticket, spans } => {
                self.marks.landing(self.endpoint, ticket, spans.len());
                Landing::Scatter { ticket, spans }
            }
            Placement::Discard => {
                *self.dropped += 1;
                Landing::Discard
            }
        }
    }

    fn landed(&mut self, _peer: PeerKey, ticket: u64, outcome: Result<(), FabricError>) {
        self.marks.over(ticket);
        self.endpoint.handle_landed(ticket, as_text(outcome), self.now);
    }

    fn lost(&mut self, peer: PeerKey, error: FabricError) {
        self.lost.push((peer, error));
    }
}

fn as_text(outcome: Result<(), FabricError>) -> Result<(), String> {
    outcome.map_err(|error| error.to_string())
}
