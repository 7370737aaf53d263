//! A sink that records everything and panics at once where the contract's "exactly once" is broken.

use std::collections::{BTreeMap, BTreeSet};

use baton::desc::{OpToken, PeerKey};
use baton::error::FabricError;
use baton::fabric::{Landing, Sink};

/// How something ended.
pub type Outcome = Result<(), FabricError>;

/// A frame's header as it came in.
#[derive(Debug, PartialEq, Eq)]
pub struct Arrival {
    pub peer: PeerKey,
    pub header: Vec<u8>,
    pub payload_bytes: u64,
}

/// Everything one fabric has said, and where the frames it announces shall land.
#[derive(Debug, Default)]
pub struct Log {
    pub connected: BTreeMap<PeerKey, Outcome>,
    pub completed: Vec<(OpToken, Outcome)>,
    pub arrived: Vec<Arrival>,
    pub landed: BTreeMap<u64, Outcome>,
    pub lost: BTreeMap<PeerKey, FabricError>,
    /// Tokens that were accepted and have not completed.
    pub in_flight: BTreeMap<OpToken, PeerKey>,
    /// By the ticket in a header's first eight bytes; a frame without plan is discarded.
    pub landings: BTreeMap<u64, Landing>,
    by_token: BTreeMap<OpToken, usize>,
    awaiting: BTreeSet<u64>,
    silenced: BTreeSet<PeerKey>,
}

impl Log {
    /// How the batch with this token ended.
    pub fn outcome(&self, token: OpToken) -> Option<&Outcome> {
        self.by_token.get(&token).map(|at| &self.completed[*at].1)
    }

    /// From here on any word about `peer` is a breach.
    pub fn silence(&mut self, peer: PeerKey) {
        self.silenced.insert(peer);
        self.in_flight.retain(|_, to| *to != peer);
    }

    fn expect_voice(&self, peer: PeerKey, event: &str) {
        assert!(!self.silenced.contains(&peer), "{event} for peer {peer} after disconnect returned");
    }
}

impl Sink for Log {
    fn connected(&mut self, peer: PeerKey, outcome: Outcome) {
        self.expect_voice(peer, "connected");
        let before = self.connected.insert(peer, outcome);
        assert!(before.is_none(), "peer {peer} was reported connected twice, first {before:?}");
    }

    fn completed(&mut self, token: OpToken, outcome: Outcome) {
        let peer = self.in_flight.remove(&token);
        let peer =
            peer.unwrap_or_else(|| panic!("token {token} completed ({outcome:?}) and is not in flight"));
        self.expect_voice(peer, "completed");
        assert!(!self.lost.contains_key(&peer), "token {token} completed after its peer was reported lost");
        self.by_token.insert(token, self.completed.len());
        self.completed.push((token, outcome));
    }

    fn arrived(&mut self, peer: PeerKey, header: &[u8], payload_bytes: u64) -> Landing {
        self.expect_voice(peer, "arrived");
        self.arrived.push(Arrival { peer, header: header.to_vec(), payload_bytes });
        let ticket = header.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let landing = ticket.and_then(|ticket| self.landings.remove(&ticket)).unwrap_or(Landing::Discard);
        if let Landing::Scatter { ticket, .. } = &landing {
            self.awaiting.insert(*ticket);
        }
        landing
    }

    fn landed(&mut self, peer: PeerKey, ticket: u64, outcome: Outcome) {
        self.expect_voice(peer, "landed");
        assert!(self.awaiting.remove(&ticket), "ticket {ticket} landed ({outcome:?}) and was not awaited");
        self.landed.insert(ticket, outcome);
    }

    fn lost(&mut self, peer: PeerKey, error: FabricError) {
        self.expect_voice(peer, "lost");
        let left: Vec<_> = self.in_flight.iter().filter(|(_, to)| **to == peer).collect();
        assert!(left.is_empty(), "peer {peer} was reported lost with {left:?} in flight");
        let before = self.lost.insert(peer, error);
        assert!(before.is_none(), "peer {peer} was reported lost twice, first {before:?}");
    }
}
