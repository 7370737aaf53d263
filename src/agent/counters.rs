//! What an agent counts: what it holds now, and what has gone wrong so far.

use super::Agent;
use super::core::Core;
use super::lobby::Refused;

/// A look at an agent. What it holds is zero again once everything has been given back; what went wrong only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Regions that are registered.
    pub regions: usize,
    /// Regions that were deregistered and that something may still touch. They are not among [`Counters::regions`].
    pub quarantined: usize,
    /// Control streams, those of peers that nobody has loaded included.
    pub streams: usize,
    /// Transfers of ours that are not over.
    pub transfers: usize,
    /// Notifications that wait for the host.
    pub unread: bool,
    /// What has gone wrong.
    pub mishaps: Mishaps,
    /// Connections, and claims to a peer's name, that were turned away.
    pub refused: Refused,
}

/// What has gone wrong since the agent was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mishaps {
    /// Loaded peers that were lost.
    pub peers_lost: u64,
    /// Silences of peers that were reported.
    pub silences: u64,
    /// Stalls of transfers that were reported.
    pub stalls: u64,
    /// Transfers of ours that failed, cancelled ones included.
    pub transfers_failed: u64,
    /// Notifications of ours that were not confirmed when the stream ended that they were sent on.
    pub notifications_unconfirmed: u64,
    /// Frames of payload that were read and thrown away: late, of another session, or out of place.
    pub frames_dropped: u64,
    /// Regions that had to be quarantined, those that have left it since included.
    pub quarantines: u64,
}

impl Agent {
    /// What it holds and what has gone wrong; also lets go of quarantined memory that nothing can touch any more.
    pub fn counters(&self) -> Counters {
        if self.check_running().is_ok() {
            self.release_quarantined();
        }
        if self.shared.is_forked() {
            return Counters::default();
        }
        let core = self.shared.engine.wreck(); // whatever it is by now, it is only counted
        let counters = Counters { unread: !self.shared.inbox.is_empty(), ..core.counters() };
        match self.shared.has_failed() {
            true => Counters { streams: 0, ..counters }, // shut, though the endpoint has not been told
            false => counters,
        }
    }

    /// Chunks that have gone through staging slots so far, gathered out of small pieces.
    pub fn gathered_chunks(&self) -> u64 {
        match self.shared.is_forked() {
            true => 0,
            false => self.shared.engine.wreck().endpoint.gathered_chunks(),
        }
    }
}

impl Core {
    fn counters(&self) -> Counters {
        Counters {
            regions: self.registered.len(),
            quarantined: self.quarantine.len(),
            streams: self.endpoint.peers().count(),
            transfers: self.transfers.len(),
            unread: false,
            mishaps: self.mishaps,
            refused: Refused { fences: self.endpoint.fences_refused(), ..self.lobby.refused() },
        }
    }
}
