//! The `ucx` fabric: one-sided puts and gets of UCX, over native lanes only.
//!
//! A lane is native when the initiator (or its card) moves the bytes. Where UCX has none it *emulates* a put:
//! it sends a message and the target's library copies, wherever the message says. That writes outside
//! registered memory, lands after deregistration, and faults the target on a bad address (measured), so an
//! emulated link is refused and the agent takes another lane. Native between processes of one host is `cma`
//! (`process_vm_writev`); RDMA cards are not let in yet, see *Not here*.
//!
//! ```text
//!   mod       the Fabric trait                 link      connect, prove, disconnect
//!   open      find UCX, prove it native        probe     what a proof does
//!   transfer  batches and their outcomes       peer      what is known of one peer
//!   engine    every call into UCX              events    what UCX calls back with
//!   lanes     which transports, read back      wire      address and key bytes
//!   memory    vouched spans    slab  tickets   status    error kinds
//!   kinds     which memory goes over it, and why GPU memory does not
//! ```
//!
//! # What was measured
//!
//! On Linux 6.18 without RDMA, with UCX 1.13.1 (Debian 12) and 1.14.1 to 1.22.0 (the wheels `libucx-cu12`), two
//! processes, 64 bytes to 32 MiB:
//!
//! * **Error mode.** `PEER` with `cma,posix` builds no endpoint in any version ("no active messages transport:
//!   posix - no peer failure handler, cma - no am bcopy"); with tcp let in, puts fall to emulation. `cma`
//!   alone builds none either. So the mode is `NONE`, with `posix` (or `sysv`) beside cma, which carries
//!   nothing of ours.
//! * **Which versions are native.** 1.16, 1.17, 1.18.1, 1.19, 1.20.1, 1.21 and 1.22: zero-copy over cma for
//!   every length. 1.14.1 and 1.15 (default settings) and 1.13.1 (any settings): emulated over posix. With
//!   `UCX_PROTO_ENABLE=y`, 1.14.1 and 1.15 emulate up to 5 KiB only, which is refused as well.
//! * **The target's part.** Native puts, gets and flushes complete while the target never progresses its
//!   worker, and while it is stopped by SIGSTOP; so do 300 connects in a row. Emulated ones then stay in
//!   progress for ever: that is how a link is proven, per peer.
//! * **Bounds.** cma checks no key: a put next to the registered region succeeds (the agents check addresses),
//!   one to an unmapped address fails with `Input/output error` and breaks the endpoint. Deregistration at the
//!   target does not revoke.
//! * **Death of the target.** In mode NONE too, the error handler is called and everything in flight ends with
//!   an error: the first copy with `Input/output error`, the others with `Connection reset by remote peer`
//!   (64 in flight, killed at random, seven versions: no hang, no abort). But it takes a copy to notice: an
//!   idle link stays up. Starting a *get* on an endpoint that has failed aborts the process in 1.16 and 1.18.1,
//!   so nothing is started on one. A force close is `Invalid parameter` in this mode; a plain close works, on
//!   broken endpoints too. Destroying a worker with an unfinished emulated put aborts 1.13.1.
//! * **Emulation off.** From 1.21 on UCX is told to fail what it would emulate, so nothing is after the proof either; for
//!   older ones the proof is all there is.
//! * **What is left behind.** Nothing in /dev/shm, also after SIGKILL (posix unlinks at once).
//!
//! # What `disconnect` promises
//!
//! Our own copies to the peer have ended when it returns: they need nothing of the peer, so they are simply
//! carried to their end (at most 32 MiB are in flight to a peer; within 2 s). It cannot stop what the *peer*
//! writes here: the kernel lets it until one of the two processes ends. Nor does `deregister`.
//!
//! Peer death is noticed at the next copy or post (the process is pinned by pidfd where the control stream
//! gave a pid). The agent's watch over the control stream is what notices an idle one.
//!
//! # Not here
//!
//! `rc` and `dc`: their endpoints need the target's worker progressed while they connect, which gives up the
//! proof above; they come with error mode PEER and a proof of their own, on a machine that has a card to try
//! them on. Until then [`Limits::same_host_only`] is true.
//!
//! GPU memory: `cuda_ipc` alone leaves host to GPU memory to emulation, so it takes a card's transport to let it in. What
//! is known of it, and what decides, is in `kinds`; with a row for that transport in `lanes` it is carried. The two sides
//! of a link then have to agree on the kinds as they agree on the lane: an address does not tell them yet.
//!
//! Threads: one at a time, as the trait says; the workers are SERIALIZED. UCX calls back only inside our calls. What
//! pins memory is apart: the context is made for several threads, and nothing that the native lane does takes its
//! lock, so a registration that takes seconds holds up no copy.

mod engine;
mod events;
#[doc(hidden)]
pub mod fuzzing;
mod kinds;
mod lanes;
mod link;
mod memory;
mod open;
mod peer;
mod probe;
mod slab;
mod status;
mod transfer;
mod wire;

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

