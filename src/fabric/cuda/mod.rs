//! The `cuda` fabric: GPU memory on one host. The owner of the destination maps the source by CUDA IPC and copies.
//!
//! ```text
//!   register   our memory  --> its handle, for peers              (shelf)
//!   import     a peer's handle --> mapped when first needed       (theirs)
//!   post(Read) -> waiting per peer -> addresses as mapped here -> one launch for the batch -> event -> completed
//! ```
//!
//! A batch of thousands of scattered segments is one launch of one kernel on the destination's device, over memory of the
//! same GPU or of one that it can reach (NVLink, PCIe). As on `local`, nothing lands that the owner did not copy itself:
//! a cancelled or dead source can corrupt nothing. It is not a way to write into a peer.
//!
//! * **What has no handle.** Memory that its allocator made unshareable can be a destination and not a source:
//!   registering it gives no key bytes, the log says why, and the agent takes another lane for it.
//! * **Mapped once.** An allocation is mapped once for each device that copies from it, however many regions lie in it,
//!   and unmapped when the last of them is withdrawn or the link ends, after every copy that reads it.
//! * **A link is up** when the first of the peer's regions could be mapped, or when there is none to try.
//!
//! Thread rule: none beyond the contract's. What takes long of a registration is [`Fabric::pinning`]'s. Mapping takes up
//! to a few milliseconds and is done by a poll, two at most.

mod address;
mod flights;
mod launch;
mod shelf;
mod theirs;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::desc::{MemoryKind, PeerKey, RegionKey, Span};
use crate::device::{CopyQueue, Cuda, DeviceError, SharedHandle};
use crate::error::{FabricError, FabricErrorKind};

use self::address::Address;
use self::flights::Flights;
use self::shelf::Shelf;
use self::theirs::Theirs;
use super::peer_process::PeerProcess;
use super::wake::Wake;
use super::{Batch, Fabric, LastHit, Limits, Link, Pinning, Posted, Region, RegionSet, Sink};

/// See the [module](self).
pub struct CudaFabric {
    cuda: &'static Cuda,
    /// Every link is to this very process, and what is registered here is the peer's, too.
    is_within: bool,
    /// Ours, destinations of batches.
    regions: RegionSet,
    /// One for each device that has memory of ours.
    queues: BTreeMap<u32, CopyQueue>,
    shelf: Arc<Shelf>,
    peers: BTreeMap<PeerKey, Peer>,
    flights: Flights,
    /// Outcomes of `connect` that no poll has reported yet.
    outcomes: VecDeque<(PeerKey, Result<(), FabricError>)>,
    wake: Wake,
}

/// A link, from `connect` to `disconnect`.
struct Peer {
    process: PeerProcess,
    theirs: Theirs,
    state: State,
}

enum State {
    /// Nothing of it has been mapped yet.
    Connecting,
    Up,
    /// Its process has ended; told once its flights are over.
    Lost(FabricError),
    Told(FabricError),
}

impl CudaFabric {
    /// A fabric without regions and peers.
    pub fn open(cuda: &'static Cuda) -> Result<Self, FabricError> {
        Self::open_as(cuda, false)
    }

    /// The same for copies within this process: whatever is registered with it is source as well as destination, shareable
    /// or not, and nobody maps any of it. A link is to its own address.
    pub fn within(cuda: &'static Cuda) -> Result<Self, FabricError> {
        Self::open_as(cuda, true)
    }

    fn open_as(cuda: &'static Cuda, is_within: bool) -> Result<Self, FabricError> {
        let wake = Wake::new().map_err(|errno| {
            let code = errno.raw_os_error();
            FabricError::new(NAME, "open", FabricErrorKind::NoResource, code, errno.to_string())
        })?;
        Ok(Self {
            cuda,
            is_within,
            regions: RegionSet::default(),
            queues: BTreeMap::new(),
            shelf: Arc::new(Shelf::new(cuda, wake.bell(), !is_within)),
            peers: BTreeMap::new(),
            flights: Flights::default(),
            outcomes: VecDeque::new(),
            wake,
        })
    }

    /// Brings connecting peers on: a link is up when something of the peer could be mapped. Returns whether there is more
    /// to try.
    fn try_connecting(&mut self, left: &mut u32) -> bool {
        let device = self.queues.keys().next().copied();
        let connecting = self.peers.iter_mut().filter(|(_, peer)| matches!(peer.state, State::Connecting));
        let mut ended = Vec::new();
        for (key, peer) in connecting {
            let outcome = match device {
                Some(device) => peer.theirs.try_out(self.cuda, &peer.process, device, left),
                None => Some(Ok(())), // nothing here could be a destination yet
            };
            ended.extend(outcome.map(|outcome| (*key, outcome)));
        }
        for (key, outcome) in ended {
            let watched = outcome.and_then(|()| self.watch(key));
            match &watched {
                Ok(()) => self.peers.get_mut(&key).into_iter().for_each(|peer| peer.state = State::Up),
                Err(_) => drop(self.peers.remove(&key)),
            }
            self.outcomes.push_back((key, watched));
        }
        self.peers.values().any(|peer| matches!(peer.state, State::Connecting))
    }

