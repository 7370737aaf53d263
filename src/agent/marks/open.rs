//! A phase that is under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Span;
use tracing::field::display;

use crate::desc::TransferId;
use crate::nvtx::{self, RangeId, Start};

use super::phase::{Phase, TARGET};

/// What is known of a phase.
#[derive(Clone, Debug)]
pub(in crate::agent) struct Facts {
    /// Whose agent's.
    pub agent: Arc<str>,
    /// The name of the agent at the other end.
    pub peer: Arc<str>,
    /// The transfer, as its initiator numbers it.
    pub id: Option<TransferId>,
    /// Whether it is ours, or one of the peer's.
    pub is_ours: bool,
    /// The lane that it is on.
    pub lane: Option<&'static str>,
    /// How much.
    pub bytes: Option<u64>,
    /// In how many pieces.
    pub segments: Option<usize>,
}

impl Facts {
    /// Of a transfer of ours of which no more is known.
    pub fn new(agent: &str, peer: &str) -> Self {
        let (agent, peer) = (Arc::from(agent), Arc::from(peer));
        Self { agent, peer, id: None, is_ours: true, lane: None, bytes: None, segments: None }
    }
}

/// A phase that is under way. Dropping it ends it, on whichever thread.
#[derive(Debug)]
pub(in crate::agent) struct Open {
    phase: Phase,
    facts: Facts,
    since: Instant,
    span: Span,
    range: Option<RangeId>,
    took: Option<Duration>,
}

impl Open {
    /// It begins now.
    pub fn begin(phase: Phase, facts: Facts) -> Self {
        let start = Start {
            name: phase as usize,
            category: facts.lane,
            color: phase.color(),
            payload: facts.id.map(|id| id.0),
        };
        let (span, since) = (phase.span(&facts), Instant::now());
        let range = nvtx::domain().map(|domain| domain.start(start));
        Self { phase, facts, since, span, range, took: None }
    }

    /// What is known of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// It ends now, though more may be learnt of it.
    pub fn stop(&mut self) {
        if let Some((domain, range)) = nvtx::domain().zip(self.range.take()) {
            domain.end(range);
        }
        self.took.get_or_insert_with(|| self.since.elapsed());
    }

    /// What is known only now; too late for a range.
    pub fn learn(&mut self, facts: Facts) {
        self.span.record("transfer", facts.id.map(display));
        self.span.record("lane", facts.lane);
        self.span.record("bytes", facts.bytes);
        self.span.record("segments", facts.segments);
        self.facts = facts;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.stop();
        let took_us = self.took.map(|took| took.as_micros() as u64);
        tracing::trace!(target: TARGET, parent: &self.span, took_us, "{}", self.phase.name());
    }
}
