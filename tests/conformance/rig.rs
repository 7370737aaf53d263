//! Opened fabrics with their memory and sinks, and the bounded driver that polls them.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use baton::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferOp};
use baton::error::FabricError;
use baton::fabric::{Batch, Fabric, HEADER_MAX_BYTES, Landing, Limits, Posted, Region};

use crate::harness::{Harness, Skip};
use crate::log::{Log, Outcome};
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

/// The way bytes go from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The source's owner posts a one-sided write.
    Write,
    /// The destination's owner posts a one-sided read.
    Read,
    /// The source's owner posts a frame that the destination's sink places.
    Frame,
}

/// A posted batch of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub poster: usize,
    pub token: OpToken,
    /// Where the frame lands, and its ticket.
    pub landing: Option<(usize, u64)>,
}

/// Several nodes of one harness.
pub struct Rig<H> {
    pub harness: H,
    pub nodes: Vec<Node>,
    pub poll_budget_bytes: u64,
    next_token: u64,
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

    /// The ways this fabric moves bytes.
    pub fn routes(&self) -> Vec<Route> {
        let limits = self.limits();
        let routes = [
            (limits.native_write, Route::Write),
            (limits.native_read, Route::Read),
            (limits.framed, Route::Frame),
        ];
        routes.into_iter().filter(|(has, _)| *has).map(|(_, route)| route).collect()
    }

    /// New registered memory of a node, filled with a pattern of its own and announced to its peers.
    pub fn memory(&mut self, node: usize, len: usize) -> Mem {
        let memory = Memory::new(len);
        let salt = self.next_region as usize;
        memory.fill(|at| pattern(salt, at));
        let span = memory.span();
        let region = self.region(span);
        let key_bytes = self.register(node, &region).expect("DRAM registers");
        self.nodes[node].held.push(Held { region, key_bytes, memory });
        let index = self.nodes[node].held.len() - 1;
        let peers: Vec<usize> = self.nodes[node].peers.iter().map(|(to, _)| *to).collect();
        peers.into_iter().for_each(|to| self.announce(node, index, to));
        Mem { node, index, span }
    }

