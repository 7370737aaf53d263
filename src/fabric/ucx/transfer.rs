//! Operations: batches and proofs, from the post to their outcome.
//!
//! An operation is a set of puts or gets and one flush behind them. It is over when all of them are, and only
//! then is its outcome queued for the next poll: the flush is what proves arrival. Invariant: a peer's
//! `operations` counts its entries in the slab.

use ucx_sys::bindings::{
    UCS_ERR_CONNECTION_RESET, UCS_ERR_INVALID_ADDR, UCS_ERR_NOT_CONNECTED, UCS_OK, ucs_status_t,
};

use super::engine::Started;
use super::events::Event;
use super::link::not_native;
use super::memory::Vouched;
use super::peer::Stage;
use super::probe::Proof;
use super::slab::Ticket;
use super::{LIMITS, NAME, UcxFabric, status};
use crate::desc::{OpToken, PeerKey, RegionKey, Segment, Span, TransferOp};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::{Batch, Posted};

/// Longest single put or get: UCX's own step over cma, and so the grain of a bounded poll.
const PIECE_BYTES: u64 = 512 * 1024;

/// One put or get.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub op: TransferOp,
    pub local: Vouched,
    pub remote: u64,
    /// The peer's region; `None` for its probe area.
    pub region: Option<RegionKey>,
}

/// What an operation is for.
pub(super) enum Purpose {
    Batch(OpToken),
    Proof(Proof),
}

/// An operation in flight.
pub(super) struct Operation {
    pub peer: PeerKey,
    purpose: Purpose,
    /// Requests that have not come back, and one while it is being started.
    outstanding: u32,
    /// One of those is a flush, which comes back last.
    is_flushed: bool,
    bytes_each: u64,
    failure: Option<FabricError>,
}

/// Something to tell the agent at the next poll.
pub(super) enum Outcome {
    Connected(PeerKey, Result<(), FabricError>),
    Flushing(PeerKey, OpToken),
    Completed(PeerKey, OpToken, Result<(), FabricError>),
    Lost(PeerKey, FabricError),
}

impl Outcome {
    pub fn peer(&self) -> PeerKey {
        match self {
            Self::Connected(peer, _)
            | Self::Flushing(peer, _)
            | Self::Completed(peer, _, _)
            | Self::Lost(peer, _) => *peer,
        }
    }
}

impl UcxFabric {
    /// Checks a batch against both sides' regions and starts it.
    pub(super) fn accept(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        let refuse = |kind, detail: &str| Err(FabricError::new(NAME, "post", kind, 0, detail));
        let Some(state) = self.peers.get(&peer) else {
            return refuse(FabricErrorKind::Unreachable, "no such peer is connected");
        };
        state.ready()?;
        if state.process.as_ref().is_some_and(|process| process.gone()) {
            let gone =
                FabricError::new(NAME, "post", FabricErrorKind::PeerLost, 0, "the peer's process has ended");
            self.break_link(peer, gone.clone());
            return Err(gone);
        }
        if state.batches >= LIMITS.batches_in_flight {
            return Ok(Posted::Full(batch));
        }
        let count = batch.segments.len();
        if count == 0 || count > LIMITS.segments_per_batch {
            return refuse(FabricErrorKind::Internal, "a batch has 1 to segments_per_batch segments");
        }
        let pieces = self.pieces(peer, &batch)?;
        self.unpack_keys(peer, &pieces)?;
        self.start(peer, Purpose::Batch(batch.token), &pieces);
        Ok(Posted::Accepted)
    }

