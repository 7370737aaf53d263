//! The `sim` fabric: a network inside one process, driven by a seed, that moves real bytes.
//!
//! ```text
//!   SimNet::new(SimConfig { seed, style, .. })  --open()-->  SimFabric, SimFabric, ..   (one for each simulated process)
//! ```
//!
//! It keeps the fabric contract to the letter and uses every freedom that the contract leaves: bytes move piecewise in
//! later polls and never at the post, links come up late, one poll takes more steps than the next, and where order is
//! not promised, batches overtake each other. Everything that is left to chance comes from the seed: fabrics that
//! are polled in the same order, with the same budgets, behave the same again.
//!
//! Faults beyond that are asked for: short completion queues are a field of [`SimConfig`], the n-th operation fails
//! by [`SimFabric::fail_after`], a process that comes back where another was is [`SimNet::reopen`], and a net whose
//! deregistration does not revoke is [`SimNet::landing_late`]. [`SimNet::struck`] counts what came of them.
//!
//! Thread rule: each fabric by one thread at a time, as the contract says; the fabrics of one net may be on different
//! threads (one lock guards the net), and then the order of events is the scheduler's.

mod arriving;
mod fabric;
mod link;
mod memory;
mod rng;
mod struck;
mod world;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::desc::MemoryKind;
use crate::error::{FabricError, FabricErrorKind};

pub use fabric::SimFabric;
pub use struck::Struck;
use world::World;

/// Which kind of fabric is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SimStyle {
    /// One-sided reads and writes, with region keys, as over RDMA.
    Native,
    /// One-sided reads only and no keys, as between processes of one host.
    ReadOnly,
    /// Frames that the receiver places, as over a socket. Always in order.
    Framed,
}

/// How a simulated net behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimConfig {
    /// Where all chance comes from.
    pub seed: u64,
    /// What it simulates.
    pub style: SimStyle,
    /// Whether batches to one peer complete in order.
    pub ordered: bool,
    /// Batches that one peer may have in flight.
    pub batches_in_flight: usize,
    /// Batches that one peer's queue has room for, which may be fewer.
    pub queue_room: usize,
    /// Segments in one batch.
    pub segments_per_batch: usize,
    /// Bytes in one batch.
    pub bytes_per_batch: u64,
    /// Most bytes that one step moves.
    pub piece_bytes: u64,
    /// Most steps that one poll takes.
    pub steps_per_poll: u64,
    /// Most polls that a connect takes longer than it must.
    pub connect_polls: u64,
    /// Bytes that a line holds in each direction, framed style.
    pub wire_bytes: u64,
    /// Batches of one peer that may be over and not reported: nothing moves to it while there are so many.
    pub completions: usize,
    /// As in [`Limits::gathers_below`](super::Limits::gathers_below); native style.
    pub gathers_below: u64,
    /// Memory kinds that can be registered. Whatever they say, it is memory of this process.
    pub kinds: &'static [MemoryKind],
}

impl SimConfig {
    /// A net of this style, with everything else as most tests want it.
    pub fn new(style: SimStyle, seed: u64) -> Self {
        Self {
            seed,
            style,
            ordered: false,
            batches_in_flight: 32,
            queue_room: usize::MAX,
            segments_per_batch: 4096,
            bytes_per_batch: 4 << 20,
            piece_bytes: 64 << 10,
            steps_per_poll: 8,
            connect_polls: 5,
            wire_bytes: 256 << 10,
            completions: usize::MAX,
            gathers_below: 0,
            kinds: &[MemoryKind::Dram],
        }
    }

    /// Whether peers need a region's key bytes to reach it.
    fn has_keys(&self) -> bool {
        self.style == SimStyle::Native
    }
}

/// A simulated net. Clones are handles to the same one.
#[derive(Clone)]
pub struct SimNet {
    world: Arc<Mutex<World>>,
}

impl SimNet {
    /// A net without members.
    pub fn new(config: SimConfig) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(config, false))) }
    }

    /// A net on which neither a deregistration nor the owner's disconnect stops what the other side has posted: it
    /// lands all the same. Only the end of the owner, of its poster or of the poster's link does.
    ///
    /// # Safety
    /// Whatever is ever registered with a fabric of the net stays mapped, readable, writable and free of Rust
    /// references until that fabric is dropped, deregistered or not.
    #[allow(unsafe_code)] // the contract, not a block: the caller vouches for the memory
    pub unsafe fn landing_late(config: SimConfig) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(config, true))) }
    }

    /// One more member.
    pub fn open(&self) -> Result<SimFabric, FabricError> {
        Ok(SimFabric::join(self.world.clone(), eventfd_of_a_member()?, None))
    }

    /// A new member at the address of one that is gone, as of a process that was started again. It gives out the
    /// same keys for the same registrations.
    pub fn reopen(&self, address: &[u8]) -> Result<SimFabric, FabricError> {
        let member = fabric::parse_address(address)
            .filter(|member| self.world.lock().members.get(*member).is_some_and(|member| !member.alive));
        let Some(member) = member else {
            return Err(error(
                "reopen",
                FabricErrorKind::Unreachable,
                "no member that is gone has this address",
            ));
        };
        Ok(SimFabric::join(self.world.clone(), eventfd_of_a_member()?, Some(member)))
    }

    /// How often each fault has struck so far.
    pub fn struck(&self) -> Struck {
        self.world.lock().struck()
    }
}

fn eventfd_of_a_member() -> Result<OwnedFd, FabricError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
        FabricError::new("sim", "eventfd", FabricErrorKind::NoResource, errno.raw_os_error(), "")
    })
}

/// A failure of the simulator's own.
fn error(call: &'static str, kind: FabricErrorKind, detail: impl Into<String>) -> FabricError {
    FabricError::new("sim", call, kind, 0, detail)
}
