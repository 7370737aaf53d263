//! What network cards write to a GPU, which it need not see at once: it is made to before anybody is told of it.

use crate::desc::{MemoryKind, PeerKey};
use crate::proto::transfer::TransferError;

use super::{Action, Endpoint, LaneSpec};

impl Endpoint {
    /// What was written to a GPU for this peer cannot be made visible there. The stream ends, and what was still to be said
    /// on it is not said: it may acknowledge those bytes.
    pub fn handle_unflushed(&mut self, key: PeerKey, error: &str) {
        let reason = format!("a GPU does not see what was written to it: {error}");
        // A read that would have ended behind the flush has not brought what it says.
        for action in &mut self.actions {
            if let Action::Ended { id, outcome: outcome @ Ok(()) } = action
                && id.peer() == key
            {
                *outcome = Err(TransferError::Local(reason.clone()));
            }
        }
        self.cut_off(key, &reason);
    }

    /// Asks for what cards have written to our GPUs to be made visible there, if a lane to this peer has any write there.
    pub(super) fn flush_gpus(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        let writes = |spec: &LaneSpec| spec.native_write && spec.kinds.contains(&MemoryKind::Vram);
        if peer.lanes.agreed().iter().any(|lane| writes(&self.lanes[*lane])) {
            self.actions.push_back(Action::Flush { peer: key });
        }
    }
}
