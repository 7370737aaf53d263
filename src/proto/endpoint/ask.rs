//! Asking instead of waiting: the initiator of a transfer that does not come on asks where it stands, and says
//! again what the answer shows to be lost. The responder answers from what it knows and changes nothing.
//!
//! Everything that is said again is safe to hear twice: the responder knows which chunks it has heard of, whether
//! COMMIT is here, and which transfers are over. Data frames are not sent again; their streams lose nothing
//! as long as they last.

use std::time::Instant;

use crate::desc::{PeerKey, TransferId};
use crate::planted::{self, Planted};
use crate::proto::session::SessionPhase;
use crate::proto::transfer::{Mover, Outgoing, OutgoingPhase, Run, Runs, TransferError};
use crate::proto::wire::{Frame, Standing, State};

use super::{Endpoint, Peer, TICK};

/// Questions to one peer in one tick; the others have their turn at the next.
const ASKS_PER_TICK: usize = 512;

impl Endpoint {
    /// Asks the peer where those of our transfers stand that have not come on for a while.
    pub(super) fn ask_about_transfers(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key).filter(|peer| peer.phase == SessionPhase::Up) else {
            return;
        };
        let heard = peer.liveness.heard();
        let due = |transfer: &mut Outgoing| {
            let is_due = transfer.is_told_of() && transfer.progress.ask_is_due(heard, now);
            transfer.awaits_state |= is_due;
            is_due.then_some(transfer.id)
        };
        let ids: Vec<_> = peer.outgoing.values_mut().filter_map(due).take(ASKS_PER_TICK).collect();
        let ids = ids.into_iter().filter(|_| !planted::is(Planted::NeverAsked));
        ids.for_each(|id| peer.say(&Frame::Ask { id }));
    }

    /// Answers from what is known: for a transfer that has not ended here once in a tick, as that walks over its chunks.
    pub(super) fn handle_ask(&mut self, key: PeerKey, id: TransferId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if let Some(end) = peer.ended.end(id) {
            if planted::is(Planted::EndSaidOnce) {
                return;
            }
            return peer.say_end(id, end);
        }
        let Some(incoming) = peer.incoming.get_mut(&id) else {
            return peer.say(&Frame::State(unknown(id)));
        };
        if incoming.told.is_some_and(|told| now.saturating_duration_since(told) < TICK) {
            return;
        }
        incoming.told = Some(now);
        let (state, failure) = (incoming.state(), incoming.failure.clone());
        if let Some(text) =
            failure.filter(|_| state.standing == Standing::Failed && !planted::is(Planted::FailUnsaid))
        {
            peer.say(&Frame::Fail { id, text: &text });
        }
        peer.say(&Frame::State(state));
    }

    pub(super) fn handle_state(&mut self, key: PeerKey, state: State, now: Instant) {
        let id = state.id;
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let Some(transfer) = peer.outgoing.get_mut(&id) else { return };
        if transfer.note_landed(state.done) {
            transfer.progress.note(now);
        }
        transfer.their_missing = Some(state.missing);
        let was_asked = std::mem::take(&mut transfer.awaits_state); // one question has one answer that is acted upon
        let is_over = state.standing == Standing::Forgotten;
        match transfer.phase {
            OutgoingPhase::Moving | OutgoingPhase::Committing if is_over => {
                let text = "it has ended it, so long ago that it does not know how";
                transfer.break_off(TransferError::Remote(text.into()));
            }
            OutgoingPhase::Moving | OutgoingPhase::Committing if was_asked => {
                let commit_is_lost = transfer.committed && !state.committed;
                if matches!(state.standing, Standing::Unknown | Standing::Receiving) {
                    request_again(peer, id, &state.unheard);
                    if commit_is_lost {
                        peer.say_commit(id);
                    }
                }
            }
            // Whichever way it ended there, nothing of it moves any more.
            OutgoingPhase::Aborting if is_over => transfer.answers_owed = Some(0),
            OutgoingPhase::Aborting if was_asked && state.standing != Standing::Closing => peer.say_abort(id),
            _ => {}
        }
    }
}

/// Asks again for those of these chunks that we had asked for and that are not here, as far as the stream has room.
fn request_again(peer: &mut Peer, id: TransferId, unheard: &Runs) {
    for &Run { first, last } in unheard.as_slice() {
        let Some(issued) = peer.outgoing.get(&id).map(|transfer| transfer.next_chunk) else { return };
        for chunk in first..last.saturating_add(1).min(issued) {
            let room = peer.output_has_room();
            let Some(transfer) = peer.outgoing.get(&id).filter(|_| room) else { return };
            match transfer.mover {
                Mover::Pulled | Mover::Answered if transfer.done.contains(chunk) => {}
                Mover::Pulled | Mover::Answered => peer.say_request(id, chunk),
                // What is in a slot has been told by an event, which is said again by itself.
                Mover::Native | Mover::Framed | Mover::Gathered => return,
            }
        }
    }
}

/// The state of a transfer that nothing has come of.
fn unknown(id: TransferId) -> State {
    let all = Run { first: 0, last: u32::MAX };
    State {
        id,
        standing: Standing::Unknown,
        committed: false,
        done: 0,
        unheard: Runs::new(std::iter::once(all)),
        missing: Runs::new(std::iter::once(all)),
    }
}

#[cfg(test)]
mod tests;
