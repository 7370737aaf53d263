//! One side: an endpoint and its fabric, and what has to be done between them. Does for the simulation what
//! the agent's core does for processes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use baton::desc::{MemoryKind, OpToken, PeerKey, Region, RegionKey, Segment, SessionId, Span, TransferOp};
use baton::error::FabricError;
use baton::fabric::sim::SimFabric;
use baton::fabric::{Batch, Fabric, Landing, Link, Posted, Sink};
use baton::proto::endpoint::{Action, Endpoint, Identity, LaneSpec, Placement, StagingSpec};
use baton::proto::section::{AnnouncedRegion, CAPABILITY_SLOTS, FabricAddress, FabricKey, HostId, Section};
use baton::proto::session::Deadlines;

use crate::memory::Memory;

/// See the [module](self).
pub struct Node {
    pub endpoint: Endpoint,
    pub fabric: SimFabric,
    /// Batches between their post and their completion.
    pub posted: BTreeMap<OpToken, (PeerKey, TransferOp, Vec<Segment>)>,
    handed_back: VecDeque<(PeerKey, Batch)>,
    /// Copies within the process that have yet to be done.
    copies: VecDeque<(PeerKey, OpToken, Vec<Segment>)>,
    tags: BTreeMap<PeerKey, u64>,
    next_region: u32,
    /// Staging slots; behind the fabric, which goes before the memory it knows.
    staging: Option<Memory>,
}

/// The name of the lane, and its index.
const LANE: &str = "sim";
const LANE_INDEX: usize = 0;
/// The index of what copies within the process.
const COPIER: usize = 1;
/// Staging slots of a node whose lane gathers: enough to lend some to one peer and a half to the next.
const SLOTS: u64 = 12;
const SLOT_BYTES: u64 = 96;
/// The region that they are.
const STAGING: RegionKey = RegionKey(u32::MAX);

impl Node {
    /// A node without peers and regions.
    pub fn new(fabric: SimFabric, name: &str, session: SessionId, deadlines: Deadlines) -> Self {
        let limits = fabric.limits();
        let lane = LaneSpec {
            name: LANE,
            native_read: limits.native_read,
            native_write: limits.native_write,
            framed: limits.framed,
            kinds: limits.kinds,
            selective: limits.selective,
            gathers_below: limits.gathers_below,
            maps_regions: limits.maps_regions,
            batches_in_flight: limits.batches_in_flight,
            segments_per_chunk: limits.segments_per_batch,
            bytes_per_chunk: limits.bytes_per_batch,
        };
        let section = Section {
            session,
            host: HostId([1; 16]),
            uid: 0,
            capabilities: CAPABILITY_SLOTS,
            endpoints: Vec::new(),
            fabrics: vec![FabricAddress { name: LANE.into(), address: fabric.address() }],
            regions: Vec::new(),
            mac: None,
        };
        let endpoint = Endpoint::new(Identity { name: name.into(), section }, vec![lane], deadlines);
        let mut node = Self {
            endpoint,
            fabric,
            posted: BTreeMap::new(),
            handed_back: VecDeque::new(),
            copies: VecDeque::new(),
            tags: BTreeMap::new(),
            next_region: 1,
            staging: None,
        };
        if lane.gathers() {
            node.add_staging();
        }
        node
    }

    fn add_staging(&mut self) {
        let memory = Memory::new(&[0; (SLOTS * SLOT_BYTES) as usize]);
        let (memory, kind) = (self.staging.insert(memory).span(), MemoryKind::Dram);
        self.register_as(STAGING, memory).expect("DRAM");
        let spec = StagingSpec {
            kind,
            device: 0,
            copier: COPIER,
            memory,
            slot_bytes: SLOT_BYTES,
            segments_per_copy: 4,
        };
        self.endpoint.add_staging(spec);
    }

    /// Registers memory of a [`Memory`](crate::memory::Memory) with the fabric and announces it.
    pub fn register(&mut self, span: Span) -> Result<RegionKey, FabricError> {
        let key = RegionKey(self.next_region);
        self.next_region += 1;
        self.register_as(key, span)?;
        Ok(key)
    }

    fn register_as(&mut self, key: RegionKey, span: Span) -> Result<(), FabricError> {
        let region = Region { key, kind: MemoryKind::Dram, device: 0, span };
        // SAFETY: the memory lives until after the fabric in every run, and Rust never references it.
        let bytes = unsafe { self.fabric.register(&region) }?;
        let keys = if bytes.is_empty() { Vec::new() } else { vec![FabricKey { fabric: 0, bytes }] };
        self.endpoint.add_region(AnnouncedRegion { region, keys }).expect("a sane region");
        Ok(())
    }

    /// Polls the fabric, then posts what it had handed back.
    pub fn poll(&mut self, budget_bytes: u64, now: Instant) -> bool {
        let mut tap = Tap { endpoint: &mut self.endpoint, posted: &mut self.posted, now };
        let worked = self.fabric.poll(budget_bytes, &mut tap);
        for _ in 0..self.handed_back.len() {
            let Some((peer, batch)) = self.handed_back.pop_front() else { break };
            self.post(peer, batch, now);
        }
        worked | self.copy(now)
    }

