//! A whole endpoint with registered memory, and peers that say and do anything.
//!
//! The bytes are a story: each step is a frame of a peer, well-formed or not, something that a fabric reports, a
//! command of our host, or time. After each step everything that the endpoint wants is done, as the agent would do
//! it, and looked at:
//!
//! * no payload is placed, and no batch posted, outside memory that is registered at that moment;
//! * what is still on its way into memory that has been deregistered keeps that memory busy, so that its owner waits;
//! * every transfer of ours ends once; what is said to peers is well-formed and carries their stream's tag;
//! * in the end everybody is closed, and nothing is left.

mod peers;
mod steps;
mod watch;

use std::time::{Duration, Instant};

use baton::desc::{MemoryKind, PeerKey, Region, RegionKey, SessionId, Span};
use baton::proto::endpoint::{Endpoint, Identity, LaneSpec, StagingSpec};
use baton::proto::section::{AnnouncedRegion, CAPABILITY_SLOTS, FabricAddress, HostId, Section};
use baton::proto::session::Deadlines;

use super::bytes::Bytes;
use watch::Watch;

/// Plays the story; whether any peer came up.
pub fn run(data: &[u8]) -> bool {
    let mut bytes = Bytes::new(data);
    let mut world = World::new(bytes.u8());
    for _ in 0..MOST_STEPS {
        if bytes.is_empty() {
            break;
        }
        world.step(&mut bytes);
        world.settle();
    }
    world.end()
}

/// Longer stories find nothing that shorter ones do not, and take longer.
const MOST_STEPS: usize = 400;

/// Everything there is.
struct World {
    endpoint: Endpoint,
    now: Instant,
    peers: Vec<Known>,
    watch: Watch,
    next_region: u32,
}

/// A stream, as we see it from outside.
struct Known {
    key: PeerKey,
    tag: u64,
}

const LANE: &str = "lane";
const OURS: [u8; 16] = [7; 16];
const THEIRS: [u8; 16] = [9; 16];
/// Our memory: two regions that touch, one at the very end of the address space.
const MEMORY: [Span; 3] = [
    Span { addr: 0x10000, len: 0x1000 },
    Span { addr: 0x11000, len: 0x1000 },
    Span { addr: u64::MAX - 0x1000, len: 0x1000 },
];

/// Slots of staging memory, on a lane that gathers.
const STAGING: Span = Span { addr: 0x20000, len: 0x1000 };

impl World {
    fn new(style: u8) -> Self {
        let native = |read, write, framed| LaneSpec {
            name: LANE,
            native_read: read,
            native_write: write,
            framed,
            kinds: &[MemoryKind::Dram],
            selective: false,
            gathers_below: 0,
            maps_regions: false,
            batches_in_flight: 4,
            segments_per_chunk: 8,
            bytes_per_chunk: 0x800,
        };
        let lane = match style % 4 {
            0 => native(true, false, false),
            1 => native(true, true, false),
            2 => LaneSpec { gathers_below: u64::MAX, ..native(true, true, false) },
            _ => native(false, false, true),
        };
        let deadlines = Deadlines {
            handshake: Duration::from_secs(5),
            peer: Duration::from_secs(5),
            stall: Duration::from_secs(30),
        };
        let identity = Identity { name: "us".into(), section: section(OURS, Vec::new()) };
        let mut world = Self {
            endpoint: Endpoint::new(identity, vec![lane], deadlines),
            now: Instant::now(),
            peers: Vec::new(),
            watch: Watch::default(),
            next_region: 1,
        };
        MEMORY.iter().for_each(|span| world.register(*span));
        if lane.gathers() {
            world.register(STAGING);
            let (kind, slot_bytes) = (MemoryKind::Dram, 0x200);
            let spec =
                StagingSpec { kind, device: 0, copier: 1, memory: STAGING, slot_bytes, segments_per_copy: 8 };
            world.endpoint.add_staging(spec);
        }
        world
    }

    fn register(&mut self, span: Span) {
        let region = announced(self.next_region, span);
        self.next_region += 1;
        self.endpoint.add_region(region.clone()).expect("a region like this is taken");
        self.watch.registered(region.region);
    }

    fn deregister(&mut self, region: Region) {
        self.endpoint.remove_region(region.key);
        self.watch.revoked(region.key);
    }

    /// Lets everybody go, and looks whether anything is left.
    fn end(mut self) -> bool {
        self.endpoint.shutdown();
        self.settle();
        self.endpoint.close_all();
        self.settle();
        assert_eq!(self.endpoint.peers().count(), 0, "every stream was asked to close");
        assert!(!self.endpoint.is_busy() && !self.endpoint.is_revoking());
        self.watch.assert_over();
        self.watch.came_up
    }
}

fn announced(key: u32, span: Span) -> AnnouncedRegion {
    let region = Region { key: RegionKey(key), kind: MemoryKind::Dram, device: 0, span };
    AnnouncedRegion { region, keys: Vec::new() }
}

fn section(session: [u8; 16], regions: Vec<AnnouncedRegion>) -> Section {
    Section {
        session: SessionId(session),
        host: HostId([1; 16]),
        uid: 0,
        capabilities: CAPABILITY_SLOTS,
        endpoints: Vec::new(),
        fabrics: vec![FabricAddress { name: LANE.into(), address: Vec::new() }],
        regions,
        mac: None,
    }
}
