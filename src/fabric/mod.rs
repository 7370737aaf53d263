//! Fabrics: what carries the bytes of a transfer from one process's memory to another's.
//!
//! One small object-safe trait, batch-granular and non-blocking, with differences as values in [`Limits`].
//! Queueing, splitting, retry, completion accounting and every decision about a transfer live above the
//! trait, once; a fabric only moves bytes and says when they have arrived.
//!
//! # The contract
//!
//! * **Threads.** A fabric is driven by one thread at a time, under its agent's lock: it is `Send`, not
//!   `Sync`. No call blocks: work that has to wait is finished by [`Fabric::poll`]. What takes long is apart, for any
//!   thread: of registering memory ([`Pinning`]), of moving bytes ([`Hand`]). A fabric with hands has locks of its own for
//!   those, and its calls may wait for as long as a hand takes for a piece.
//! * **Memory.** [`Fabric::register`] and [`Pinning::pin`] alone are unsafe: their caller promises that the region stays
//!   mapped until `deregister` returns. In return a fabric checks every *local* address it is handed against
//!   its registered regions and refuses others with `InvalidRegion`, touching nothing. *Remote* addresses are
//!   checked by the agent above, against the regions the peer has announced.
//! * **Completion.** [`Sink::completed`] with `Ok` means that every byte of the batch is in place at its
//!   destination and visible there; for a framed fabric it means that every byte has been handed to the
//!   kernel, and arrival is the receiver's to tell ([`Sink::landed`]). Each accepted batch completes exactly
//!   once, in any order unless [`Limits::ordered`]; after [`Fabric::disconnect`] returns, no byte of that
//!   peer's batches lands any more and none of its tokens completes any more.
//! * **Back-pressure** is a value: [`Posted::Full`] hands the batch back unchanged; it may be tried again
//!   after the next completion of any batch.
//! * **Errors** say what the caller could not foresee. `PeerLost` is reported once per peer through
//!   [`Sink::lost`]; what is in flight to that peer completes with an error first.
//! * **Dropping** a fabric closes it: nothing moves afterwards and nothing stays behind (files, sockets).

mod bell;
mod credentials;
pub mod cuda;
pub mod local;
mod peer_process;
mod ptracer;
mod regions;
pub mod registry;
pub mod sim;
pub mod stream;
pub mod trial;
pub mod ucx;
mod wake;

use std::os::fd::BorrowedFd;
use std::sync::Arc;

pub(crate) use self::bell::Bell;
pub use self::credentials::Credentials;
pub use self::ptracer::yama_scope;
pub use crate::desc::Region;
pub use regions::{LastHit, RegionSet};

use crate::desc::{MemoryKind, OpToken, PeerKey, RegionKey, Segment, Span, TransferOp};
use crate::error::FabricError;
use crate::trust::LinkKeys;

/// What a fabric can do, as values. The agent plans by these and never asks which fabric it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Batches with [`TransferOp::Read`] move by this side alone.
    pub native_read: bool,
    /// Batches with [`TransferOp::Write`] move by this side alone.
    pub native_write: bool,
    /// A write batch travels as a frame (header and payload) that the receiver places: the receiver's sink
    /// sees [`Sink::arrived`], then [`Sink::landed`]. Excludes the native flags.
    pub framed: bool,
    /// Batches to one peer complete, and frames arrive, in the order they were posted.
    pub ordered: bool,
    /// Only peers on this host can be reached.
    pub same_host_only: bool,
    /// Batches that one peer may have in flight; further ones are handed back.
    pub batches_in_flight: usize,
    /// Segments in one batch.
    pub segments_per_batch: usize,
    /// Bytes in one batch: bounds what one step can move. A single longer segment must be split above.
    pub bytes_per_batch: u64,
    /// Memory kinds that it carries, from each to each.
    pub kinds: &'static [MemoryKind],
    /// It cannot reach every region: one for which [`Fabric::register`] returns no key bytes may be the near end of a batch
    /// and not the far end. The fabric has logged why.
    pub selective: bool,
    /// Write batches of many segments, each of fewer bytes than these on average, cost more than gathering them into one
    /// segment and scattering that at the peer. 0 where that is never so.
    pub gathers_below: u64,
    /// A side that is linked keeps regions of the other's mapped: their memory is not to be freed before it has let go of
    /// them.
    pub maps_regions: bool,
}

