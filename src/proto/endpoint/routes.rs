//! Which lanes a transfer may take: decided where it is planned, outside the lock of whoever owns the endpoint.

use std::sync::Arc;

use crate::desc::{Descriptor, MemoryKind, RegionKey, TransferOp};
use crate::proto::plan::{Party, Plan, PlanCaps};

use super::{CommandError, Endpoint, Unkeyed};

/// The lanes that a transfer may take, best first.
#[derive(Clone, Debug)]
pub struct Routes {
    routes: Vec<Route>,
    ours: Arc<Unkeyed>,
    theirs: Arc<Unkeyed>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The lane, as an index into the endpoint's lanes.
    pub lane: usize,
    /// What a chunk on it may hold.
    pub caps: PlanCaps,
    /// How a transfer of small pieces goes over it.
    pub gathering: Option<Gathering>,
    /// Whose regions it reaches by their keys alone.
    pub keys_wanted_of: Option<Party>,
}

/// The way of a transfer of small pieces: gathered into staging slots, written slot by slot, scattered by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gathering {
    /// Worth it for pieces of fewer bytes than these, on average.
    pub below: u64,
    /// What a slot may hold.
    pub caps: PlanCaps,
    /// The devices that the slots are on, ours and the peer's.
    pub devices: [u32; 2],
}

impl Gathering {
    /// Whether a transfer between these descriptors of ours and the peer's may gain by it: what has large pieces even before
    /// any are merged does not, nor what lies on another device than the slots.
    pub fn may_suit(&self, sides: [(MemoryKind, &[Descriptor]); 2]) -> bool {
        let [(_, descs), _] = sides;
        let bytes = descs.iter().fold(0_u64, |sum, descriptor| sum.saturating_add(descriptor.len));
        let mut sides = sides.into_iter().zip(self.devices);
        self.gains(descs.len(), bytes)
            && sides.all(|((kind, descs), device)| {
                kind != MemoryKind::Vram || descs.iter().all(|descriptor| descriptor.device == device)
            })
    }

    /// Whether one that is planned so does.
    pub fn suits(&self, plan: &Plan) -> bool {
        self.gains(plan.segments().len(), plan.bytes())
    }

    fn gains(&self, pieces: usize, bytes: u64) -> bool {
        pieces >= PIECES_MIN && bytes / (pieces as u64) < self.below
    }
}

/// Fewer pieces than these are not worth the two further copies.
const PIECES_MIN: usize = 16;

impl Routes {
    /// The lanes in order.
    pub fn iter(&self) -> impl Iterator<Item = Route> {
        self.routes.iter().copied()
    }

    /// Whether a lane has the keys it wants. `touched` tells which regions of a party the transfer touches; it is asked only
    /// where some have none.
    pub fn reaches(&self, route: Route, touched: impl FnOnce(Party) -> Vec<RegionKey>) -> bool {
        let (party, unkeyed) = match route.keys_wanted_of {
            None => return true,
            Some(Party::Local) => (Party::Local, &self.ours),
            Some(Party::Remote) => (Party::Remote, &self.theirs),
        };
        unkeyed.is_empty() || touched(party).into_iter().all(|key| !unkeyed.contains(&(route.lane, key)))
    }
}

impl Endpoint {
    /// The lanes on which a loaded peer's memory and ours of these kinds may be moved; at least one.
    pub fn routes(&self, name: &str, op: TransferOp, kinds: [MemoryKind; 2]) -> Result<Routes, CommandError> {
        let (key, peer) = self.loaded_peer(name)?;
        let carrying = peer.lanes.carrying(&self.lanes, op, kinds);
        let routes: Vec<_> = carrying
            .map(|(lane, spec, _)| Route {
                lane,
                caps: PlanCaps {
                    segments_per_chunk: spec.segments_per_chunk,
                    bytes_per_chunk: spec.bytes_per_chunk,
                },
                gathering: self.gathering(key, peer, spec, op, kinds),
                keys_wanted_of: spec.keys_wanted_of(op),
            })
            .collect();
        if routes.is_empty() {
            let [local, remote] = kinds;
            let reasons = peer.lanes.reasons(&self.lanes);
            return Err(CommandError::NoLane { name: name.into(), op, local, remote, reasons });
        }
        Ok(Routes { routes, ours: Arc::clone(&self.unkeyed), theirs: Arc::clone(&peer.unkeyed) })
    }
}
