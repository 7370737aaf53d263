//! What the core does with its fabrics: moves their bytes, links them to peers, hands them batches and regions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::desc::{MemoryKind, PeerKey, RegionKey, TransferOp};
use crate::device::Device;
use crate::fabric::{Batch, Fabric, Link, Posted};
use crate::proto::endpoint::LaneSpec;
use crate::proto::section::AnnouncedRegion;

use super::super::control::ControlStream;
use super::super::staging::kind_of;
use super::super::tap::{Polled, Tap};
use super::Core;

/// A link that broke. A peer that has ended, or that closes its streams, takes its links down as well, and in any
/// order: why it did so is known a moment later.
#[derive(Debug)]
pub(super) struct LostLane {
    until: Instant,
    peer: PeerKey,
    lane: &'static str,
    error: String,
}

/// Bytes moved in one step under the lock.
const STEP_BYTES: u64 = 1 << 20;
/// The same where others copy as well, without the lock: what takes no longer than handing it to another thread.
const SMALL_BYTES: u64 = 128 << 10;
/// How long the end of a stream or of a process may be behind that of its links before the link itself is to blame. What
/// was under way on it has failed at once.
const LANE_GRACE: Duration = Duration::from_millis(100);

impl Core {
    /// A step of each fabric that has something to do.
    pub(super) fn poll_fabrics(&mut self, now: Instant) -> bool {
        let mut worked = false;
        self.has_posted = false;
        let mut lost = Vec::new();
        let lanes = self.endpoint.lanes().len();
        let due = self.fabrics.iter_mut().zip(&mut self.due).enumerate().filter(|(_, (_, due))| **due);
        for (index, (fabric, due)) in due {
            let source = match index < lanes {
                true => Polled::Lane(fabric.name()),
                false => Polled::Copier(kind_of(&**fabric)),
            };
            let dropped = &mut self.mishaps.frames_dropped;
            let mut tap = Tap::new(&mut self.endpoint, &mut self.marks, source, now, dropped);
            // Where others copy, too, they do it without the lock.
            let budget = if fabric.hand().is_some() { SMALL_BYTES } else { STEP_BYTES };
            let moved = fabric.poll(budget, &mut tap);
            *due = moved || fabric.wake().is_none();
            worked |= moved;
            if let Polled::Lane(lane) = source {
                lost.extend(tap.into_lost().into_iter().map(|(peer, error)| (lane, peer, error)));
            } // a copier's peer is this process
        }
        for (lane, peer, error) in lost {
            // It has left, perhaps, and its last words have come after this drive looked at its stream.
            match self.hear_out(peer, now) {
                Some(reason) => self.broken.push((peer, reason)),
                None => {
                    let until = now + LANE_GRACE;
                    self.lost_lanes.push(LostLane { until, peer, lane, error: error.to_string() });
                }
            }
        }
        self.report_lost_lanes(now);
        for _ in 0..self.handed_back.len() {
            let Some((lane, peer, batch)) = self.handed_back.pop_front() else { break };
            self.post(lane, peer, batch, now);
        }
        worked
    }

