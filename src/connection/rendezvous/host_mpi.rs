//! The collective over the MPI that the host has initialised.
//!
//! Two exchanges: of lengths, then of parts padded to the longest. Both are MPI_Iallgather, tested until the
//! deadline, because a blocking one cannot be left again. Nothing of MPI is changed: no communicator, no error handler
//! (the host's decides what an MPI error does; by default it ends the process).

use super::deadline::Deadline;
use super::libmpi::{Failure, Library};
use super::way::World;
use super::{MAX_PART_BYTES, RendezvousError};

/// The host's MPI, and who this process is in it.
#[derive(Debug)]
pub struct HostMpi {
    library: Library,
    world: World,
}

impl HostMpi {
    /// The MPI that this process has loaded and initialised, if there is one. Loads and initialises none.
    pub fn find() -> Result<Option<Self>, RendezvousError> {
        let unusable =
            |why: super::libmpi::Unusable| RendezvousError::Mpi { library: why.library, why: why.why };
        let Some(library) = Library::find().map_err(unusable)? else { return Ok(None) };
        let failed = |failure: Failure| error(&library, &failure);
        let (rank, size) = library.rank_and_size().map_err(failed)?;
        let world = World { rank, size, library: library.to_string() };
        Ok(Some(Self { library, world }))
    }

    /// What it says about this process.
    pub fn world(&self) -> World {
        self.world.clone()
    }

    /// Brings `part`, and takes home everybody's.
    pub fn gather(&self, part: &[u8], deadline: Deadline) -> Result<Vec<Vec<u8>>, RendezvousError> {
        let size = self.world.size as usize;
        let own_len = u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes();
        let lens = self.exchange(&own_len, deadline)?;
        let lens: Vec<usize> =
            lens.as_chunks::<4>().0.iter().map(|len| u32::from_le_bytes(*len) as usize).collect();
        let longest = lens.iter().copied().max().unwrap_or(0);
        if longest > MAX_PART_BYTES || lens.len() != size {
            let why = format!("a rank brings {longest} bytes, more than {MAX_PART_BYTES}");
            return Err(RendezvousError::Mpi { library: self.world.library.clone(), why });
        }
        if longest == 0 {
            return Ok(vec![Vec::new(); size]);
        }
        let mut padded = part.to_vec();
        padded.resize(longest, 0);
        let all = self.exchange(&padded, deadline)?;
        Ok(all.chunks(longest).zip(lens).map(|(chunk, len)| chunk[..len].to_vec()).collect())
    }

    fn exchange(&self, bytes: &[u8], deadline: Deadline) -> Result<Vec<u8>, RendezvousError> {
        let going_on = || deadline.left().is_some();
        match self.library.all_gather(bytes, self.world.size, going_on) {
            Ok(all) => Ok(all),
            Err(Failure::Stopped) => Err(RendezvousError::Incomplete {
                place: format!("the host's MPI ({})", self.world.library),
                size: self.world.size,
                waited_ms: deadline.waited().as_millis(),
            }),
            Err(failure) => Err(error(&self.library, &failure)),
        }
    }
}

fn error(library: &Library, failure: &Failure) -> RendezvousError {
    RendezvousError::Mpi { library: library.to_string(), why: failure.to_string() }
}
