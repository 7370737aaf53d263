//! Opened fabrics with their memory and sinks, and the bounded driver that polls them. What they copy: [`crate::copy`].

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use baton::desc::{MemoryKind, PeerKey, RegionKey, Segment, Span};
use baton::error::FabricError;
use baton::fabric::{Fabric, Limits, Region};

use crate::harness::{Harness, Skip};
use crate::log::Log;
use crate::memory::{Memory, Snapshot};

/// Bytes a poll may move unless a case says otherwise.
pub const POLL_BUDGET_BYTES: u64 = 1 << 20;
/// Longest that any wait of the suite takes before it panics.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A fabric and what it works on.
pub struct Node {
    /// `None` once dropped by the case.
    fabric: Option<Box<dyn Fabric>>,
    pub log: Log,
    held: Vec<Held>,
    peers: Vec<(usize, PeerKey)>,
}

struct Held {
    region: Region,
    key_bytes: Vec<u8>,
    memory: Memory,
}

/// Registered memory of one node.
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    pub node: usize,
    index: usize,
    pub span: Span,
}

/// Several nodes of one harness.
pub struct Rig<H> {
    pub harness: H,
    pub nodes: Vec<Node>,
    pub poll_budget_bytes: u64,
    pub(crate) next_token: u64,
    next_link: u32,
    next_region: u32,
}

impl<H: Harness> Rig<H> {
    /// Two connected nodes, or `None` (with a line that says why) where the set-up cannot run here.
    pub fn pair() -> Option<Self> {
        Self::star(2)
    }

    /// `count` nodes, each connected with node 0.
    pub fn star(count: usize) -> Option<Self> {
        let mut rig = Self::apart(count)?;
        (1..count).for_each(|other| rig.connect(0, other));
        Some(rig)
    }

    /// `count` nodes, none connected.
    pub fn apart(count: usize) -> Option<Self> {
        match H::set_up() {
            Ok(harness) => Some(Self::of(harness, count)),
            Err(Skip(why)) => {
                eprintln!("skipped: {why}");
                None
            }
        }
    }

    /// `count` nodes of this harness, none connected.
    pub fn of(harness: H, count: usize) -> Self {
        let nodes = (0..count).map(|_| Node {
            fabric: Some(harness.open()),
            log: Log::default(),
            held: Vec::new(),
            peers: Vec::new(),
        });
        let nodes = nodes.collect();
        let poll_budget_bytes = POLL_BUDGET_BYTES;
        Self { harness, nodes, poll_budget_bytes, next_token: 1, next_link: 1, next_region: 1 }
    }

    /// Connects two nodes with each other and waits until both say so.
    pub fn connect(&mut self, a: usize, b: usize) {
        let id = self.link_id();
        let (at_a, at_b) = (self.start_connect(a, b, id), self.start_connect(b, a, id));
        self.until("both sides are connected", |rig| {
            rig.nodes[a].log.connected.contains_key(&at_a) && rig.nodes[b].log.connected.contains_key(&at_b)
        });
        for (node, peer) in [(a, at_a), (b, at_b)] {
            assert_eq!(self.nodes[node].log.connected[&peer], Ok(()), "node {node} connects");
        }
        (0..self.nodes[a].held.len()).for_each(|index| self.announce(a, index, b));
        (0..self.nodes[b].held.len()).for_each(|index| self.announce(b, index, a));
    }

    /// Starts to connect one side and returns the key of the peer there.
    pub fn start_connect(&mut self, from: usize, to: usize, link_id: [u8; 16]) -> PeerKey {
        let link = self.harness.link(self.fabric(to), link_id);
        let peer = PeerKey(self.next_link);
        self.next_link += 1;
        self.nodes[from].peers.retain(|(known, _)| *known != to);
        self.nodes[from].peers.push((to, peer));
        self.fabric_mut(from).connect(peer, link);
        peer
    }

