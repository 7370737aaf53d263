//! The `local` fabric: on one host, the owner of the destination copies out of the source's process.
//!
//! ```text
//!   post(Read) -> queue per peer -> pieces: up to 1023 segments a call -> process_vm_readv -> own memory
//!                                   copied by whoever polls, and by every hand that is lent
//! ```
//!
//! Nothing lands that the owner did not copy itself, so a stopped, cancelled or dead source can corrupt nothing,
//! and an agent that waits for bytes spends its time moving them. It is not a way to write into a peer: the agent
//! above arranges that the destination's owner posts the read.
//!
//! Whose memory is read is proved, never believed: the pid comes from the kernel (`SO_PEERCRED`), is pinned by a pidfd,
//! and a 32-byte random nonce is read from the peer's memory, at connect and again behind the bytes of every single
//! call. A peer that has exited, closed its fabric, or become another program fails that proof.
//!
//! Thread rule: none beyond the contract's. What is queued is copied by several threads at once ([`Fabric::hand`]); no
//! call blocks beyond the `process_vm_readv` of a piece.

mod nonce;
mod peer;
mod pull;
mod queue;
mod yard;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::desc::{MemoryKind, PeerKey, RegionKey};
use crate::error::{FabricError, FabricErrorKind};

use super::{Batch, Fabric, Hand, Limits, Link, Posted, Region, Sink};

use super::wake::Wake;
use nonce::Nonce;
use peer::Identity;
use pull::Puller;
use queue::News;
use yard::{Yard, ended};

/// How a local fabric is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Bytes copied for one peer before the next one's turn. Also the most that one system call copies.
    pub piece_bytes: u64,
    /// Batches that one peer may have queued.
    pub batches_in_flight: usize,
    /// Threads that may copy at a time.
    pub copiers: usize,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self { piece_bytes: 1 << 20, batches_in_flight: 64, copiers: 2 }
    }
}

/// See the [module](self).
pub struct LocalFabric {
    config: LocalConfig,
    nonce: Nonce,
    yama_scope: Option<u32>,
    /// For proofs; copies have their own.
    puller: Puller,
    peers: BTreeMap<PeerKey, Peer>,
    /// Peers that have not given us leave yet.
    connecting: Vec<PeerKey>,
    /// Outcomes of `connect` that no poll has reported yet.
    outcomes: VecDeque<(PeerKey, Result<(), FabricError>)>,
    yard: Arc<Yard>,
    wake: Wake,
}

/// A link, from `connect` to `disconnect`.
struct Peer {
    identity: Arc<Identity>,
    state: State,
}

/// How a link stands.
enum State {
    /// The proof is refused so far; it is tried again until then.
    Connecting { until: Instant },
    /// Batches are pulled, unless the queue has the peer down as lost.
    Up,
}

impl LocalFabric {
    /// A fabric without regions and peers.
    pub fn open(config: LocalConfig) -> Result<Self, FabricError> {
        Self::open_as(config, false)
    }

    /// The same for copies within this process: what is registered with it is source as well as destination, and is copied
    /// by the processor, without a system call. A link is to its own address.
    pub fn within(config: LocalConfig) -> Result<Self, FabricError> {
        Self::open_as(config, true)
    }

    fn open_as(config: LocalConfig, is_within: bool) -> Result<Self, FabricError> {
        let wake = Wake::new()
            .map_err(|errno| error("open", FabricErrorKind::NoResource, errno, errno.to_string()))?;
        Ok(Self {
            config,
            nonce: Nonce::new()?,
            yama_scope: super::yama_scope(),
            puller: Puller::new(),
            peers: BTreeMap::new(),
            connecting: Vec::new(),
            outcomes: VecDeque::new(),
            yard: Arc::new(Yard::new(wake.bell(), config.piece_bytes, config.copiers, is_within)),
            wake,
        })
    }

    /// Tries to prove who a connecting peer is. Returns whether it has to be tried again: a refusal is final at
    /// once, except under Yama, where the peer may not have given us leave yet.
    fn try_connect(&mut self, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let State::Connecting { until } = peer.state else { return false };
        let outcome = match self.yard.is_within {
            true => Ok(()), // nothing is read of any other process
            false => peer.identity.prove(&mut self.puller, &self.yard.regions),
        };
        let forbidden = matches!(&outcome, Err(error) if error.code == Errno::PERM.raw_os_error());
        if forbidden && self.yama_scope == Some(1) && Instant::now() < until {
            return true;
        }
        let watched = outcome.and_then(|()| {
            self.wake.watch(&peer.identity.process, key).map_err(|errno| {
                error("epoll_ctl", FabricErrorKind::NoResource, errno, "cannot watch the peer's process")
            })
        });
        match watched {
            Ok(()) => {
                peer.state = State::Up;
                self.yard.change(|queue| queue.admit(key, Arc::clone(&peer.identity)));
            }
            Err(_) => drop(self.peers.remove(&key)),
        }
        self.outcomes.push_back((key, watched));
        false
    }

    /// Tries connecting peers again.
    fn retry_connects(&mut self) {
        let waiting = std::mem::take(&mut self.connecting);
        self.connecting = waiting.into_iter().filter(|key| self.try_connect(*key)).collect();
    }

