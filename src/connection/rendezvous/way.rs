//! Which way the ranks of an instance meet, and why that one.

use std::fmt;

use crate::config::RendezvousSettings;
use crate::config::rendezvous::{HostPort, Placement, Source};

use super::RendezvousError;
use super::host_mpi::HostMpi;

/// How the ranks meet. Its text is one line for the log, the reason included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// This rank is alone, and needs nobody.
    Single {
        /// Why it is thought to be.
        reason: String,
    },
    /// At a place that a person named; rank 0 listens there.
    Rendezvous {
        /// The place.
        address: HostPort,
        /// Who this process is.
        placement: Placement,
    },
    /// Over the MPI that the host has initialised.
    HostMpi {
        /// This process's rank there.
        rank: u32,
        /// How many there are.
        size: u32,
        /// Which MPI, and which of its communicators.
        library: String,
    },
    /// In torch's store.
    TorchStore {
        /// Where the store is.
        address: HostPort,
        /// Who this process is.
        placement: Placement,
    },
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single { reason } => write!(f, "a single rank ({reason})"),
            Self::Rendezvous { address, placement } => {
                let does = if placement.rank == 0 { "listens" } else { "dials" };
                let Placement { rank, size, .. } = placement;
                write!(f, "rank {rank} of {size} {does} at {address} (BATON_RENDEZVOUS is set; {placement})")
            }
            Self::HostMpi { rank, size, library } => {
                write!(f, "rank {rank} of {size} over the host's MPI (it is initialised: {library})")
            }
            Self::TorchStore { address, placement } => {
                let Placement { rank, size, .. } = placement;
                write!(
                    f,
                    "rank {rank} of {size} in torch's store at {address} (MASTER_ADDR is set; {placement})"
                )
            }
        }
    }
}

/// The way that [`super::gather`] would take in this process, now. Connects to nobody.
///
/// # Errors
/// Settings that contradict each other or the host's MPI, or an MPI that cannot be used.
pub fn choose(settings: &RendezvousSettings) -> Result<Way, RendezvousError> {
    choose_with_mpi(settings).map(|(way, _)| way)
}

/// [`choose`], with the MPI that it looked at, if it did.
pub(super) fn choose_with_mpi(
    settings: &RendezvousSettings,
) -> Result<(Way, Option<HostMpi>), RendezvousError> {
    let mut mpi = None;
    let way = decide(settings, || {
        mpi = HostMpi::find()?;
        Ok(mpi.as_ref().map(HostMpi::world))
    })?;
    Ok((way, mpi))
}

/// What the host's MPI says about this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct World {
    pub rank: u32,
    pub size: u32,
    pub library: String,
}

fn decide(
    settings: &RendezvousSettings,
    world: impl FnOnce() -> Result<Option<World>, RendezvousError>,
) -> Result<Way, RendezvousError> {
    if let Some(told) = settings.told.as_ref().filter(|told| told.size == 1) {
        return Ok(Way::Single { reason: told.to_string() });
    }
    if let Some(address) = &settings.meeting {
        return at_the_place(settings, address);
    }
    if settings.mpi
        && let Some(world) = world()?
    {
        return over_mpi(settings, world);
    }
    let store = settings.store()?;
    match (settings.placement()?, store) {
        (None, _) => match settings.master() {
            Some(address) => Err(RendezvousError::UnplacedWorker { address: address.to_owned() }),
            None => Ok(Way::Single { reason: "nothing says that there are others".to_owned() }),
        },
        (Some(placement), _) if placement.size == 1 => Ok(Way::Single { reason: placement.to_string() }),
        (Some(placement), Some(address)) => Ok(Way::TorchStore { address, placement }),
        (Some(placement), None) if placement.source == Source::Slurm => {
            Ok(Way::Single { reason: format!("{placement}, but its tasks have no place to meet") })
        }
        (Some(placement), None) => Err(RendezvousError::NoPlace { placement: placement.to_string() }),
    }
}

fn at_the_place(settings: &RendezvousSettings, address: &HostPort) -> Result<Way, RendezvousError> {
    let Some(placement) = settings.placement()? else {
        return Err(RendezvousError::Unplaced { address: address.to_string() });
    };
    if placement.size == 1 {
        return Ok(Way::Single { reason: placement.to_string() });
    }
    Ok(Way::Rendezvous { address: address.clone(), placement })
}