    /// A link id that no other link of the rig has.
    pub fn link_id(&mut self) -> [u8; 16] {
        let mut id = [0x5A; 16];
        id[..4].copy_from_slice(&self.next_link.to_le_bytes());
        id
    }

    /// Ends the link at one side; from then on its log accepts no word about that peer.
    pub fn disconnect(&mut self, from: usize, to: usize) {
        let peer = self.peer(from, to);
        self.fabric_mut(from).disconnect(peer);
        self.nodes[from].log.silence(peer);
    }

    /// The key under which node `from` knows node `to`.
    pub fn peer(&self, from: usize, to: usize) -> PeerKey {
        let known = self.nodes[from].peers.iter().find(|(node, _)| *node == to);
        known.unwrap_or_else(|| panic!("node {from} has no link to node {to}")).1
    }

    /// The fabric of a node that still has it.
    pub fn fabric(&self, node: usize) -> &dyn Fabric {
        self.nodes[node].fabric.as_deref().expect("the case has not dropped this fabric")
    }

    /// The fabric of a node that still has it.
    pub fn fabric_mut(&mut self, node: usize) -> &mut dyn Fabric {
        self.nodes[node].fabric.as_deref_mut().expect("the case has not dropped this fabric")
    }

    /// Drops a node's fabric; its memory stays.
    pub fn drop_fabric(&mut self, node: usize) {
        self.nodes[node].fabric = None;
    }

    /// What the fabric can do.
    pub fn limits(&self) -> Limits {
        self.fabric(0).limits()
    }

    /// New registered memory of a node, filled with a pattern of its own and announced to its peers.
    pub fn memory(&mut self, node: usize, len: usize) -> Mem {
        self.memory_of(node, Self::kind(node), len)
    }

    /// The same, of a kind that need not be the node's.
    pub fn memory_of(&mut self, node: usize, kind: MemoryKind, len: usize) -> Mem {
        let mut memory = Memory::new(kind, len);
        let salt = self.next_region as usize;
        memory.fill(|at| pattern(salt, at));
        let span = memory.span();
        let region = Region { kind, ..self.region(node, span) };
        let key_bytes = self.register(node, &region).expect("a kind within the limits registers");
        self.nodes[node].held.push(Held { region, key_bytes, memory });
        let index = self.nodes[node].held.len() - 1;
        let peers: Vec<usize> = self.nodes[node].peers.iter().map(|(to, _)| *to).collect();
        peers.into_iter().for_each(|to| self.announce(node, index, to));
        Mem { node, index, span }
    }

    /// What memory a node has.
    pub fn kind(node: usize) -> MemoryKind {
        H::KINDS[node % 2]
    }

    /// A region of a node over `span` with a new key, not registered yet.
    pub fn region(&mut self, node: usize, span: Span) -> Region {
        let key = RegionKey(self.next_region);
        self.next_region += 1;
        Region { key, kind: Self::kind(node), device: 0, span }
    }

    /// Registers a region whose span is memory of this rig (or which the fabric has to refuse).
    pub fn register(&mut self, node: usize, region: &Region) -> Result<Vec<u8>, FabricError> {
        // SAFETY: the rig frees memory only after every fabric is gone, and only ever copies in and out of it.
        unsafe { self.fabric_mut(node).register(region) }
    }

    /// The region that `memory` registered.
    pub fn region_of(&self, mem: Mem) -> Region {
        self.nodes[mem.node].held[mem.index].region
    }

    /// The key bytes that registering `mem` gave.
    pub fn key_bytes(&self, mem: Mem) -> &[u8] {
        &self.nodes[mem.node].held[mem.index].key_bytes
    }

    /// What memory holds now.
    pub fn snapshot(&self, mem: Mem) -> Snapshot {
        self.nodes[mem.node].held[mem.index].memory.snapshot()
    }

