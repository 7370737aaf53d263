//! How the ranks of one instance learn of each other: every rank brings a few bytes, and leaves with everybody's.
//!
//! One collective, [`gather`], over whichever way the machine offers; [`Way`] says which and why.
//!
//! ```text
//!                gather
//!                  |
//!                [`way`]                      decides, from settings and from what the process holds
//!     +------------+-------------+------------------+
//!   single     [`host`] [`guest`]  [`host_mpi`]       [`store`]
//!              TCP, rank 0 listens  MPI_Iallgather   client of torch's TCPStore
//!              [`frame`] [`dial`]   [`libmpi`]       [`tcp_store`] [`dial`]
//!              [`line`]
//! ```
//!
//! Not a transport: it runs once per connection manager, before anything is connected. Invariants: nothing waits
//! beyond the deadline (but for the resolver of the system); no length of a stranger's is believed before its bytes
//! are there; a call that fails leaves no socket and no thread behind. It runs on the caller's thread.

mod deadline;
mod dial;
mod error;
mod farewell;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod guest;
mod host;
mod host_mpi;
mod libmpi;
mod line;
mod store;
mod tcp_store;
mod way;

pub use error::RendezvousError;
pub use way::{Way, choose};

use crate::config::RendezvousSettings;
use deadline::Deadline;

/// What all ranks contributed, ordered by rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// The rank of this process.
    pub rank: u32,
    /// Every rank's part, its own included.
    pub parts: Vec<Vec<u8>>,
}

/// The most bytes that one rank may contribute.
pub const MAX_PART_BYTES: usize = 64 * 1024;

/// Brings `part`, and waits for the parts of all ranks of this instance. Every rank must call it, as often as and
/// in the order in which the others do.
///
/// # Errors
/// No way to meet, ranks that did not come in time (they are named), or a rank that does not belong here. Each
/// text says what to do.
pub fn gather(settings: &RendezvousSettings, part: &[u8]) -> Result<Gathered, RendezvousError> {
    if part.len() > MAX_PART_BYTES {
        return Err(RendezvousError::TooLarge { bytes: part.len() });
    }
    let deadline = Deadline::after(settings.timeout);
    let (way, mpi) = way::choose_with_mpi(settings)?;
    tracing::info!("rendezvous: {way}");
    match &way {
        Way::Single { .. } => Ok(Gathered { rank: 0, parts: vec![part.to_vec()] }),
        Way::Rendezvous { address, placement } if placement.rank == 0 => {
            let parts = host::receive(address, placement.size, part, settings.secret.as_ref(), deadline)?;
            Ok(Gathered { rank: 0, parts })
        }
        Way::Rendezvous { address, placement } => {
            let parts = guest::visit(address, placement, part, settings.secret.as_deref(), deadline)?;
            Ok(Gathered { rank: placement.rank, parts })
        }
        Way::HostMpi { rank, .. } => {
            let parts = mpi.ok_or(RendezvousError::NoMpi)?.gather(part, deadline)?;
            Ok(Gathered { rank: *rank, parts })
        }
        Way::TorchStore { address, placement } => {
            let parts = store::gather(address, placement, settings.restarts(), part, deadline)?;
            Ok(Gathered { rank: placement.rank, parts })
        }
    }
}
