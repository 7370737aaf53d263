//! What the log says of a transfer that stands still.

use crate::proto::endpoint::{Endpoint, Stall};

/// Logs a stall: who, what, over what, how far, since when.
pub(super) fn warn(endpoint: &Endpoint, stall: &Stall) {
    let peer = endpoint.peer(stall.peer).map_or("", |peer| peer.name());
    let lane = stall.lane.and_then(|lane| endpoint.lanes().get(lane)).map_or("none", |lane| lane.name);
    tracing::warn!(
        transfer = %stall.id,
        peer,
        by = if stall.is_ours { "us" } else { "the peer" },
        op = %stall.op,
        lane,
        phase = stall.phase,
        done = stall.done,
        chunks = stall.chunks,
        missing = %stall.missing,
        in_flight = stall.in_flight,
        stalled_ms = stall.stalled_ms,
        "a transfer stands still"
    );
}