use self::engine::{Engine, Mapping};
use self::events::Event;
use self::kinds::Kinds;
use self::memory::Local;
use self::peer::Peer;
use self::slab::Slab;
use self::transfer::{Operation, Outcome};
use super::{Batch, Bell, Fabric, Limits, Link, Pinning, Posted, Region, Sink};
use crate::desc::{PeerKey, RegionKey};
use crate::error::FabricError;

const NAME: &str = "ucx";

/// What the fabric can do, but for the kinds of memory, which depend on the library. The bytes in flight to one peer bound how long a disconnect takes.
const LIMITS: Limits = Limits {
    native_read: true,
    native_write: true,
    framed: false,
    ordered: false,
    same_host_only: true,
    batches_in_flight: 4,
    segments_per_batch: 4096,
    bytes_per_batch: 4 << 20,
    kinds: kinds::HOST,
    selective: false,
    gathers_below: GATHERS_BELOW,
    maps_regions: false,
};

/// Where `cargo bench --bench gathering` has its two lines cross, between pieces of 8 and of 16 KiB; see docs/performance.md.
const GATHERS_BELOW: u64 = 12 << 10;
/// What a step of UCX that completes nothing is taken to cost, against the budget of a poll.
const STEP_BYTES: u64 = 4096;

/// How the fabric is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UcxConfig {
    /// `BATON_UCX_LIBRARY`: the libucp to open, unless the process has one loaded.
    pub library: Option<PathBuf>,
    /// `UCX_TLS`: the transports that the user allows. Ours are cut with it.
    pub user_tls: Option<String>,
}

/// See the [module](self).
pub struct UcxFabric {
    engine: Engine,
    kinds: Kinds,
    address: Vec<u8>,
    /// What peers prove their links with; held for as long as they may.
    _probe: Mapping,
    local: Local,
    peers: HashMap<PeerKey, Peer>,
    operations: Slab<Operation>,
    outcomes: VecDeque<Outcome>,
    events: Vec<Event>,
    /// Rings for as long as a poll would find something to do: a copy over cma is work of this side's processor, and no
    /// kernel object announces it.
    bell: Bell,
}

impl UcxFabric {
    fn update_bell(&mut self) {
        match self.outcomes.is_empty() && self.operations.is_empty() {
            true => self.bell.hush(|| false),
            false => self.bell.ring(),
        }
    }

    fn tell(&mut self, sink: &mut dyn Sink) -> bool {
        let any = !self.outcomes.is_empty();
        for outcome in self.outcomes.drain(..) {
            match outcome {
                Outcome::Connected(peer, result) => sink.connected(peer, result),
                Outcome::Flushing(_, token) => sink.flushing(token),
                Outcome::Completed(_, token, result) => sink.completed(token, result),
                Outcome::Lost(peer, error) => sink.lost(peer, error),
            }
        }
        any
    }
}

impl Fabric for UcxFabric {
    fn name(&self) -> &'static str {
        NAME
    }

    fn limits(&self) -> Limits {
        Limits { kinds: self.kinds.carried(), ..LIMITS }
    }

    fn address(&self) -> Vec<u8> {
        self.address.clone()
    }

    #[allow(unsafe_code)] // the trait's contract, passed on to the one who vouches
    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError> {
        // SAFETY: our own caller vouches for the region under the same contract.
        let packed = unsafe { self.local.insert(region) }?;
        Ok(wire::encode_key(&packed))
    }

    fn deregister(&mut self, key: RegionKey) {
        self.local.remove(key);
    }

    fn pinning(&self) -> Option<Arc<dyn Pinning>> {
        Some(self.local.pins())
    }

    fn connect(&mut self, peer: PeerKey, link: Link) {
        self.start_link(peer, link);
        self.update_bell();
    }

    fn disconnect(&mut self, peer: PeerKey) {
        self.end_link(peer);
        self.update_bell();
    }

    fn import(
        &mut self,
        peer: PeerKey,
        region: &Region,
        key_bytes: Option<&[u8]>,
    ) -> Result<(), FabricError> {
        let packed = key_bytes.map(wire::decode_key).transpose()?;
        if packed.is_none() && !self.peers.contains_key(&peer) {
            return Ok(());
        }
        let state = self.peers.entry(peer).or_insert_with(Peer::new);
        state.retired.extend(state.imports.withdraw(region.key));
        if let Some(packed) = packed {
            state.imports.announce(*region, packed);
        }
        self.destroy_retired(peer);
        Ok(())
    }

    fn post(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError> {
        let posted = self.accept(peer, batch);
        self.update_bell();
        posted
    }

    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool {
        let mut spent = 0_u64;
        let mut worked = false;
        while spent < budget_bytes && !self.operations.is_empty() {
            if !self.engine.progress() {
                break;
            }
            worked = true;
            spent += self.absorb().max(STEP_BYTES);
        }
        self.expire_proofs();
        worked |= self.tell(sink);
        self.update_bell();
        worked
    }

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        Some(self.bell.as_fd())
    }
}

impl Drop for UcxFabric {
    fn drop(&mut self) {
        let peers: Vec<PeerKey> = self.peers.keys().copied().collect();
        for peer in peers {
            self.end_link(peer);
        }
    }
}
