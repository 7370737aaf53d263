//! What an endpoint keeps, one by one or counted: all of it goes back to zero once nothing is under way.

use crate::desc::{PeerKey, TransferId};

use super::{Endpoint, Flight};

/// What an endpoint keeps, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transfers of ours that have not ended.
    pub outgoing: usize,
    /// Transfers of peers that have not ended here.
    pub incoming: usize,
    /// Batches and landings under way.
    pub flights: usize,
    /// The batches among them, as each lane's bound counts them.
    pub posted: usize,
    /// Chunks that peers have asked for and that wait for room.
    pub requests: usize,
    /// Regions of ours that peers have yet to let go of.
    pub revoking: usize,
    /// Regions of peers that we have yet to let go of.
    pub releasing: usize,
    /// Staging slots of ours that are being gathered in, read, or may be written into by peers that are gone.
    pub slots: usize,
    /// Bytes that wait for a stream.
    pub output_bytes: usize,
}

/// Something on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightInfo {
    /// To whom or from whom.
    pub peer: PeerKey,
    /// The transfer, as its initiator numbers it.
    pub id: TransferId,
    /// Whether it is ours, or one of the peer's.
    pub is_ours: bool,
    /// Index into the lanes given at construction.
    pub lane: usize,
    /// Bytes.
    pub bytes: u64,
}

impl Endpoint {
    /// The posted batch with this token, or the landing payload with this ticket, unless it is over.
    pub fn flight(&self, number: u64) -> Option<FlightInfo> {
        let Flight { peer, lane, id, bytes, kind, .. } = *self.flights.get(&number)?;
        Some(FlightInfo { peer, id, is_ours: kind.is_ours(), lane, bytes })
    }

    /// What is kept for all peers together.
    pub fn counters(&self) -> Counters {
        let (flights, slots) = (self.flights.len(), self.staging.in_use());
        let mut sum = Counters { flights, slots, ..Counters::default() };
        for peer in self.peers.values() {
            sum.outgoing += peer.outgoing.len();
            sum.incoming += peer.incoming.len();
            sum.posted += peer.lanes.posted();
            sum.requests += peer.requests.len();
            sum.revoking += peer.revoking.len();
            sum.releasing += peer.releasing.len();
            sum.output_bytes += peer.output_bytes();
        }
        sum
    }
}