    fn watch(&self, key: PeerKey) -> Result<(), FabricError> {
        let Some(peer) = self.peers.get(&key) else { return Ok(()) };
        self.wake.watch(&peer.process, key).map_err(|errno| {
            let (code, detail) = (errno.raw_os_error(), "cannot watch the peer's process");
            FabricError::new(NAME, "epoll_ctl", FabricErrorKind::NoResource, code, detail)
        })
    }

    /// Takes note of peers whose process has ended.
    fn bury(&mut self) -> bool {
        let mut any = false;
        while let Some(key) = self.wake.ended() {
            any = true;
            if let Some(peer) = self.peers.get_mut(&key) {
                self.wake.forget(&peer.process);
                let gone = error("copy", FabricErrorKind::PeerLost, "the peer's process has ended");
                self.flights.fail_waiting(key, &gone);
                peer.state = State::Lost(gone);
            }
        }
        any
    }

    /// Has what waits copied, as far as there is room. Returns whether anything was started.
    fn start(&mut self, left: &mut u32) -> bool {
        let mut any = false;
        for (key, peer) in &mut self.peers {
            while let Some(number) = self.flights.next_of(*key) {
                let sources = launch::Sources {
                    cuda: self.cuda,
                    ours: &self.regions,
                    is_within: self.is_within,
                    process: &peer.process,
                    theirs: &mut peer.theirs,
                };
                if !self.flights.start(number, sources, &mut self.queues, left) {
                    break;
                }
                any = true;
            }
        }
        any
    }

    /// Reports what has ended, and who. Returns whether anything has.
    fn tell(&mut self, sink: &mut dyn Sink) -> bool {
        let mut any = false;
        while let Some((peer, outcome)) = self.outcomes.pop_front() {
            any = true;
            sink.connected(peer, outcome);
        }
        while let Some((token, outcome)) = self.flights.news() {
            any = true;
            sink.completed(token, outcome);
        }
        for (key, peer) in &mut self.peers {
            if let State::Lost(error) = &peer.state
                && self.flights.of(*key) == 0
            {
                any = true;
                let error = error.clone();
                sink.lost(*key, error.clone());
                peer.state = State::Told(error);
            }
        }
        any
    }
}

