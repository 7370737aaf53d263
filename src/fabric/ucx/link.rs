//! Links: connect, prove that the lane is native, disconnect.
//!
//! A link is up once it is proven ([`probe`](super::probe)); one that cannot be is refused, never used.

use std::time::{Duration, Instant};

use super::peer::{Peer, Process, Stage};
use super::probe::Proof;
use super::transfer::{Outcome, Purpose};
use super::wire::Address;
use super::{NAME, UcxFabric, lanes};
use crate::desc::PeerKey;
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::Link;

/// How long the proof may take. It waits for nobody: this is for a machine that gives us no processor.
const PROOF_WITHIN: Duration = Duration::from_secs(2);

/// How long in-flight copies may take to end when a link is given up.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// An operation that makes no progress for so long, and in so many steps, waits for the other side: it is not
/// native.
pub(super) const STUCK_AFTER: (Duration, u32) = (Duration::from_millis(50), 1000);

/// Steps in which an endpoint without operations must close.
const CLOSE_STEPS: u32 = 10_000;

impl UcxFabric {
    /// Starts the proof of a link, or queues the reason why not.
    pub(super) fn start_link(&mut self, peer: PeerKey, link: Link) {
        if self.peers.get(&peer).is_some_and(|state| state.stage != Stage::Named) {
            let error = link_error(FabricErrorKind::Internal, format!("peer {peer} was connected before"));
            self.outcomes.push_back(Outcome::Connected(peer, Err(error)));
            return;
        }
        if let Err(error) = self.try_start_link(peer, &link) {
            if let Some(state) = self.peers.get_mut(&peer) {
                state.stage = Stage::Down;
                state.failure = Some(error.clone());
            }
            self.outcomes.push_back(Outcome::Connected(peer, Err(error)));
        }
    }

    fn try_start_link(&mut self, peer: PeerKey, link: &Link) -> Result<(), FabricError> {
        let address = Address::decode(&link.address)?;
        let state = self.peers.entry(peer).or_insert_with(Peer::new);
        state.process = link.credentials.and_then(|who| Process::pin(who.pid));
        let endpoint = self.engine.connect(&address.worker, peer)?;
        state.lanes = lanes::summary(&self.engine.describe(&endpoint));
        let native = lanes::has_native(&state.lanes);
        let seen = state.lanes.clone();
        let endpoint = state.endpoint.insert(endpoint);
        if !native {
            return Err(not_native(&seen));
        }
        let key = self.engine.unpack(endpoint, &address.probe_key)?;
        let proof = Proof::new(&address, key).map_err(|(error, key)| {
            self.engine.destroy_key(key);
            error
        })?;
        state.stage = Stage::Proving(Instant::now());
        let pieces = proof.pieces();
        self.start(peer, Purpose::Proof(proof), &pieces);
        Ok(())
    }

    /// Gives up proofs that take too long.
    pub(super) fn expire_proofs(&mut self) {
        let late =
            |peer: &Peer| matches!(peer.stage, Stage::Proving(since) if since.elapsed() > PROOF_WITHIN);
        let late: Vec<PeerKey> =
            self.peers.iter().filter(|(_, peer)| late(peer)).map(|(key, _)| *key).collect();
        for key in late {
            self.strand(key);
            self.break_link(key, not_native(self.lanes_to(key)));
        }
    }

    /// Ends a link: what is in flight ends first, then nothing of it is ever reported.
    pub(super) fn end_link(&mut self, peer: PeerKey) {
        self.outcomes.retain(|outcome| outcome.peer() != peer);
        if !self.drain(peer) {
            tracing::error!(peer = peer.0, "ucx: copies could not be ended; their endpoint is left behind");
            self.strand(peer);
        }
        self.outcomes.retain(|outcome| outcome.peer() != peer);
        let Some(mut state) = self.peers.remove(&peer) else { return };
        if state.stuck {
            return; // its endpoint and keys are still UCX's
        }
        for key in state.imports.drain().into_iter().chain(state.retired.drain(..)) {
            self.engine.destroy_key(key);
        }
        if let Some(endpoint) = state.endpoint.take()
            && !self.engine.close(endpoint, CLOSE_STEPS)
        {
            self.engine.abandon();
        }
        self.absorb();
    }

    /// The lanes of the endpoint to a peer, as UCX describes them.
    pub(super) fn lanes_to(&self, peer: PeerKey) -> &str {
        self.peers.get(&peer).map_or("", |state| &state.lanes)
    }

    /// Gives back the keys of withdrawn regions, once nothing in flight can use them.
    pub(super) fn destroy_retired(&mut self, peer: PeerKey) {
        let Some(state) = self.peers.get_mut(&peer).filter(|state| state.operations == 0) else { return };
        for key in state.retired.drain(..) {
            self.engine.destroy_key(key);
        }
    }

    /// Lets what is in flight to a peer come to its end; `false` when it does not.
    fn drain(&mut self, peer: PeerKey) -> bool {
        let started = Instant::now();
        let (mut idle_since, mut idle_steps) = (started, 0);
        while self.peers.get(&peer).is_some_and(|state| state.operations > 0) {
            if self.engine.progress() {
                (idle_since, idle_steps) = (Instant::now(), 0);
            } else {
                idle_steps += 1;
            }
            self.absorb();
            let idle = idle_steps > STUCK_AFTER.1 && idle_since.elapsed() > STUCK_AFTER.0;
            if idle || started.elapsed() > DRAIN_WITHIN {
                return false;
            }
        }
        true
    }

    /// Puts a peer's operations aside for good, with the memory that UCX may still use for them.
    fn strand(&mut self, peer: PeerKey) {
        let stuck = self.operations.extract(|operation| operation.peer == peer);
        if stuck.is_empty() {
            return;
        }
        self.engine.abandon();
        std::mem::forget(stuck);
        if let Some(state) = self.peers.get_mut(&peer) {
            state.stuck = true;
            state.operations = 0;
            state.batches = 0;
        }
    }
}

/// The refusal of a link over which UCX would emulate puts.
pub(super) fn not_native(lanes: &str) -> FabricError {
    link_error(
        FabricErrorKind::Unsupported,
        format!(
            "no native lane, puts would be emulated by the peer's processor (lanes: {}); UCX 1.16 or newer and \
             permission for process_vm_writev are needed",
            if lanes.is_empty() { "unknown" } else { lanes }
        ),
    )
}

fn link_error(kind: FabricErrorKind, detail: String) -> FabricError {
    FabricError::new(NAME, "connect", kind, 0, detail)
}
