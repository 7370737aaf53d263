//! The `sim` fabric: a network inside one process, driven by a seed, that moves real bytes.
//!
//! ```text
//!   SimNet::new(SimConfig { seed, style, .. })  --open()-->  SimFabric, SimFabric, ..   (one for each simulated process)
//! ```
//!
//! It keeps the fabric contract to the letter and uses every freedom that the contract leaves: bytes move piecewise in
//! later polls and never at the post, links come up late, one poll takes more steps than the next, and where order is
//! not promised, batches overtake each other. Everything that is left to chance comes from the seed: fabrics that
//! are polled in the same order, with the same budgets, behave the same again. Faults beyond that (loss, failing
//! operations) will be fields of [`SimConfig`].
//!
//! Thread rule: each fabric by one thread at a time, as the contract says; the fabrics of one net may be on different
//! threads (one lock guards the net), and then the order of events is the scheduler's.

mod arriving;
mod fabric;
mod link;
mod memory;
mod rng;
mod world;

use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};

use crate::desc::MemoryKind;
use crate::error::{FabricError, FabricErrorKind};

pub use fabric::SimFabric;
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
            segments_per_batch: 4096,
            bytes_per_batch: 4 << 20,
            piece_bytes: 64 << 10,
            steps_per_poll: 8,
            connect_polls: 5,
            wire_bytes: 256 << 10,
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
        Self { world: Arc::new(Mutex::new(World::new(config))) }
    }

    /// One more member.
    pub fn open(&self) -> Result<SimFabric, FabricError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
            FabricError::new("sim", "eventfd", FabricErrorKind::NoResource, errno.raw_os_error(), "")
        })?;
        Ok(SimFabric::join(self.world.clone(), wake))
    }
}

/// A failure of the simulator's own.
fn error(call: &'static str, kind: FabricErrorKind, detail: impl Into<String>) -> FabricError {
    FabricError::new("sim", call, kind, 0, detail)
}