    /// Reports what has ended, and who. Returns whether anything has.
    fn tell(&mut self, sink: &mut dyn Sink) -> bool {
        let mut any = false;
        while let Some(news) = self.yard.change(|queue| queue.news()) {
            any = true;
            match news {
                News::Ended(_, token, outcome) => sink.completed(token, outcome),
                News::Lost(key, error) => {
                    if let Some(peer) = self.peers.get(&key) {
                        self.wake.forget(&peer.identity.process);
                    }
                    sink.lost(key, error);
                }
            }
        }
        any
    }
}

impl Drop for LocalFabric {
    fn drop(&mut self) {
        self.peers.keys().for_each(|peer| self.yard.remove(*peer)); // hands may stay; nothing moves by them any more
    }
}

impl Fabric for LocalFabric {
    fn name(&self) -> &'static str {
        "local"
    }

    fn limits(&self) -> Limits {
        Limits {
            native_read: true,
            native_write: false,
            framed: false,
            ordered: false,
            same_host_only: true,
            batches_in_flight: self.config.batches_in_flight,
            segments_per_batch: SEGMENTS_PER_BATCH,
            bytes_per_batch: BYTES_PER_BATCH,
            kinds: &[MemoryKind::Dram],
            selective: false,
            gathers_below: 0,
            maps_regions: false,
        }
    }

    fn address(&self) -> Vec<u8> {
        self.nonce.address()
    }

    #[allow(unsafe_code)] // hands the caller's promise on to the leaf
    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        if region.kind != MemoryKind::Dram {
            let detail = format!("{} memory cannot be registered, only DRAM", region.kind);
            return Err(FabricError::new("local", "register", FabricErrorKind::Unsupported, 0, detail));
        }
        // SAFETY: the contract of `Fabric::register` is word for word what `Regions` asks for.
        unsafe { self.yard.regions.register(*region) };
        Ok(Vec::new())
    }

    fn deregister(&mut self, key: RegionKey) {
        self.yard.regions.deregister(key);
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        match Identity::pin(&link) {
            Ok(identity) => {
                let state = State::Connecting { until: Instant::now() + LEAVE_WITHIN };
                self.peers.insert(peer, Peer { identity: Arc::new(identity), state });
                self.connecting.push(peer);
            }
            Err(error) => self.outcomes.push_back((peer, Err(error))),
        }
        self.yard.bell.ring();
    }

    fn disconnect(&mut self, peer: PeerKey) {
        self.yard.remove(peer);
        if let Some(gone) = self.peers.remove(&peer) {
            self.wake.forget(&gone.identity.process);
        }
        self.outcomes.retain(|(key, _)| *key != peer);
    }

    fn import(&mut self, _: PeerKey, _: &Region, _: Option<&[u8]>) -> Result<(), FabricError> {
        Ok(()) // the peer's pages need no key; the kernel checks them at every call
    }

    fn post(&mut self, key: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        self.yard.regions.check(&batch, SEGMENTS_PER_BATCH)?;
        let unknown = |what| FabricError::new("local", "post", FabricErrorKind::Unreachable, 0, what);
        let peer = self.peers.get(&key).ok_or_else(|| unknown(format!("peer {key} is not connected")))?;
        if matches!(peer.state, State::Connecting { .. }) {
            return Err(unknown(format!("peer {key} is still connecting")));
        }
        let bound = self.config.batches_in_flight;
        self.yard.change(|queue| match queue.flights(key) {
            None => Err(unknown(format!("peer {key} is not connected"))),
            Some(Err(lost)) => Err(lost),
            Some(Ok(flights)) if flights >= bound => Ok(Posted::Full(batch)),
            Some(Ok(_)) => {
                queue.push(key, batch.token, batch.segments.into());
                Ok(Posted::Accepted)
            }
        })
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        self.retry_connects();
        let mut any = !self.outcomes.is_empty();
        while let Some((peer, outcome)) = self.outcomes.pop_front() {
            sink.connected(peer, outcome);
        }
        if !self.yard.is_busy() {
            while let Some(key) = self.wake.ended() {
                any = true;
                if let Some(peer) = self.peers.get(&key) {
                    self.wake.forget(&peer.identity.process);
                }
                self.yard.change(|queue| queue.lose(key, ended()));
            }
        }
        let mut left = budget_bytes.max(1);
        while left > 0
            && let Some(copied) = self.yard.copy(left)
        {
            any = true;
            left = left.saturating_sub(copied.cost);
        }
        any |= self.tell(sink);
        self.wake.wake_within(Some(LEAVE_RETRY).filter(|_| !self.connecting.is_empty()));
        self.yard.bell.hush(|| self.yard.wants_poll());
        any
    }

    fn hand(&self) -> Option<Arc<dyn Hand>> {
        Some(Arc::<Yard>::clone(&self.yard))
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.fd())
    }
}

fn error(call: &'static str, kind: FabricErrorKind, errno: Errno, detail: impl Into<String>) -> FabricError {
    FabricError::new("local", call, kind, errno.raw_os_error(), detail)
}

/// Segments in one batch.
const SEGMENTS_PER_BATCH: usize = 1 << 16;
/// Bytes in one batch: small enough for a transfer to be seen coming on, and for peers to take turns. It is copied in
/// pieces.
const BYTES_PER_BATCH: u64 = 4 << 20;
/// How long a peer has to give us leave under Yama.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// How often we try meanwhile.
const LEAVE_RETRY: Duration = Duration::from_millis(5);