    /// Gives up the peers whose lanes broke a while ago, and who have not said or shown why.
    fn report_lost_lanes(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.lost_lanes);
        let (late, waiting) = waiting.into_iter().partition::<Vec<_>, _>(|lost| lost.until <= now);
        self.lost_lanes = waiting;
        for LostLane { peer, lane, error, .. } in late {
            self.endpoint.handle_lane(peer, lane, Err(error)); // a peer that is gone by now is no error
        }
    }

    pub(super) fn link(&mut self, key: PeerKey, link_id: [u8; 16]) {
        let stream = self.streams.get(&key);
        let credentials = stream.and_then(ControlStream::credentials);
        let Some(section) = self.endpoint.peer(key).and_then(|peer| peer.section()) else { return };
        self.due.fill(true);
        let lanes = self.endpoint.lanes().len();
        for fabric in &mut self.fabrics[..lanes] {
            if let Some(theirs) = section.fabrics.iter().find(|theirs| theirs.name == fabric.name()) {
                let keys = stream.and_then(|stream| stream.link_keys(fabric.name(), &link_id)).map(Arc::new);
                let address = theirs.address.clone();
                fabric.connect(key, Link { address, link_id, credentials, keys });
            }
        }
        self.link_copiers(key, link_id);
    }

    /// The fabrics that peers know of.
    pub(super) fn lanes(&mut self) -> &mut [Box<dyn Fabric>] {
        let lanes = self.endpoint.lanes().len().min(self.fabrics.len());
        &mut self.fabrics[..lanes]
    }

    /// What carries memory of the one kind to memory of the other between a peer and us, as its fabric says.
    pub(in crate::agent) fn carrier(&self, key: PeerKey, kinds: [MemoryKind; 2]) -> Option<&'static str> {
        let lanes = self.endpoint.peer(key)?.lanes();
        let mut carrying = lanes.carrying(self.endpoint.lanes(), TransferOp::Write, kinds);
        let (lane, ..) = carrying.next()?;
        self.fabrics.get(lane).map(|fabric| fabric.carrier(key))
    }

    pub(super) fn import(&mut self, key: PeerKey, announced: &AnnouncedRegion) {
        let Some(section) = self.endpoint.peer(key).and_then(|peer| peer.section()) else { return };
        for their_key in &announced.keys {
            let name = section.fabrics.get(usize::from(their_key.fabric)).map(|fabric| fabric.name.as_str());
            let lanes = self.endpoint.lanes().len().min(self.fabrics.len());
            let lanes = &mut self.fabrics[..lanes];
            let Some(fabric) = lanes.iter_mut().find(|fabric| Some(fabric.name()) == name) else {
                continue;
            };
            if let Err(error) = fabric.import(key, &announced.region, Some(&their_key.bytes)) {
                let region = announced.region.span;
                tracing::warn!(peer = key.0, %region, %error, "a region of the peer cannot be reached");
            }
        }
    }

    pub(super) fn post(&mut self, lane: usize, peer: PeerKey, batch: Batch, now: Instant) {
        let token = batch.token;
        let Some(fabric) = self.fabrics.get_mut(lane) else {
            return self.endpoint.handle_completed(token, Err("the agent was shut down".into()), now);
        };
        self.due[lane] = true; // as many as there are fabrics
        let posting = self.marks.posting(&self.endpoint, &batch);
        match fabric.post(peer, batch) {
            Ok(Posted::Accepted) => {
                self.has_posted = true;
                self.marks.copying(posting);
            }
            Ok(Posted::Full(batch)) => self.handed_back.push_back((lane, peer, batch)),
            Err(error) => self.endpoint.handle_completed(token, Err(error.to_string()), now),
        }
    }

    /// Has every GPU that a card may have written to see what it has.
    pub(super) fn flush_gpus(&mut self, peer: PeerKey) {
        let failed = self.gpus.iter().find_map(|device| device.flush_remote_writes().err());
        if let Some(error) = failed {
            tracing::error!(peer = peer.0, %error, "a GPU does not see what was written to it; its peer is given up");
            self.endpoint.handle_unflushed(peer, &error.to_string());
        }
    }

    /// Whether a lane's card may write to GPU memory by itself.
    fn has_cards(&self) -> bool {
        let writes = |lane: &LaneSpec| lane.native_write && lane.kinds.contains(&MemoryKind::Vram);
        self.endpoint.lanes().iter().any(writes)
    }

    /// Memory of a device is about to be registered.
    pub(in crate::agent) fn note_gpu(&mut self, device: &Arc<Device>) {
        if self.has_cards() && self.gpus.iter().all(|known| known.ordinal() != device.ordinal()) {
            self.gpus.push(Arc::clone(device));
        }
    }

    /// Makes every fabric forget these regions of ours.
    pub(in crate::agent) fn deregister_below(&mut self, keys: &[RegionKey]) {
        for fabric in &mut self.fabrics {
            keys.iter().for_each(|key| fabric.deregister(*key));
        }
    }
}
