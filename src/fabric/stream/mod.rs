//! The `stream` fabric: frames over Unix sockets on one host and TCP between hosts. It needs no library and
//! no privilege, so it is what every machine can do.
//!
//! Not the control stream: this carries payload only, so that control never waits behind it.
//!
//! ```text
//!        this side                                     the peer
//!   post --> Sender ==== our connection ===========> Receiver --> sink.arrived, sink.landed
//!   sink <-- Receiver <=========== its connection ==== Sender <-- post
//! ```
//! * Each side dials one connection for what it writes and accepts one for what it reads. A connection opens
//!   with a preface that names the link; a link is up when both are there.
//! * Bytes go from user memory to the socket and from the socket to their destination by gathered writes and
//!   scattered reads, with no copy between (`iovec.rs`, the only leaf that touches memory by address).
//! * GPU memory goes through page-locked slots, with one launch of a kernel for each batch at either end (`staging.rs`,
//!   `copies.rs`): the next batch is copied while one is on the wire.
//! * Where the two sides have a key in common, the frames travel in records (`sealed.rs`), with one copy on each side.
//! * A frame that may not land is read and thrown away: a refusal never puts the stream out of step. After
//!   [`Fabric::disconnect`] the receiver reads nothing more of that peer, so nothing lands; what the sender
//!   has handed to the kernel is the receiver's to refuse.
//! * Nothing blocks. One epoll set holds all sockets and a timer; a poll with nothing to do is one system
//!   call. Connections take turns of at most `TURN_BYTES`.
//!
//! Driven by one thread at a time, like every fabric.

mod address;
mod copies;
mod drive;
mod fault;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod gear;
mod iovec;
mod listener;
mod peer;
mod readiness;
mod receiver;
mod sealed;
mod sender;
mod slots;
mod socket;
mod staging;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

pub use address::{AddressError, StreamAddress};

use self::drive::Side;
use self::listener::Listener;
use self::peer::Peer;
use self::readiness::{Readiness, Source};
use self::receiver::{Memory, Workspace};
use self::socket::Target;
use self::staging::Staging;
use super::{
    Batch, Fabric, HEADER_MAX_BYTES, LastHit, Limits, Link, Pinning, Posted, Region, RegionSet, Sink,
};
use crate::desc::{MemoryKind, PeerKey, RegionKey, Segment, Span, TransferOp};
use crate::device::Cuda;
use crate::error::{FabricError, FabricErrorKind};

/// How a stream fabric is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Offer and use Unix sockets for peers on this host.
    pub unix: bool,
    /// Offer and use TCP.
    pub tcp: bool,
    /// The address that the TCP listener binds to and that peers are told.
    pub bind_ip: IpAddr,
    /// How long a link may take from [`Fabric::connect`] until both connections are there.
    pub connect_deadline: Duration,
    /// How long a connection that has come in may take to say whose it is, and to be claimed.
    pub preface_deadline: Duration,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            unix: true,
            tcp: true,
            bind_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            connect_deadline: Duration::from_secs(5),
            preface_deadline: Duration::from_secs(5),
        }
    }
}

/// Frames over Unix sockets and TCP. See the [module](self).
#[derive(Debug)]
pub struct StreamFabric {
    config: StreamConfig,
    address: StreamAddress,
    regions: RegionSet,
    peers: HashMap<PeerKey, Peer>,
    listener: Listener,
    /// Outcomes of `connect` that were known at once, for the next poll.
    news: VecDeque<(PeerKey, Result<(), FabricError>)>,
    workspace: Workspace,
    staging: Staging,
    events: Vec<(Source, EventFlags)>,
    /// Connections that can move bytes now; empty between polls.
    turns: VecDeque<Side>,
    /// Whose turn it was when the last poll ran out of budget.
    next_turn: Option<Side>,
    readiness: Readiness,
}