/// A host that runs on torch may have initialised an MPI of one by an import: nobody can tell which of the two it
/// means, so a person must say.
fn over_mpi(settings: &RendezvousSettings, world: World) -> Result<Way, RendezvousError> {
    let World { rank, size, library } = world;
    let other = match settings.store() {
        Ok(Some(_)) => settings.placement()?,
        _ => settings.told.clone(),
    };
    match other {
        Some(placement) if (placement.rank, placement.size) != (rank, size) => {
            Err(RendezvousError::MpiDisagrees { rank, size, placement: placement.to_string() })
        }
        _ if size == 1 => Ok(Way::Single { reason: format!("the host's MPI has one rank: {library}") }),
        _ => Ok(Way::HostMpi { rank, size, library }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Environment;

    fn way(variables: &[(&str, &str)], world: Option<(u32, u32)>) -> String {
        let environment = Environment::from_map(variables.iter().copied());
        let settings = RendezvousSettings::from_environment(&environment).unwrap();
        let world = world.map(|(rank, size)| World { rank, size, library: "Open MPI".to_owned() });
        decide(&settings, || Ok(world)).map_or_else(|error| error.to_string(), |way| way.to_string())
    }

    const PLACE: (&str, &str) = ("BATON_RENDEZVOUS", "node0:29600");
    const TORCH: [(&str, &str); 2] = [("RANK", "1"), ("WORLD_SIZE", "4")];
    const STORE: [(&str, &str); 2] = [("MASTER_ADDR", "node0"), ("MASTER_PORT", "29500")];

    #[test]
    fn the_first_that_applies_is_taken() {
        let all = [&TORCH[..], &STORE, &[PLACE]].concat();
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<(u32, u32)>, &'a str);
        let table: [Row<'_>; 9] = [
            (
                &all,
                Some((1, 4)),
                "rank 1 of 4 dials at node0:29600 (BATON_RENDEZVOUS is set; RANK=1, WORLD_SIZE=4)",
            ),
            (
                &[PLACE, ("BATON_RANK", "0"), ("BATON_WORLD_SIZE", "2")],
                Some((1, 4)),
                "rank 0 of 2 listens at node0:29600 (BATON_RENDEZVOUS is set; BATON_RANK=0, BATON_WORLD_SIZE=2)",
            ),
            (&[], Some((2, 4)), "rank 2 of 4 over the host's MPI (it is initialised: Open MPI)"),
            (&TORCH, Some((2, 4)), "rank 2 of 4 over the host's MPI (it is initialised: Open MPI)"),
            (&[], Some((0, 1)), "a single rank (the host's MPI has one rank: Open MPI)"),
            (
                &[("BATON_RANK", "0"), ("BATON_WORLD_SIZE", "1")],
                Some((2, 4)),
                "a single rank (BATON_RANK=0, BATON_WORLD_SIZE=1)",
            ),
            (
                &[&TORCH[..], &STORE].concat(),
                None,
                "rank 1 of 4 in torch's store at node0:29500 (MASTER_ADDR is set; RANK=1, WORLD_SIZE=4)",
            ),
            (&[], None, "a single rank (nothing says that there are others)"),
            (
                &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "2")],
                None,
                "a single rank (SLURM_PROCID=1, SLURM_NTASKS=2, but its tasks have no place to meet)",
            ),
        ];
        for (variables, world, text) in table {
            assert_eq!(way(variables, world), text);
        }
    }

    #[test]
    fn without_mpi_the_store_serves() {
        let variables = [&TORCH[..], &STORE, &[("TLLM_DISABLE_MPI", "1")]].concat();
        assert!(way(&variables, Some((2, 4))).starts_with("rank 1 of 4 in torch's store"));
    }

    #[test]
    fn several_ranks_without_a_place_are_an_error() {
        assert!(way(&TORCH, None).contains("RANK=1, WORLD_SIZE=4 says that this instance has several ranks"));
        assert!(way(&[PLACE], None).contains("nothing says which rank this is"));
        // So do Ray's workers find themselves.
        let ray = [("TLLM_DISABLE_MPI", "1"), ("MASTER_ADDR", "10.0.0.1")];
        assert!(
            way(&ray, None).contains("MASTER_ADDR=10.0.0.1 is set, so this process may be one of several")
        );
        let alone = [("BATON_RANK", "0"), ("BATON_WORLD_SIZE", "1")];
        assert!(way(&[ray, alone].concat(), None).starts_with("a single rank (BATON_RANK=0"));
    }

    #[test]
    fn an_mpi_that_says_otherwise_is_an_error_that_names_both() {
        assert_eq!(
            way(&[&TORCH[..], &STORE].concat(), Some((0, 1))),
            "rendezvous: the host's MPI says that this is rank 0 of 1, but RANK=1, WORLD_SIZE=4: set TLLM_DISABLE_MPI=1 \
             if the host does not run on MPI, or unset the variables that are wrong"
        );
        assert!(way(&[&TORCH[..], &STORE].concat(), Some((1, 4))).contains("over the host's MPI"));
        assert!(
            way(&[("BATON_RANK", "0"), ("BATON_WORLD_SIZE", "2")], Some((0, 4))).contains("rank 0 of 4, but")
        );
    }
}
