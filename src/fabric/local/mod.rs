//! The `local` fabric: on one host, the owner of the destination copies out of the source's process.
//!
//! ```text
//!   post(Read) -> queue per peer -> poll: up to 1023 segments a call -> process_vm_readv -> own memory
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
//! Thread rule: none beyond the contract's. No call blocks beyond one `process_vm_readv` of a step's size.

mod nonce;
mod peer;
mod ptracer;
mod pull;
mod step;
mod wake;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferOp};
use crate::error::{FabricError, FabricErrorKind};

use super::{Batch, Fabric, Limits, Link, Posted, Region, Sink};
pub use ptracer::yama_scope;

use nonce::Nonce;
use peer::{Flight, Identity, Peer, State};
use pull::Puller;
use step::{Step, ended, step};
use wake::{Due, Wake};

/// How a local fabric is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Bytes copied for one peer before the next one's turn. Also the most that one system call copies.
    pub step_bytes: u64,
    /// Batches that one peer may have queued.
    pub batches_in_flight: usize,
}

impl Default for LocalConfig {
    fn default() -> Self {
        Self { step_bytes: 1 << 20, batches_in_flight: 64 }
    }
}

/// See the [module](self).
pub struct LocalFabric {
    config: LocalConfig,
    nonce: Nonce,
    yama_scope: Option<u32>,
    puller: Puller,
    peers: BTreeMap<PeerKey, Peer>,
    /// Peers that have not given us leave yet.
    connecting: Vec<PeerKey>,
    /// Peers with something queued, next one first.
    ring: VecDeque<PeerKey>,
    /// Outcomes of `connect` that no poll has reported yet.
    outcomes: VecDeque<(PeerKey, Result<(), FabricError>)>,
    wake: Wake,
}

impl LocalFabric {
    /// A fabric without regions and peers.
    pub fn open(config: LocalConfig) -> Result<Self, FabricError> {
        let wake = Wake::new()
            .map_err(|errno| error("open", FabricErrorKind::NoResource, errno, errno.to_string()))?;
        Ok(Self {
            config,
            nonce: Nonce::new()?,
            yama_scope: ptracer::yama_scope(),
            puller: Puller::new(),
            peers: BTreeMap::new(),
            connecting: Vec::new(),
            ring: VecDeque::new(),
            outcomes: VecDeque::new(),
            wake,
        })
    }