impl StreamFabric {
    /// Opens the listeners that `config` asks for. With a driver of GPUs it carries their memory as well.
    pub fn open(config: StreamConfig, gpus: Option<&'static Cuda>) -> Result<Self, FabricError> {
        if !config.unix && !config.tcp {
            let detail = "neither Unix sockets nor TCP are enabled: enable one of them";
            return Err(fault::of_kind("open", FabricErrorKind::Unsupported, detail));
        }
        if config.tcp && config.bind_ip.is_unspecified() {
            let detail =
                format!("peers cannot be told {} as an address: name one of this host", config.bind_ip);
            return Err(fault::of_kind("open", FabricErrorKind::Unsupported, detail));
        }
        let readiness =
            Readiness::new().map_err(|error| fault::of_call("epoll_create1", &error, "opening a fabric"))?;
        let staging = Staging::new(gpus)?;
        readiness
            .watch(staging.wake(), Source::Copies, EventFlags::IN)
            .map_err(|error| fault::of_call("epoll_ctl", &error, "opening a fabric"))?;
        let (listener, address) = Listener::open(&config, &readiness)?;
        Ok(Self {
            config,
            address,
            regions: RegionSet::default(),
            peers: HashMap::new(),
            listener,
            news: VecDeque::new(),
            workspace: Workspace::default(),
            staging,
            events: Vec::new(),
            turns: VecDeque::new(),
            next_turn: None,
            readiness,
        })
    }

    /// Where the data listeners are.
    pub fn stream_address(&self) -> &StreamAddress {
        &self.address
    }

    /// Connections that came in and belong to no peer yet.
    pub fn unclaimed(&self) -> usize {
        self.listener.callers()
    }

    fn start(&mut self, key: PeerKey, link: &Link) -> Result<Peer, FabricError> {
        let targets = self.targets(link)?;
        let deadline = Instant::now() + self.config.connect_deadline;
        let mut peer = Peer::dial(key, link, targets, deadline, &self.readiness)?;
        if let Some(socket) = self.listener.claim(link.link_id, link.keys.as_deref()) {
            peer.attach(socket, &self.readiness)?;
        }
        Ok(peer)
    }

    /// The ways to a peer that both sides have, best first.
    fn targets(&self, link: &Link) -> Result<VecDeque<Target>, FabricError> {
        let remote = StreamAddress::decode(&link.address)
            .map_err(|error| fault::of_kind("connect", FabricErrorKind::Unreachable, error.to_string()))?;
        let unix = remote.unix.as_ref().zip(link.credentials).filter(|_| self.config.unix);
        let tcp = remote.tcp.filter(|_| self.config.tcp);
        let targets: VecDeque<_> = unix
            .map(|(name, credentials)| Target::Unix(name.clone(), credentials))
            .into_iter()
            .chain(tcp.map(Target::Tcp))
            .collect();
        if targets.is_empty() {
            let host = if link.credentials.is_some() { "this" } else { "another" };
            let detail = format!(
                "no common way to a peer on {host} host: it offers {remote}, this side {}",
                self.address
            );
            return Err(fault::of_kind("connect", FabricErrorKind::Unreachable, detail));
        }
        Ok(targets)
    }

    fn check(&self, batch: &Batch) -> Result<(), FabricError> {
        let refuse = |kind, detail: String| Err(fault::of_kind("post", kind, detail));
        if batch.op != TransferOp::Write {
            let detail = format!("a stream carries no {}: the owner of the memory has to send it", batch.op);
            return refuse(FabricErrorKind::Unsupported, detail);
        }
        let bytes = batch.segments.iter().try_fold(0u64, |sum, segment| sum.checked_add(segment.len));
        let fits = bytes.is_some_and(|bytes| bytes <= LIMITS.bytes_per_batch);
        if batch.segments.is_empty() || batch.segments.len() > LIMITS.segments_per_batch || !fits {
            let detail = format!("a batch of {} segments, {bytes:?} bytes", batch.segments.len());
            return refuse(FabricErrorKind::Internal, detail);
        }
        if batch.header.len() > HEADER_MAX_BYTES {
            return refuse(FabricErrorKind::Internal, format!("a header of {} bytes", batch.header.len()));
        }
        let mut last = LastHit::default();
        match batch.segments.iter().map(source_of).find(|span| !self.regions.covers(*span, &mut last)) {
            None => Ok(()),
            Some(span) => refuse(
                FabricErrorKind::InvalidRegion,
                format!("source {:#x}+{} is not inside registered memory", span.addr, span.len),
            ),
        }
    }
}