    /// What `to` has to hold once `segments` have been copied from `from`.
    pub fn expected(&self, from: Mem, to: Mem, segments: &[Segment]) -> Snapshot {
        let source = self.snapshot(from);
        let mut wanted = self.snapshot(to);
        for segment in segments {
            wanted.put(segment.dst, source.at(Span { addr: segment.src, len: segment.len }));
        }
        wanted
    }

    /// Tells every peer of its owner that `mem` is no longer reachable, as before a deregister.
    pub fn withdraw(&mut self, mem: Mem) {
        let region = self.region_of(mem);
        for (other, _) in self.nodes[mem.node].peers.clone() {
            let peer = self.peer(other, mem.node);
            self.fabric_mut(other).import(peer, &region, None).expect("withdrawing never fails");
        }
    }

    fn announce(&mut self, owner: usize, index: usize, to: usize) {
        let held = &self.nodes[owner].held[index];
        let (region, key_bytes) = (held.region, held.key_bytes.clone());
        let peer = self.peer(to, owner);
        self.fabric_mut(to).import(peer, &region, Some(&key_bytes)).expect("a good key imports");
    }

    /// Polls every node once. Returns whether anything happened.
    pub fn poll_all(&mut self) -> bool {
        let all: Vec<_> = (0..self.nodes.len()).collect();
        self.poll_some(&all)
    }

    fn poll_some(&mut self, nodes: &[usize]) -> bool {
        let mut any = false;
        for node in nodes {
            any |= self.poll(*node);
        }
        if !any {
            std::thread::yield_now();
        }
        any
    }

    /// Polls one node, if its fabric is still there.
    pub fn poll(&mut self, node: usize) -> bool {
        let budget = self.poll_budget_bytes;
        let node = &mut self.nodes[node];
        node.fabric.as_mut().is_some_and(|fabric| fabric.poll(budget, &mut node.log))
    }

    /// Polls every node until `done`; panics with the state of all after [`DEADLINE`].
    #[track_caller]
    pub fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done(self) {
            assert!(Instant::now() < deadline, "gave up waiting until {what}\n{}", self.state());
            self.poll_all();
        }
    }

    /// Polls every node until nothing has happened for a good while: what was to happen has.
    pub fn settle(&mut self) {
        let all: Vec<_> = (0..self.nodes.len()).collect();
        self.settle_some(&all);
    }

    /// The same of these nodes alone.
    pub fn settle_some(&mut self, nodes: &[usize]) {
        let deadline = Instant::now() + DEADLINE;
        let mut quiet = 0;
        while quiet < QUIET_POLLS {
            assert!(Instant::now() < deadline, "it never falls quiet\n{}", self.state());
            quiet = if self.poll_some(nodes) { 0 } else { quiet + 1 };
        }
    }

    /// What every node has seen, for a panic.
    pub fn state(&self) -> String {
        let mut text = String::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let name = node.fabric.as_ref().map_or("dropped", |fabric| fabric.name());
            let log = &node.log;
            let failed: Vec<_> =
                log.completed.iter().filter(|(_, outcome)| outcome.is_err()).take(8).collect();
            let _ = writeln!(
                text,
                "node {index} ({name}): connected {:?}; {} completed, failed {failed:?}; in flight {:?}; \
                 {} arrived, landed {}; lost {:?}",
                log.connected,
                log.completed.len(),
                log.in_flight.keys().take(8).collect::<Vec<_>>(),
                log.arrived.len(),
                log.landed.len(),
                log.lost,
            );
        }
        text
    }
}

impl<H> Drop for Rig<H> {
    fn drop(&mut self) {
        // Every fabric goes before any memory does.
        self.nodes.iter_mut().for_each(|node| node.fabric = None);
    }
}

/// The byte at an offset of the region that was registered as number `salt`.
fn pattern(salt: usize, at: usize) -> u8 {
    (at.wrapping_mul(0x9E37_79B9) >> 7).wrapping_add(at >> 12).wrapping_add(salt * 0x51) as u8
}

/// Polls in a row without an event after which nothing more is to come.
const QUIET_POLLS: usize = 500;