    /// A region over `span` with a new key, not registered yet.
    pub fn region(&mut self, span: Span) -> Region {
        let key = RegionKey(self.next_region);
        self.next_region += 1;
        Region { key, kind: MemoryKind::Dram, device: 0, span }
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

    /// Posts what copies `segments` from node `from` to node `to`, polling where a queue is full.
    pub fn copy(&mut self, route: Route, from: usize, to: usize, segments: &[Segment]) -> Vec<Op> {
        let limits = self.limits();
        let batches = cut(segments, limits.segments_per_batch, limits.bytes_per_batch);
        batches.into_iter().map(|segments| self.copy_batch(route, from, to, segments)).collect()
    }

    fn copy_batch(&mut self, route: Route, from: usize, to: usize, segments: Vec<Segment>) -> Op {
        let (poster, other) = if route == Route::Read { (to, from) } else { (from, to) };
        let batch = self.batch(route, segments);
        let op = self.plan(route, poster, to, &batch);
        self.post_patiently(poster, other, batch);
        op
    }

    /// A batch with a new token; the header of a frame names the token as its ticket.
    pub fn batch(&mut self, route: Route, segments: Vec<Segment>) -> Batch {
        let token = OpToken(self.next_token);
        self.next_token += 1;
        let op = if route == Route::Read { TransferOp::Read } else { TransferOp::Write };
        let header = if route == Route::Frame { token.0.to_le_bytes().to_vec() } else { Vec::new() };
        assert!(header.len() <= HEADER_MAX_BYTES);
        Batch { token, op, segments, header }
    }

    /// Tells the receiver of a frame where it goes: to the `dst` of its segments.
    pub fn plan(&mut self, route: Route, poster: usize, receiver: usize, batch: &Batch) -> Op {
        let ticket = batch.token.0;
        if route == Route::Frame {
            let spans = batch.segments.iter().map(|s| Span { addr: s.dst, len: s.len }).collect();
            self.nodes[receiver].log.landings.insert(ticket, Landing::Scatter { ticket, spans });
        }
        let landing = (route == Route::Frame).then_some((receiver, ticket));
        Op { poster, token: batch.token, landing }
    }

    /// Posts once. An accepted token is in flight from here on.
    pub fn post(&mut self, poster: usize, to: usize, batch: Batch) -> Result<Posted, FabricError> {
        let peer = self.peer(poster, to);
        let token = batch.token;
        let posted = self.fabric_mut(poster).post(peer, batch);
        if matches!(posted, Ok(Posted::Accepted)) {
            self.nodes[poster].log.in_flight.insert(token, peer);
        }
        posted
    }

    /// Posts, polling while the queue is full.
    pub fn post_patiently(&mut self, poster: usize, to: usize, batch: Batch) {
        let deadline = Instant::now() + DEADLINE;
        let mut next = Some(batch);
        while let Some(batch) = next.take() {
            match self.post(poster, to, batch).expect("a sound batch is accepted") {
                Posted::Accepted => {}
                Posted::Full(batch) => next = Some(batch),
            }
            if next.is_some() {
                assert!(Instant::now() < deadline, "the queue stayed full\n{}", self.state());
                self.poll_all();
            }
        }
    }

    /// How an operation ended, landing included; `None` while it has not.
    pub fn outcome(&self, op: &Op) -> Option<Outcome> {
        let posted = self.nodes[op.poster].log.outcome(op.token)?.clone();
        match op.landing {
            Some((node, ticket)) if posted.is_ok() => self.nodes[node].log.landed.get(&ticket).cloned(),
            _ => Some(posted),
        }
    }

    /// Polls until all operations have ended well.
    pub fn finish(&mut self, ops: &[Op]) {
        self.until("all operations have ended", |rig| ops.iter().all(|op| rig.outcome(op).is_some()));
        for op in ops {
            assert_eq!(self.outcome(op), Some(Ok(())), "{op:?}");
        }
    }

    /// Copies, waits for the end and compares the whole destination, gaps and guards included.
    pub fn copy_and_check(&mut self, route: Route, from: Mem, to: Mem, segments: &[Segment]) {
        let wanted = self.expected(from, to, segments);
        let before = self.snapshot(from);
        let ops = self.copy(route, from.node, to.node, segments);
        self.finish(&ops);
        self.snapshot(to).assert_same(&wanted, &format!("{route:?}: destination"));
        self.snapshot(from).assert_same(&before, &format!("{route:?}: source"));
    }

    /// Polls every node once. Returns whether anything happened.
    pub fn poll_all(&mut self) -> bool {
        let mut any = false;
        for node in 0..self.nodes.len() {
            any |= self.poll(node);
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
        let deadline = Instant::now() + DEADLINE;
        let mut quiet = 0;
        while quiet < QUIET_POLLS {
            assert!(Instant::now() < deadline, "it never falls quiet\n{}", self.state());
            quiet = if self.poll_all() { 0 } else { quiet + 1 };
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

/// `count` segments of `len` bytes, each followed by a gap as long, from the start of `from` to that of `to`.
pub fn strided(from: Mem, to: Mem, count: usize, len: u64) -> Vec<Segment> {
    let at = |index: usize| index as u64 * 2 * len;
    (0..count)
        .map(|index| Segment { src: from.span.addr + at(index), dst: to.span.addr + at(index), len })
        .collect()
}

/// One segment from the start of `from` to that of `to`.
pub fn whole(from: Mem, to: Mem, len: u64) -> Segment {
    Segment { src: from.span.addr, dst: to.span.addr, len }
}

/// Cuts segments into batches within the limits.
fn cut(segments: &[Segment], segments_per_batch: usize, bytes_per_batch: u64) -> Vec<Vec<Segment>> {
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for segment in segments {
        let mut rest = *segment;
        while rest.len > 0 {
            if batches.last().is_some_and(|last| last.len() == segments_per_batch) || bytes == bytes_per_batch
            {
                batches.push(Vec::new());
                bytes = 0;
            }
            let len = rest.len.min(bytes_per_batch - bytes);
            batches.last_mut().expect("never empty").push(Segment { len, ..rest });
            bytes += len;
            rest = Segment { src: rest.src + len, dst: rest.dst + len, len: rest.len - len };
        }
    }
    batches
}

/// The byte at an offset of the region that was registered as number `salt`.
fn pattern(salt: usize, at: usize) -> u8 {
    (at.wrapping_mul(0x9E37_79B9) >> 7).wrapping_add(at >> 12).wrapping_add(salt * 0x51) as u8
}

/// Polls in a row without an event after which nothing more is to come.
const QUIET_POLLS: usize = 500;
