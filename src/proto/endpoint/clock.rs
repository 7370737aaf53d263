//! What time brings: heartbeats, silence, late handshakes, streams nobody needs. Transfers that stand still are
//! judged in `stall`.

use std::time::{Duration, Instant};

use crate::desc::PeerKey;
use crate::proto::liveness::Verdict;
use crate::proto::session::SessionPhase;
use crate::proto::wire::Frame;

use super::{Action, Endpoint, OUTPUT_FATAL_BYTES, Peer};

/// How often [`Endpoint::handle_timeout`] wants to be called while there are peers.
pub const TICK: Duration = Duration::from_millis(100);
/// How long a stream stays that neither side needs: hosts invalidate a peer just before they load it again, and
/// one side's word that it has loaded the other may be on its way while the other side judges.
const IDLE_LINGER: Duration = Duration::from_secs(5);

impl Endpoint {
    /// Does what is due at `now`. May be called at any time.
    pub fn handle_timeout(&mut self, now: Instant) {
        let keys: Vec<_> = self.peers.keys().copied().collect();
        for key in keys {
            self.judge_peer(key, now);
            self.report_progress(key);
            self.judge_transfers(key, now);
            self.ask_about_transfers(key, now);
        }
    }

    fn judge_peer(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if peer.phase == SessionPhase::Over {
            return;
        }
        let verdict = peer.liveness.judge(peer.phase, &self.deadlines, now);
        if peer.phase.is_known() {
            peer.beat_when_due(verdict == Verdict::Speak, now);
        }
        match verdict {
            Verdict::Fine | Verdict::Speak => {}
            Verdict::Silent(silence) => {
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
        if let Some(stuck) =
            self.peers.get(&key).and_then(|peer| peer.stuck_events(self.deadlines.stall, now))
        {
            return self.close(key, stuck);
        }
        if let Some(waiting) = self.peers.get(&key).map(Peer::kept_bytes)
            && waiting > OUTPUT_FATAL_BYTES
        {
            return self.close(key, &format!("it does not read its stream: {waiting} bytes wait for it"));
        }
        self.repeat_ready(key, now);
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.phase == SessionPhase::Up) else {
            return;
        };
        if peer.is_needed() {
            peer.idle_since = None;
        } else if now.saturating_duration_since(*peer.idle_since.get_or_insert(now)) >= IDLE_LINGER {
            self.close(key, "neither side has the other loaded");
        }
    }

    /// Tells the peer which of its transfers have come on here, where it cannot see that itself.
    fn report_progress(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let moved: Vec<_> = peer
            .incoming
            .values_mut()
            .filter(|incoming| incoming.landed.len() > incoming.reported)
            .map(|incoming| {
                incoming.reported = incoming.landed.len();
                (incoming.id, incoming.reported)
            })
            .collect();
        moved.into_iter().for_each(|(id, done)| peer.say(&Frame::Progress { id, done }));
    }
}