    /// The batch as puts or gets, every address checked.
    fn pieces(&self, peer: PeerKey, batch: &Batch) -> Result<Vec<Piece>, FabricError> {
        let refuse =
            |detail: String| FabricError::new(NAME, "post", FabricErrorKind::InvalidRegion, 0, detail);
        let mut pieces = Vec::with_capacity(batch.segments.len());
        let mut bytes = 0_u64;
        for &Segment { src, dst, len } in &batch.segments {
            let (local, remote) = match batch.op {
                TransferOp::Read => (dst, src),
                TransferOp::Write => (src, dst),
            };
            let (local, remote) = (Span { addr: local, len }, Span { addr: remote, len });
            let vouched = self
                .local
                .vouch(local)
                .ok_or_else(|| refuse(format!("{local} is in no registered region")))?;
            let theirs = self.peers.get(&peer).and_then(|state| state.imports.containing(remote));
            let region = theirs
                .ok_or_else(|| refuse(format!("{remote} is in no region that peer {peer} announced")))?;
            bytes = bytes.saturating_add(len);
            if len == 0 || bytes > LIMITS.bytes_per_batch {
                return Err(refuse(format!(
                    "a batch has 1 to {} bytes, none of its segments 0",
                    LIMITS.bytes_per_batch
                )));
            }
            pieces.extend(vouched.pieces(PIECE_BYTES).map(|(offset, local)| Piece {
                op: batch.op,
                local,
                remote: remote.addr + offset,
                region: Some(region),
            }));
        }
        Ok(pieces)
    }

    fn unpack_keys(&mut self, peer: PeerKey, pieces: &[Piece]) -> Result<(), FabricError> {
        let Some(state) = self.peers.get_mut(&peer) else { return Ok(()) };
        let Some(endpoint) = &state.endpoint else { return Ok(()) };
        for region in pieces.iter().filter_map(|piece| piece.region) {
            state.imports.unpack(region, &mut self.engine, endpoint)?;
        }
        Ok(())
    }