#[allow(unsafe_code)] // only to implement the trait: there is no unsafe block here
impl Fabric for StreamFabric {
    fn name(&self) -> &'static str {
        fault::NAME
    }

    fn carrier(&self, peer: PeerKey) -> &'static str {
        self.peers.get(&peer).map_or(fault::NAME, Peer::carrier)
    }

    fn limits(&self) -> Limits {
        let kinds = if self.staging.has_cuda() { BOTH_KINDS } else { LIMITS.kinds };
        Limits { kinds, ..LIMITS }
    }

    fn address(&self) -> Vec<u8> {
        self.address.encode()
    }

    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        let refuse = |kind, detail| Err(fault::of_kind("register", kind, detail));
        if !self.limits().kinds.contains(&region.kind) {
            let detail = format!("{} memory: a stream carries DRAM, and with CUDA that of GPUs", region.kind);
            return refuse(FabricErrorKind::Unsupported, detail);
        }
        if region.span.addr.checked_add(region.span.len).is_none() {
            let detail = format!("{:#x}+{} wraps the address space", region.span.addr, region.span.len);
            return refuse(FabricErrorKind::InvalidRegion, detail);
        }
        if region.kind == MemoryKind::Vram {
            self.staging.prepare(region.device)?;
        }
        self.regions.insert(*region);
        Ok(Vec::new())
    }

    fn deregister(&mut self, key: RegionKey) {
        self.regions.remove(key);
    }

    fn pinning(&self) -> Option<Arc<dyn Pinning>> {
        self.staging.pinning()
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        match self.start(peer, &link) {
            Ok(mut started) => {
                self.readiness.wake_by(started.deadline);
                started.announced = started.is_linked();
                if started.announced {
                    self.news.push_back((peer, Ok(())));
                }
                self.peers.insert(peer, started);
            }
            Err(error) => self.news.push_back((peer, Err(error))),
        }
        if !self.news.is_empty() {
            self.readiness.wake_by(Instant::now());
        }
    }

    fn disconnect(&mut self, peer: PeerKey) {
        if self.peers.remove(&peer).is_some() {
            self.staging.forget(peer);
        }
        self.news.retain(|(about, _)| *about != peer);
    }

    fn import(&mut self, _: PeerKey, _: &Region, _: Option<&[u8]>) -> Result<(), FabricError> {
        Ok(()) // the receiver places every frame: no key is needed
    }

    fn post(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        self.check(&batch)?;
        let Some(link) = self.peers.get_mut(&peer).filter(|link| link.announced) else {
            let detail = format!("no link to peer {peer} is up");
            return Err(fault::of_kind("post", FabricErrorKind::Unreachable, detail));
        };
        if link.batches() >= LIMITS.batches_in_flight {
            return Ok(Posted::Full(batch));
        }
        let sources = batch.segments.iter().map(source_of);
        let has_vram = self.regions.has_vram(sources);
        let memory = &mut Memory {
            regions: &self.regions,
            workspace: &mut self.workspace,
            staging: &mut self.staging,
        };
        link.push(batch, has_vram, memory, &self.readiness)?;
        self.watch_copies();
        Ok(Posted::Accepted)
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        self.drive(budget_bytes, sink)
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.readiness.handle())
    }
}

/// Where a segment of a batch lies on this side.
fn source_of(segment: &Segment) -> Span {
    Span { addr: segment.src, len: segment.len }
}

const BOTH_KINDS: &[MemoryKind] = &[MemoryKind::Dram, MemoryKind::Vram];
const LIMITS: Limits = Limits {
    native_read: false,
    native_write: false,
    framed: true,
    ordered: true,
    same_host_only: false,
    // What is posted has to leave before a cancelled transfer is quiet: 8 MiB, a second and a half at 50 Mbit/s.
    batches_in_flight: 8,
    segments_per_batch: 1024,
    bytes_per_batch: 1 << 20,
    kinds: &[MemoryKind::Dram],
    selective: false,
    gathers_below: 0,
    maps_regions: false,
};
