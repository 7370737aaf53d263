//! Transfers that stand still: reported soon, broken off at the stall deadline.

use std::time::{Duration, Instant};

use crate::desc::{PeerKey, TransferId};
use crate::planted::{self, Planted};
use crate::proto::transfer::{Incoming, Outgoing, OutgoingPhase, TransferError};

use super::{Action, Endpoint, Peer, Stall};

/// Reports of one peer's transfers in one tick; the others have their turn at the next.
const REPORTS_PER_TICK: usize = 16;

/// A transfer of ours beyond the deadline.
type Overdue = (TransferId, OutgoingPhase, TransferError);

impl Endpoint {
    pub(super) fn judge_transfers(&mut self, key: PeerKey, now: Instant) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let (mut reports, overdue) = judge_outgoing(key, peer, self.deadlines.stall, now);
        judge_incoming(key, peer, now, &mut reports);
        self.actions.extend(reports.into_iter().map(|stall| Action::Stalled(Box::new(stall))));
        for (id, phase, reason) in overdue.into_iter().filter(|_| !planted::is(Planted::StallNeverJudged)) {
            match phase {
                OutgoingPhase::Draining | OutgoingPhase::Aborting => {
                    self.close(key, "it does not answer an abort");
                }
                _ => self.break_off_at(id, reason, now),
            }
        }
    }
}

/// Transfers of ours that have not come on, nor has anything that they wait behind: those submitted before
/// them, and for room on the lane what the peer has asked for.
fn judge_outgoing(
    key: PeerKey,
    peer: &mut Peer,
    deadline: Duration,
    now: Instant,
) -> (Vec<Stall>, Vec<Overdue>) {
    let (mut reports, mut overdue) = (Vec::new(), Vec::new());
    let mut ahead = peer.last_end;
    for transfer in peer.outgoing.values_mut() {
        ahead = ahead.max(Some(transfer.progress.last()));
        let served = peer.last_served.filter(|_| transfer.has_chunk_to_issue());
        let Some(since) = ahead.max(served) else { continue };
        if now.saturating_duration_since(since) > deadline {
            let reason = TransferError::Stalled {
                seconds: deadline.as_secs(),
                landed: transfer.done_count(),
                chunks: transfer.chunks(),
                in_flight: transfer.in_flight,
            };
            overdue.push((transfer.id, transfer.phase, reason));
        } else if reports.len() < REPORTS_PER_TICK && transfer.progress.report_is_due(since, now) {
            reports.push(outgoing_stall(key, transfer, now));
        }
    }
    (reports, overdue)
}

/// Transfers of the peer that have not come on here, nor has the lane if it is what they wait for.
fn judge_incoming(key: PeerKey, peer: &mut Peer, now: Instant, reports: &mut Vec<Stall>) {
    for incoming in peer.incoming.values_mut() {
        let served = peer.last_served.filter(|_| incoming.in_flight > 0);
        let since = served.map_or(incoming.progress.last(), |served| served.max(incoming.progress.last()));
        if reports.len() < REPORTS_PER_TICK && incoming.progress.report_is_due(since, now) {
            reports.push(incoming_stall(key, incoming, now));
        }
    }
}

fn outgoing_stall(peer: PeerKey, transfer: &Outgoing, now: Instant) -> Stall {
    Stall {
        peer,
        id: transfer.id,
        is_ours: true,
        op: transfer.op,
        lane: Some(transfer.lane),
        phase: transfer.phase.name(),
        done: transfer.done_count(),
        chunks: Some(transfer.chunks()),
        missing: transfer.missing(),
        in_flight: transfer.in_flight,
        stalled_ms: millis_since(transfer.progress.last(), now),
    }
}

fn incoming_stall(peer: PeerKey, incoming: &Incoming, now: Instant) -> Stall {
    Stall {
        peer,
        id: incoming.id,
        is_ours: false,
        op: incoming.op,
        lane: incoming.lane,
        phase: incoming.phase.name(),
        done: incoming.done().len(),
        chunks: incoming.commit.as_ref().map(|commit| commit.chunks),
        missing: incoming.missing(),
        in_flight: incoming.in_flight,
        stalled_ms: millis_since(incoming.progress.last(), now),
    }
}

fn millis_since(then: Instant, now: Instant) -> u64 {
    now.saturating_duration_since(then).as_millis() as u64
}