    /// Starts an operation on a peer that has an endpoint. It concludes even when nothing of it could start.
    pub(super) fn start(&mut self, peer: PeerKey, purpose: Purpose, pieces: &[Piece]) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        state.operations += 1;
        state.batches += usize::from(matches!(purpose, Purpose::Batch(_)));
        let bytes: u64 = pieces.iter().map(|piece| piece.local.len()).sum();
        let bytes_each = bytes / (pieces.len() as u64 + 1);
        let ticket = self.operations.insert(Operation {
            peer,
            purpose,
            outstanding: 1,
            is_flushed: false,
            bytes_each,
            failure: None,
        });
        let (pending, call, result) = self.start_pieces(peer, ticket, pieces);
        if let Some(operation) = self.operations.get_mut(ticket) {
            operation.outstanding += pending;
        }
        self.finish_one(ticket, call, result);
        self.absorb();
    }

    /// How many requests will come back, and how the last call went.
    fn start_pieces(
        &mut self,
        peer: PeerKey,
        ticket: Ticket,
        pieces: &[Piece],
    ) -> (u32, &'static str, ucs_status_t) {
        let state = self.peers.get(&peer);
        let Some((state, endpoint)) = state.and_then(|state| Some((state, state.endpoint.as_ref()?))) else {
            return (0, "post", UCS_ERR_NOT_CONNECTED);
        };
        let Some(operation) = self.operations.get_mut(ticket) else { return (0, "post", UCS_OK) };
        let mut pending = 0;
        for piece in pieces {
            let key = match (&operation.purpose, piece.region) {
                (_, Some(region)) => state.imports.key(region),
                (Purpose::Proof(proof), None) => Some(proof.key()),
                (Purpose::Batch(_), None) => None,
            };
            let Some(key) = key else { return (pending, "post", UCS_ERR_INVALID_ADDR) };
            let call = if piece.op == TransferOp::Read { "ucp_get_nbx" } else { "ucp_put_nbx" };
            match self.engine.copy(endpoint, key, piece.op, piece.local, piece.remote, ticket) {
                Started::Done => {}
                Started::Pending => pending += 1,
                Started::Failed(status) => return (pending, call, status),
            }
            if self.engine.has_failure() {
                return (pending, call, UCS_ERR_CONNECTION_RESET);
            }
        }
        match self.engine.flush(endpoint, ticket) {
            Started::Done => (pending, "ucp_ep_flush_nbx", UCS_OK),
            Started::Pending => {
                operation.is_flushed = true;
                (pending + 1, "ucp_ep_flush_nbx", UCS_OK)
            }
            Started::Failed(status) => (pending, "ucp_ep_flush_nbx", status),
        }
    }

    /// Takes in what UCX called back; how many bytes that was.
    pub(super) fn absorb(&mut self) -> u64 {
        let mut bytes = 0;
        let mut events = std::mem::take(&mut self.events);
        self.engine.take_events(&mut events);
        for event in events.drain(..) {
            match event {
                Event::Done { ticket, status, .. } => {
                    bytes += self.finish_one(ticket, "ucp_put_nbx/get/flush", status)
                }
                Event::Broken { peer, status } => {
                    let error = status::error(self.engine.library(), "endpoint", status);
                    self.break_link(peer, error);
                }
            }
        }
        self.events = events;
        bytes
    }

    /// One request of an operation is over; how many bytes it stands for.
    fn finish_one(&mut self, ticket: Ticket, call: &'static str, result: ucs_status_t) -> u64 {
        let Some(operation) = self.operations.get_mut(ticket) else { return 0 };
        let bytes = operation.bytes_each;
        if result < 0 && operation.failure.is_none() {
            operation.failure = Some(status::error(self.engine.library(), call, result));
        }
        operation.outstanding -= 1;
        if let (1, true, Purpose::Batch(token)) =
            (operation.outstanding, operation.is_flushed, &operation.purpose)
        {
            self.outcomes.push_back(Outcome::Flushing(operation.peer, *token));
        }
        if operation.outstanding == 0
            && let Some(operation) = self.operations.remove(ticket)
        {
            self.conclude(operation);
        }
        bytes
    }

    fn conclude(&mut self, operation: Operation) {
        let Operation { peer, purpose, failure, .. } = operation;
        let mut result = failure.map_or(Ok(()), Err);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.operations -= 1;
        }
        match purpose {
            Purpose::Batch(token) => {
                if let Some(state) = self.peers.get_mut(&peer) {
                    state.batches -= 1;
                }
                self.outcomes.push_back(Outcome::Completed(peer, token, result.clone()));
            }
            Purpose::Proof(mut proof) => {
                let native = result.map_err(|error| match error.kind {
                    // What UCX does with an operation that it would have to emulate.
                    FabricErrorKind::Cancelled => not_native(self.lanes_to(peer)),
                    _ => error,
                });
                let more = native.and_then(|()| proof.advance());
                if more == Ok(true) {
                    let pieces = proof.pieces();
                    return self.start(peer, Purpose::Proof(proof), &pieces);
                }
                self.engine.destroy_key(proof.into_key());
                result = more.map(|_| self.proven(peer));
            }
        }
        self.destroy_retired(peer);
        match result {
            Err(error) => self.break_link(peer, error),
            Ok(()) => self.tell_if_broken(peer),
        }
    }

    fn proven(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        if matches!(state.stage, Stage::Proving(_)) && state.failure.is_none() {
            state.stage = Stage::Up;
            tracing::debug!(peer = peer.0, lanes = state.lanes, "ucx: link is up and proven native");
            self.outcomes.push_back(Outcome::Connected(peer, Ok(())));
        }
    }

    /// Marks a link as broken. The agent hears of it when nothing is in flight on it any more.
    pub(super) fn break_link(&mut self, peer: PeerKey, error: FabricError) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.failure.get_or_insert(error);
        }
        self.tell_if_broken(peer);
    }

    fn tell_if_broken(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer) else { return };
        let Some(failure) = state.failure.clone().filter(|_| state.operations == 0) else { return };
        match std::mem::replace(&mut state.stage, Stage::Down) {
            Stage::Proving(_) => self.outcomes.push_back(Outcome::Connected(peer, Err(failure))),
            Stage::Up => {
                let lost = FabricError { kind: FabricErrorKind::PeerLost, ..failure };
                self.outcomes.push_back(Outcome::Lost(peer, lost));
            }
            Stage::Named | Stage::Down => {}
        }
    }
}