    /// Tries to prove who a connecting peer is. Returns whether it has to be tried again: a refusal is final at
    /// once, except under Yama, where the peer may not have given us leave yet.
    fn try_connect(&mut self, key: PeerKey) -> bool {
        let Some(peer) = self.peers.get_mut(&key) else { return false };
        let State::Connecting { until } = peer.state else { return false };
        let outcome = peer.identity.prove(&mut self.puller);
        let forbidden = matches!(&outcome, Err(error) if error.code == Errno::PERM.raw_os_error());
        if forbidden && self.yama_scope == Some(1) && Instant::now() < until {
            return true;
        }
        let watched = outcome.and_then(|()| {
            self.wake.watch(&peer.identity.pidfd, key).map_err(|errno| {
                error("epoll_ctl", FabricErrorKind::NoResource, errno, "cannot watch the peer's process")
            })
        });
        match watched {
            Ok(()) => peer.state = State::Up,
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

    /// Copies for one peer until about `budget_bytes` are spent or its queue is empty. Returns what was spent.
    fn serve(&mut self, key: PeerKey, budget_bytes: u64, sink: &mut dyn Sink) -> u64 {
        let mut spent = 0;
        while spent < budget_bytes {
            let Some(peer) = self.peers.get_mut(&key) else { break };
            let Some(flight) = peer.queue.front_mut() else { break };
            let token = flight.batch.token;
            let (cost, step) = step(&mut self.puller, &peer.identity, flight, budget_bytes - spent);
            spent += cost;
            match step {
                Ok(Step::Partial) => {}
                Ok(Step::Done) => {
                    peer.queue.pop_front();
                    sink.completed(token, Ok(()));
                }
                Err(error) if error.kind == FabricErrorKind::PeerLost => {
                    self.lose(key, error, sink);
                    break;
                }
                Err(error) => {
                    peer.queue.pop_front();
                    sink.completed(token, Err(error));
                }
            }
        }
        spent
    }

    /// Ends every batch of a peer that is gone, then says so, once.
    fn lose(&mut self, key: PeerKey, error: FabricError, sink: &mut dyn Sink) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        self.wake.forget(&peer.identity.pidfd);
        peer.state = State::Lost(error.clone());
        let tokens: Vec<OpToken> = peer.queue.drain(..).map(|flight| flight.batch.token).collect();
        tokens.into_iter().for_each(|token| sink.completed(token, Err(error.clone())));
        sink.lost(key, error);
    }

    /// Why a batch cannot be taken, by its own faults.
    fn check(&mut self, batch: &Batch) -> Result<(), FabricError> {
        if batch.op != TransferOp::Read {
            let detail = format!("{} is not native here: the destination's owner posts a READ", batch.op);
            return Err(FabricError::new("local", "post", FabricErrorKind::Unsupported, 0, detail));
        }
        if batch.segments.is_empty() || batch.segments.len() > SEGMENTS_PER_BATCH {
            let detail =
                format!("a batch has {} segments, not 1 to {SEGMENTS_PER_BATCH}", batch.segments.len());
            return Err(FabricError::new("local", "post", FabricErrorKind::Unsupported, 0, detail));
        }
        let bad = |segment: &&Segment| {
            let span = Span { addr: segment.dst, len: segment.len };
            segment.len == 0 || segment.src.checked_add(segment.len).is_none() || !self.puller.covers(span)
        };
        match batch.segments.iter().find(bad) {
            None => Ok(()),
            Some(segment) => {
                let Segment { src, dst, len } = segment;
                let detail =
                    format!("{dst:#x}+{len} (from {src:#x}) is empty, wraps, or is in no registered region");
                Err(FabricError::new("local", "post", FabricErrorKind::InvalidRegion, 0, detail))
            }
        }
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
            ordered: true,
            same_host_only: true,
            batches_in_flight: self.config.batches_in_flight,
            segments_per_batch: SEGMENTS_PER_BATCH,
            bytes_per_batch: BYTES_PER_BATCH,
            kinds: &[MemoryKind::Dram],
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
        // SAFETY: the contract of `Fabric::register` is word for word what the puller asks for.
        unsafe { self.puller.register(*region) };
        Ok(Vec::new())
    }

    fn deregister(&mut self, key: RegionKey) {
        self.puller.deregister(key);
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        match Identity::pin(&link, self.yama_scope) {
            Ok(identity) => {
                let state = State::Connecting { until: Instant::now() + LEAVE_WITHIN };
                self.peers.insert(peer, Peer { identity, state, queue: VecDeque::new() });
                self.connecting.push(peer);
            }
            Err(error) => self.outcomes.push_back((peer, Err(error))),
        }
        self.wake.set(Due::Now);
    }

    fn disconnect(&mut self, peer: PeerKey) {
        if let Some(gone) = self.peers.remove(&peer) {
            self.wake.forget(&gone.identity.pidfd);
        }
        self.outcomes.retain(|(key, _)| *key != peer);
        self.ring.retain(|key| *key != peer);
    }

    fn import(&mut self, _: PeerKey, _: &Region, _: Option<&[u8]>) -> Result<(), FabricError> {
        Ok(()) // the peer's pages need no key; the kernel checks them at every call
    }

    fn post(&mut self, key: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        self.check(&batch)?;
        let bound = self.config.batches_in_flight;
        let unknown = |what| FabricError::new("local", "post", FabricErrorKind::Unreachable, 0, what);
        let peer = self.peers.get_mut(&key).ok_or_else(|| unknown(format!("peer {key} is not connected")))?;
        match &peer.state {
            State::Connecting { .. } => return Err(unknown(format!("peer {key} is still connecting"))),
            State::Lost(error) => return Err(error.clone()),
            State::Up => {}
        }
        if peer.queue.len() >= bound {
            return Ok(Posted::Full(batch));
        }
        if peer.queue.is_empty() {
            self.ring.push_back(key);
        }
        peer.queue.push_back(Flight { batch, segment: 0, offset: 0 });
        self.wake.set(Due::Now);
        Ok(Posted::Accepted)
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        self.retry_connects();
        let mut any = !self.outcomes.is_empty();
        while let Some((peer, outcome)) = self.outcomes.pop_front() {
            sink.connected(peer, outcome);
        }
        if self.ring.is_empty() {
            while let Some(key) = self.wake.ended() {
                any = true;
                self.lose(key, ended(), sink);
            }
        }
        let mut left = budget_bytes.max(1);
        while left > 0
            && let Some(key) = self.ring.pop_front()
        {
            any = true;
            left = left.saturating_sub(self.serve(key, left.min(self.config.step_bytes.max(1)), sink));
            if self.peers.get(&key).is_some_and(|peer| !peer.queue.is_empty()) {
                self.ring.push_back(key);
            }
        }
        self.wake.set(match (self.ring.is_empty(), !self.connecting.is_empty()) {
            (false, _) => Due::Now,
            (true, true) => Due::After(LEAVE_RETRY),
            (true, false) => Due::Never,
        });
        any
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
/// Bytes in one batch: no bound of ours, a batch is copied in steps.
const BYTES_PER_BATCH: u64 = 1 << 40;
/// How long a peer has to give us leave under Yama.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// How often we try meanwhile.
const LEAVE_RETRY: Duration = Duration::from_millis(5);