/// What a fabric needs to reach one peer.
#[derive(Clone, Debug)]
pub struct Link {
    /// What the peer's fabric of the same name returned from [`Fabric::address`].
    pub address: Vec<u8>,
    /// The same on both sides and unique to this pair of sessions: lets the accepting side tell whose
    /// connection has come in.
    pub link_id: [u8; 16],
    /// The peer's process, when the control stream is a Unix socket.
    pub credentials: Option<Credentials>,
    /// The keys of the link, where the peer has shown that it has ours.
    pub keys: Option<Arc<LinkKeys>>,
}

/// One batch of copies to or from one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Comes back in [`Sink::completed`].
    pub token: OpToken,
    /// Read: `src` is the peer's memory. Write: `dst` is.
    pub op: TransferOp,
    /// What to copy; never empty, within [`Limits`].
    pub segments: Vec<Segment>,
    /// For framed fabrics: travels ahead of the payload and is handed to the receiver's sink as it is.
    /// At most [`HEADER_MAX_BYTES`]. Empty otherwise.
    pub header: Vec<u8>,
}

impl Batch {
    /// Bytes that the batch moves.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.len).sum()
    }
}

/// The answer to a post.
#[derive(Debug, PartialEq, Eq)]
pub enum Posted {
    /// The batch is the fabric's; its token will complete.
    Accepted,
    /// The peer's queue is full: here is the batch again, untouched.
    Full(Batch),
}

/// Where the payload of an arrived frame goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Scatter the payload over these spans in order (their lengths add up to the payload's), then call
    /// [`Sink::landed`] with the ticket.
    Scatter {
        /// Given back when the payload is in place.
        ticket: u64,
        /// Destination, in payload order. The fabric checks it against its registered regions.
        spans: Vec<Span>,
    },
    /// Read the payload and throw it away; no further event.
    Discard,
}

/// The part of registering that may take long: a library pins the pages. It is apart from its fabric, so that the
/// thread that registers can do it while others drive the fabric.
pub trait Pinning: Send + Sync {
    /// Pins a region ahead of [`Fabric::register`], which is quick then.
    ///
    /// # Safety
    /// Until [`Pinning::unpin`] returns for this key, the region is mapped, readable and writable, and nobody holds a
    /// Rust reference to it.
    #[allow(unsafe_code)] // the contract, not a block: the caller vouches for the memory
    unsafe fn pin(&self, region: &Region) -> Result<(), FabricError>;

    /// Undoes it, behind [`Fabric::deregister`] or without the region ever having been registered. May be called after
    /// the fabric is gone. Unknown keys are ignored.
    fn unpin(&self, key: RegionKey);
}

/// The part of moving bytes that any thread may do, beside whoever drives the fabric: copies of what was posted.
pub trait Hand: Send + Sync {
    /// Copies a piece that nobody has taken, if there is one and not enough threads copy already; whether it has. What
    /// comes of it is told by a [`Fabric::poll`], to which [`Fabric::wake`] calls. Takes as long as a mebibyte takes to
    /// copy. May be called after the fabric is gone.
    fn lend(&self) -> bool;

    /// Whether there is a piece to copy, and another thread may: one atomic load.
    fn has_work(&self) -> bool;

    /// Whether anything is queued or being copied. Whoever lends a hand may leave at any time: the thread that drives
    /// the fabric looks again within a millisecond while this is so. One atomic load.
    fn is_busy(&self) -> bool;
}

