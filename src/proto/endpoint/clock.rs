//! What time brings: heartbeats, silence, late handshakes, stalled transfers, streams nobody needs.

use std::time::{Duration, Instant};

use crate::desc::PeerKey;
use crate::proto::session::{HEARTBEAT_EVERY, SessionPhase, Verdict};
use crate::proto::transfer::{Outgoing, OutgoingPhase, TransferError};
use crate::proto::wire::Frame;

use super::{Action, Endpoint, OUTPUT_FATAL_BYTES, Peer};

/// How often an endpoint with peers wants to be woken.
const TICK: Duration = Duration::from_millis(250);
/// How long a stream stays that neither side needs: hosts invalidate a peer just before they load it again, and
/// one side's word that it has loaded the other may be on its way while the other side judges.
const IDLE_LINGER: Duration = Duration::from_secs(5);

impl Endpoint {
    /// When [`Endpoint::handle_timeout`] wants to be called next; `None` while there are no peers.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        (!self.peers.is_empty()).then(|| now + TICK)
    }

    /// Does what is due at `now`. May be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            self.judge_peer(key, now);
            self.tell_progress(key, now);
            self.judge_transfers(key, now);
        }
    }

    fn judge_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.phase == SessionPhase::Over {
            return;
        }
        match peer.liveness.judge(peer.phase, &self.deadlines, now) {
            Verdict::Fine => {}
            Verdict::Speak => peer.say(&Frame::Heartbeat),
            Verdict::Silent(silence) => {
                peer.liveness.reported = true;
                self.actions.push_back(Action::Silent { peer: key, silent_ms: silence.as_millis() as u64 });
            }
            Verdict::Dead(silence) => {
                self.close(key, &format!("nothing was heard of it for {} ms", silence.as_millis()));
            }
            Verdict::HandshakeLate => {
                let limit = self.deadlines.handshake.as_millis();
                self.close(key, &format!("its handshake took longer than {limit} ms"));
            }
        }
        if let Some(waiting) = self.peers.get(&key).map(Peer::output_bytes)
            && waiting > OUTPUT_FATAL_BYTES
        {
            return self.close(key, &format!("it does not read its stream: {waiting} bytes wait for it"));
        }
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.phase == SessionPhase::Up) else {
            return;
        };
        if peer.is_needed() {
            peer.idle_since = None;
        } else if now.saturating_duration_since(*peer.idle_since.get_or_insert(now)) >= IDLE_LINGER {
            self.close(key, "neither side has the other loaded");
        }
    }

    /// Tells the peer that its transfers get on: it cannot see that where we move their bytes.
    fn tell_progress(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.has_progress) else { return };
        if now.saturating_duration_since(peer.progress_told) >= HEARTBEAT_EVERY {
            peer.say(&Frame::Progress);
            (peer.has_progress, peer.progress_told) = (false, now);
        }
    }

    fn judge_transfers(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get(&key) else { return };
        let stall = self.deadlines.stall;
        let stalled: Vec<_> = peer
            .outgoing
            .values()
            .filter(|transfer| now.saturating_duration_since(last_progress(peer, transfer)) > stall)
            .map(|transfer| {
                let reason = TransferError::Stalled {
                    seconds: stall.as_secs(),
                    landed: transfer.done.len(),
                    chunks: transfer.chunks(),
                    in_flight: transfer.in_flight,
                };
                (transfer.id, transfer.phase, reason)
            })
            .collect();
        for (id, phase, reason) in stalled {
            match phase {
                OutgoingPhase::Draining | OutgoingPhase::Aborting => {
                    self.close(key, "it does not answer an abort");
                }
                _ => self.break_off_at(id, reason, now),
            }
        }
    }
}

/// When a transfer last got on. While its bytes move, those of the others count: it may wait behind them.
fn last_progress(peer: &Peer, transfer: &Outgoing) -> Instant {
    match transfer.phase {
        OutgoingPhase::Moving | OutgoingPhase::Committing => transfer.last_progress.max(peer.last_progress),
        _ => transfer.last_progress,
    }
}
