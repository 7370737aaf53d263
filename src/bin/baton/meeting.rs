//! How the ranks of an instance would meet, asked of the engine's own decision. It connects to nobody.
//!
//! Not the worker: this process has no MPI, so what an MPI launcher says is told with that in mind.

use baton::config::RendezvousSettings;
use baton::config::rendezvous::{Placement, Source};
use baton::connection::rendezvous::{RendezvousError, choose};

/// The way, as a worker logs it.
///
/// # Errors
/// What a worker's makeUcxConnectionManager would throw.
pub fn meet(settings: &RendezvousSettings) -> Result<String, String> {
    match choose(settings) {
        Ok(way) => Ok(way.to_string()),
        Err(error) => over_mpi(settings, &error).ok_or_else(|| error.to_string()),
    }
}

/// Ranks of mpirun have no place to meet in the environment and need none where the host runs on that MPI.
fn over_mpi(settings: &RendezvousSettings, error: &RendezvousError) -> Option<String> {
    let is_mpi = |name: &str| name.starts_with("OMPI_") || name.starts_with("PMI");
    match (error, settings.placement()) {
        (RendezvousError::NoPlace { .. }, Ok(Some(placement))) if settings.mpi => match placement {
            Placement { rank, size, source: Source::Launcher(names) } if is_mpi(names.rank) => Some(format!(
                "rank {rank} of {size} over the host's MPI ({placement}); in a host that has not initialised it, an \
                 error: set BATON_RENDEZVOUS=host:port (rank 0's host) there"
            )),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton::config::Environment;

    fn meeting(variables: &[(&str, &str)]) -> Result<String, String> {
        let environment = Environment::from_map(variables.iter().copied());
        meet(&RendezvousSettings::from_environment(&environment).unwrap())
    }

    #[test]
    fn the_way_is_told_and_so_is_that_there_is_none() {
        assert_eq!(meeting(&[]).unwrap(), "a single rank (nothing says that there are others)");
        let torch = [("RANK", "1"), ("WORLD_SIZE", "4")];
        assert!(meeting(&torch).unwrap_err().contains("they have no place to meet"));
        assert!(meeting(&[("BATON_RENDEZVOUS", "a:1")]).unwrap_err().contains("nothing says which rank"));
    }

    #[test]
    fn ranks_of_mpirun_may_meet_over_mpi() {
        let mpirun = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4")];
        assert!(meeting(&mpirun).unwrap().starts_with("rank 1 of 4 over the host's MPI"));
        let disabled = [&mpirun[..], &[("TLLM_DISABLE_MPI", "1")]].concat();
        assert!(meeting(&disabled).unwrap_err().contains("they have no place to meet"));
    }
}