impl Fabric for CudaFabric {
    fn name(&self) -> &'static str {
        NAME
    }

    fn limits(&self) -> Limits {
        Limits {
            native_read: true,
            native_write: false,
            framed: false,
            ordered: false,
            same_host_only: true,
            batches_in_flight: BATCHES_IN_FLIGHT,
            segments_per_batch: CopyQueue::SEGMENTS_MAX,
            bytes_per_batch: BYTES_PER_BATCH,
            kinds: &[MemoryKind::Vram],
            selective: !self.is_within,
            gathers_below: 0,
            maps_regions: !self.is_within,
        }
    }

    fn address(&self) -> Vec<u8> {
        Address::of(self.cuda).encode()
    }

    #[allow(unsafe_code)] // hands the caller's promise on
    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        if region.kind != MemoryKind::Vram {
            let detail = format!("{} memory cannot be registered, only VRAM", region.kind);
            return Err(error("register", FabricErrorKind::Unsupported, detail));
        }
        let (queue, key_bytes) = self.shelf.take(region)?;
        if let Some(queue) = queue {
            self.queues.insert(region.device, queue);
        }
        self.regions.insert(*region);
        Ok(key_bytes)
    }

    fn deregister(&mut self, key: RegionKey) {
        if self.regions.remove(key).is_some() {
            self.shelf.put_back(key);
        }
    }

    fn pinning(&self) -> Option<Arc<dyn Pinning>> {
        Some(Arc::<Shelf>::clone(&self.shelf))
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        let admitted = Address::decode(&link.address)
            .and_then(|address| address.check(self.cuda))
            .and_then(|()| PeerProcess::pin(NAME, &link));
        match admitted {
            Ok(process) => {
                let state = State::Connecting;
                self.peers.insert(peer, Peer { process, theirs: Theirs::default(), state });
            }
            Err(error) => self.outcomes.push_back((peer, Err(error))),
        }
        self.wake.bell().ring();
    }

    fn disconnect(&mut self, peer: PeerKey) {
        let is_quiet = self.flights.end(peer, &mut self.queues, DRAIN_WITHIN);
        if let Some(Peer { process, theirs, .. }) = self.peers.remove(&peer) {
            self.wake.forget(&process);
            if !is_quiet {
                tracing::error!(
                    lane = NAME,
                    peer = peer.0,
                    "a GPU still copies from a peer that was let go, after {DRAIN_WITHIN:?}: its memory stays mapped, and \
                     the destination must not be reused"
                );
                std::mem::forget(theirs);
            }
        }
        self.outcomes.retain(|(key, _)| *key != peer);
    }

    fn import(
        &mut self,
        peer: PeerKey,
        region: &Region,
        key_bytes: Option<&[u8]>,
    ) -> Result<(), FabricError> {
        let Some(peer) = self.peers.get_mut(&peer) else { return Ok(()) };
        let Some(bytes) = key_bytes else {
            peer.theirs.withdraw(region.key);
            return Ok(());
        };
        let handle = SharedHandle::decode(bytes)
            .map_err(|fault| error("import", FabricErrorKind::InvalidRegion, fault.to_string()))?;
        peer.theirs.announce(*region, handle)?;
        self.wake.bell().ring(); // it is mapped ahead of the first batch
        Ok(())
    }

    fn post(&mut self, key: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        self.regions.check_pull(NAME, &batch, CopyQueue::SEGMENTS_MAX)?;
        let unknown = |what| error("post", FabricErrorKind::Unreachable, format!("peer {key} {what}"));
        let peer = self.peers.get(&key).ok_or_else(|| unknown("is not connected"))?;
        match &peer.state {
            State::Connecting => return Err(unknown("is still connecting")),
            State::Lost(error) | State::Told(error) => return Err(error.clone()),
            State::Up if self.flights.of(key) >= BATCHES_IN_FLIGHT => return Ok(Posted::Full(batch)),
            State::Up => {}
        }
        let mut sources = batch.segments.iter().map(|s| Span { addr: s.src, len: s.len });
        let mut last = LastHit::default();
        let unknown = match self.is_within {
            true => sources.find(|span| !self.regions.covers(*span, &mut last)),
            false => peer.theirs.first_unknown(sources),
        };
        if let Some(span) = unknown {
            let detail = format!("the peer has announced no handle for GPU memory at {span}");
            return Err(error("post", FabricErrorKind::InvalidRegion, detail));
        }
        self.flights.push(key, batch);
        Ok(Posted::Accepted)
    }

    fn poll(&mut self, _budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        self.wake.bell().hush(|| false); // ahead of the look at what has ended: later calls stand
        let mut left = MAPPED_PER_POLL;
        let mut any = self.bury();
        any |= self.flights.collect(&mut self.queues);
        let connects = self.try_connecting(&mut left);
        any |= self.start(&mut left);
        let maps = self.map_ahead(&mut left);
        any |= self.tell(sink);
        if connects || maps || left == 0 {
            self.wake.bell().ring();
        }
        let is_busy = self.queues.values().any(|queue| queue.in_flight() > 0);
        self.wake.wake_within(is_busy.then_some(LOOK_AGAIN));
        any
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.fd())
    }
}

impl CudaFabric {
    /// Maps what peers have announced before it is needed. Returns whether there is more.
    fn map_ahead(&mut self, left: &mut u32) -> bool {
        let Some(device) = self.queues.keys().next().copied() else { return false };
        let up = self.peers.values_mut().filter(|peer| matches!(peer.state, State::Up));
        up.fold(false, |more, peer| more | peer.theirs.map_ahead(self.cuda, &peer.process, device, left))
    }
}

impl Drop for CudaFabric {
    fn drop(&mut self) {
        let peers: Vec<_> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.disconnect(peer)); // nothing moves afterwards
    }
}

fn error(call: &'static str, kind: FabricErrorKind, detail: impl Into<String>) -> FabricError {
    FabricError::new(NAME, call, kind, 0, detail)
}

/// A failure of the device as one of this fabric.
fn failed(source: &DeviceError) -> FabricError {
    FabricError::new(NAME, source.call, source.kind(), source.code as i32, source.to_string())
}

const NAME: &str = "cuda";
/// Batches that one peer may have in flight.
const BATCHES_IN_FLIGHT: usize = CopyQueue::BATCHES_MAX;
/// Bytes in one batch: about a tenth of a millisecond within a GPU, a few milliseconds between two over PCIe.
const BYTES_PER_BATCH: u64 = 64 << 20;
/// Allocations of peers that one poll maps.
const MAPPED_PER_POLL: u32 = 2;
/// How long `disconnect` waits for copies to end.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
/// How soon a poll looks by itself while something is copied: after an error the driver may call nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