/// What a fabric tells the agent while it is polled.
pub trait Sink {
    /// The link to `peer` is up (or cannot be): the outcome of [`Fabric::connect`], exactly once for each.
    fn connected(&mut self, peer: PeerKey, outcome: Result<(), FabricError>);
    /// All bytes of a batch have left; what it still waits for is the proof that they have arrived. For those who watch:
    /// a fabric that cannot tell the two apart does not call it.
    fn flushing(&mut self, _token: OpToken) {}
    /// A batch is over.
    fn completed(&mut self, token: OpToken, outcome: Result<(), FabricError>);
    /// Framed fabrics: a frame's header is here; where shall its `payload_bytes` go?
    fn arrived(&mut self, peer: PeerKey, header: &[u8], payload_bytes: u64) -> Landing;
    /// Framed fabrics: the payload is in place and visible, or could not be placed.
    fn landed(&mut self, peer: PeerKey, ticket: u64, outcome: Result<(), FabricError>);
    /// The link to `peer` broke by itself. Not called for [`Fabric::disconnect`].
    fn lost(&mut self, peer: PeerKey, error: FabricError);
}

/// Longest header of a framed batch, in bytes: a header of the largest number of spans fits.
pub const HEADER_MAX_BYTES: usize = 64 * 1024;

/// See the [module](self) for the contract.
pub trait Fabric: Send {
    /// Its name, as in `BATON_LANES` and in every log line.
    fn name(&self) -> &'static str;

    /// What it can do here.
    fn limits(&self) -> Limits;

    /// What a peer's fabric of the same name needs to connect to this one. Stable while the fabric lives.
    fn address(&self) -> Vec<u8>;

    /// Makes `region` usable as source and destination and returns the key bytes that a peer needs to reach
    /// it (empty where none are needed). Quick, unless the region would have to be pinned and has not been.
    ///
    /// # Safety
    /// Until [`Fabric::deregister`] returns for this key, the region is mapped, readable and writable, and
    /// nobody holds a Rust reference to it.
    #[allow(unsafe_code)] // the contract, not a block: the caller vouches for the memory
    unsafe fn register(&mut self, region: &Region) -> Result<Vec<u8>, FabricError>;

    /// Forgets a region. Batches that use it have been drained by the caller. Unknown keys are ignored.
    fn deregister(&mut self, key: RegionKey);

    /// What pins memory ahead of [`Fabric::register`]; `None` where registering takes a note and nothing more. A
    /// region pinned by it stays pinned when it is deregistered.
    fn pinning(&self) -> Option<Arc<dyn Pinning>> {
        None
    }

    /// What copies beside [`Fabric::poll`], which copies as well; `None` where nothing is copied by threads of this process.
    fn hand(&self) -> Option<Arc<dyn Hand>> {
        None
    }

    /// Starts to connect; the outcome comes through [`Sink::connected`]. Both sides of a pair connect.
    fn connect(&mut self, peer: PeerKey, link: Link);

    /// What the link to this peer rides on, as precisely as the fabric knows: what logs and reports call the
    /// lane. The fabric's name where it knows no better.
    fn carrier(&self, _peer: PeerKey) -> &'static str {
        self.name()
    }

    /// Ends the link, and whatever is in flight on it, before it returns.
    fn disconnect(&mut self, peer: PeerKey);

    /// Announces a region of the peer with the key bytes its `register` returned; `None` withdraws it.
    fn import(&mut self, peer: PeerKey, region: &Region, key_bytes: Option<&[u8]>)
    -> Result<(), FabricError>;

    /// Queues a batch. A framed fabric takes writes only. Whoever posts polls afterwards: it need not ring for itself.
    fn post(&mut self, peer: PeerKey, batch: Batch) -> Result<Posted, FabricError>;

    /// Moves at most about `budget_bytes` and reports what happened. Returns whether anything did.
    fn poll(&mut self, budget_bytes: u64, sink: &mut dyn Sink) -> bool;

    /// Becomes readable when `poll` has something to do; `None` where the library has no such handle, and the agent
    /// then polls by a timer while work is in flight. See [`Fabric::post`] for what it need not tell.
    fn wake(&self) -> Option<BorrowedFd<'_>>;
}