    /// Does the oldest of the copies within the process.
    fn copy(&mut self, now: Instant) -> bool {
        let Some((_, token, segments)) = self.copies.pop_front() else { return false };
        for Segment { src, dst, len } in segments {
            let (src, dst) = (std::ptr::with_exposed_provenance(src as usize), dst as usize);
            // SAFETY: one side is a slot of `staging`, the other lies in memory that is registered, which outlives the
            // node: the endpoint has checked it. Rust references neither, and they do not overlap.
            unsafe {
                std::ptr::copy_nonoverlapping::<u8>(
                    src,
                    std::ptr::with_exposed_provenance_mut(dst),
                    len as usize,
                )
            }
        }
        self.endpoint.handle_completed(token, Ok(()), now);
        true
    }

    /// Posts a batch, or keeps it for later.
    pub fn post(&mut self, peer: PeerKey, batch: Batch, now: Instant) {
        let (token, op, segments) = (batch.token, batch.op, batch.segments.clone());
        match self.fabric.post(peer, batch) {
            Ok(Posted::Accepted) => drop(self.posted.insert(token, (peer, op, segments))),
            Ok(Posted::Full(batch)) => self.handed_back.push_back((peer, batch)),
            Err(error) => self.endpoint.handle_completed(token, Err(error.to_string()), now),
        }
    }

    /// Carries out what concerns the fabric alone; gives back what does not.
    pub fn carry_out(&mut self, action: Action, now: Instant) -> Option<Action> {
        match action {
            Action::Link { peer, link_id } => {
                let tag = link_id.first_chunk().map(|tag| u64::from_le_bytes(*tag));
                self.tags.extend(tag.map(|tag| (peer, tag)));
                let section = self.endpoint.peer(peer).and_then(|peer| peer.section());
                if let Some(theirs) = section.and_then(|section| section.fabrics.first()) {
                    let link =
                        Link { address: theirs.address.clone(), link_id, credentials: None, keys: None };
                    self.fabric.connect(peer, link);
                }
                if self.staging.is_some() {
                    self.endpoint.handle_copier(peer, MemoryKind::Dram);
                }
            }
            Action::Import { peer, announced } => {
                for key in &announced.keys {
                    // As in the agent, a region that cannot be imported is one that cannot be reached.
                    let _ = self.fabric.import(peer, &announced.region, Some(&key.bytes));
                }
            }
            Action::Withdraw { peer, region } => {
                let _ = self.fabric.import(peer, &region, None); // as in the agent
            }
            Action::Post { peer, lane: COPIER, token, segments, .. } => {
                self.copies.push_back((peer, token, segments));
            }
            Action::Post { peer, lane, token, op, segments, header } => {
                assert_eq!(lane, LANE_INDEX, "there is one lane");
                self.post(peer, Batch { token, op, segments, header }, now);
            }
            other => return Some(other),
        }
        None
    }

    /// Lets the fabric go of a peer, then tells the endpoint.
    pub fn let_go(&mut self, key: PeerKey, reason: &str) {
        self.fabric.disconnect(key);
        self.handed_back.retain(|(peer, _)| *peer != key);
        self.posted.retain(|_, (peer, ..)| *peer != key);
        self.copies.retain(|(peer, ..)| *peer != key);
        self.endpoint.handle_closed(key, reason);
    }

    /// The tag that frames of this stream carry; 0 before the handshake.
    pub fn tag(&self, key: PeerKey) -> u64 {
        self.tags.get(&key).copied().unwrap_or_default()
    }

    /// Whether anything waits to be posted.
    pub fn holds_batches(&self) -> bool {
        !self.handed_back.is_empty() || !self.copies.is_empty()
    }
}

/// Where the fabric's events meet the endpoint.
struct Tap<'a> {
    endpoint: &'a mut Endpoint,
    posted: &'a mut BTreeMap<OpToken, (PeerKey, TransferOp, Vec<Segment>)>,
    now: Instant,
}

impl Sink for Tap<'_> {
    fn connected(&mut self, peer: PeerKey, outcome: Result<(), FabricError>) {
        self.endpoint.handle_lane(peer, LANE, text(outcome));
    }

    fn completed(&mut self, token: OpToken, outcome: Result<(), FabricError>) {
        self.posted.remove(&token);
        self.endpoint.handle_completed(token, text(outcome), self.now);
    }

    fn arrived(&mut self, peer: PeerKey, header: &[u8], payload_bytes: u64) -> Landing {
        match self.endpoint.handle_arrived(peer, header, payload_bytes) {
            Placement::Scatter { ticket, spans } => Landing::Scatter { ticket, spans },
            Placement::Discard => Landing::Discard,
        }
    }

    fn landed(&mut self, _peer: PeerKey, ticket: u64, outcome: Result<(), FabricError>) {
        self.endpoint.handle_landed(ticket, text(outcome), self.now);
    }

    fn lost(&mut self, peer: PeerKey, error: FabricError) {
        self.endpoint.handle_lane(peer, LANE, Err(error.to_string()));
    }
}

fn text(outcome: Result<(), FabricError>) -> Result<(), String> {
    outcome.map_err(|error| error.to_string())
}
