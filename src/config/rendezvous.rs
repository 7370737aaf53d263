//! Where and as whom a rank meets the other ranks of its instance.
//!
//! What Baton's own variables say is checked at once. What launchers say (torch, MPI, Slurm) is kept as it
//! stands and read only when somebody needs it: a stale `RANK` is no reason to refuse a host that runs on MPI.

use super::engine::milliseconds;
use super::environment::{Environment, SettingError};
use super::trust;
use crate::trust::Secret;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What the environment says about meeting the other ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RendezvousSettings {
    /// Where rank 0 listens for the others, if somebody said so (`BATON_RENDEZVOUS`).
    pub meeting: Option<HostPort>,
    /// Who this process is, if somebody told Baton itself (`BATON_RANK`, `BATON_WORLD_SIZE`).
    pub told: Option<Placement>,
    /// The host's MPI may be used: `TLLM_DISABLE_MPI` is not 1.
    pub mpi: bool,
    /// How long the ranks wait for each other (`BATON_RENDEZVOUS_TIMEOUT_MS`).
    pub timeout: Duration,
    /// The key that all ranks must have; without one, ranks are not authenticated.
    pub secret: Option<Arc<Secret>>,
    launcher: Environment,
}

impl Default for RendezvousSettings {
    fn default() -> Self {
        Self {
            meeting: None,
            told: None,
            mpi: true,
            timeout: TIMEOUT,
            secret: None,
            launcher: Environment::default(),
        }
    }
}

impl RendezvousSettings {
    /// What `environment` says.
    ///
    /// # Errors
    /// A variable of Baton's whose value cannot be used, or one of a pair without the other.
    pub fn from_environment(environment: &Environment) -> Result<Self, SettingError> {
        let meeting = match environment.setting(MEETING)? {
            None => None,
            Some(text) => Some(HostPort::parse(text).ok_or_else(|| {
                SettingError::unusable(MEETING, text, "host:port or [IPv6]:port, with a port from 1 to 65535")
            })?),
        };
        Ok(Self {
            meeting,
            told: told(environment)?,
            mpi: !environment.is_on("TLLM_DISABLE_MPI"),
            timeout: milliseconds(environment, "BATON_RENDEZVOUS_TIMEOUT_MS", TIMEOUT)?,
            secret: trust::secret(environment)?,
            launcher: environment.clone(),
        })
    }

    /// [`Self::from_environment`] of this process.
    ///
    /// # Errors
    /// As there.
    pub fn from_process() -> Result<Self, SettingError> {
        Self::from_environment(&Environment::from_process())
    }

    /// Who this process is: what Baton was told, else what its launcher says.
    ///
    /// # Errors
    /// A value that is no rank or size, or two launchers that contradict each other.
    pub fn placement(&self) -> Result<Option<Placement>, SettingError> {
        match &self.told {
            Some(told) => Ok(Some(told.clone())),
            None => launched(&self.launcher),
        }
    }

    /// Where torch's store is (`MASTER_ADDR`, `MASTER_PORT`), `None` unless both are set.
    ///
    /// # Errors
    /// A port that is none.
    pub fn store(&self) -> Result<Option<HostPort>, SettingError> {
        let host = self.launcher.setting("MASTER_ADDR")?;
        let (Some(host), Some(text)) = (host, self.launcher.setting("MASTER_PORT")?) else { return Ok(None) };
        let port = text.parse().ok().filter(|port| *port != 0);
        let port =
            port.ok_or_else(|| SettingError::unusable("MASTER_PORT", text, "a TCP port from 1 to 65535"))?;
        Ok(Some(HostPort { host: host.trim_matches(['[', ']']).to_owned(), port }))
    }

    /// The host of torch's store as the launcher spells it, with or without a port.
    pub fn master(&self) -> Option<&str> {
        self.launcher.setting("MASTER_ADDR").ok().flatten()
    }

    /// How often torchrun has started these ranks anew, as it says; its store outlives them.
    pub fn restarts(&self) -> &str {
        self.launcher.setting("TORCHELASTIC_RESTART_COUNT").ok().flatten().unwrap_or("0")
    }
}

/// A host by name or address, and a port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The TCP port, not 0.
    pub port: u16,
}

impl HostPort {
    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|inner| inner.contains(':'))?,
            None if host.contains(':') => return None,
            None => host,
        };
        let odd = |c: char| c.is_whitespace() || matches!(c, '/' | '[' | ']');
        if bare.is_empty() || bare.len() > MAX_HOST_BYTES || bare.contains(odd) || port.starts_with('+') {
            return None;
        }
        let port = port.parse().ok().filter(|port| *port != 0)?;
        Some(Self { host: bare.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Who a process is among the ranks of its instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its rank, below `size`.
    pub rank: u32,
    /// How many ranks there are.
    pub size: u32,
    /// Who says so.
    pub source: Source,
}

/// Who says which rank a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A person, to Baton.
    Told,
    /// The launcher of the ranks: torchrun, mpirun.
    Launcher(Names),
    /// Slurm alone. Its tasks are often instances of their own, or launchers of others.
    Slurm,
}

/// The two variables that say who a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// That with the rank.
    pub rank: &'static str,
    /// That with the size.
    pub size: &'static str,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = match self.source {
            Source::Told => TOLD,
            Source::Launcher(names) => names,
            Source::Slurm => SLURM,
        };
        write!(f, "{}={}, {}={}", names.rank, self.rank, names.size, self.size)
    }
}

fn told(environment: &Environment) -> Result<Option<Placement>, SettingError> {
    match (number(environment, TOLD.rank)?, number(environment, TOLD.size)?) {
        (None, None) => Ok(None),
        (Some((_, rank)), Some((_, size))) => placed(TOLD, rank, size, Source::Told).map(Some),
        (Some(_), None) => Err(SettingError::Alone { set: TOLD.rank, missing: TOLD.size }),
        (None, Some(_)) => Err(SettingError::Alone { set: TOLD.size, missing: TOLD.rank }),
    }
}

/// The inner launchers must agree; Slurm is asked only where they are silent, because whatever it starts
/// inherits its variables, other launchers included.
fn launched(environment: &Environment) -> Result<Option<Placement>, SettingError> {
    let rank = agreed(environment, &RANKS)?;
    let size = agreed(environment, &SIZES)?;
    let slurm_size = || number(environment, SLURM.size);
    match (rank, size) {
        (Some((rank_name, rank)), Some((size_name, size))) => {
            let names = Names { rank: rank_name, size: size_name };
            placed(names, rank, size, Source::Launcher(names)).map(Some)
        }
        (Some((rank_name, rank)), None) => match slurm_size()? {
            None => Ok(None),
            Some((size_name, size)) => {
                let names = Names { rank: rank_name, size: size_name };
                placed(names, rank, size, Source::Launcher(names)).map(Some)
            }
        },
        (None, Some(_)) => Ok(None),
        (None, None) => match (number(environment, SLURM.rank)?, slurm_size()?) {
            (Some((_, rank)), Some((_, size))) => placed(SLURM, rank, size, Source::Slurm).map(Some),
            _ => Ok(None),
        },
    }
}

type Said = (&'static str, u32);

fn agreed(environment: &Environment, names: &[&'static str]) -> Result<Option<Said>, SettingError> {
    let mut first: Option<Said> = None;
    for name in names {
        let Some(said) = number(environment, name)? else { continue };
        match first {
            Some((name, value)) if value != said.1 => {
                return Err(SettingError::Contradiction {
                    first: format!("{name}={value}"),
                    second: format!("{}={}", said.0, said.1),
                    cure: format!("{} and {} say who this process is", TOLD.rank, TOLD.size),
                });
            }
            _ => first = first.or(Some(said)),
        }
    }
    Ok(first)
}

fn number(environment: &Environment, name: &'static str) -> Result<Option<Said>, SettingError> {
    let Some(text) = environment.setting(name)? else { return Ok(None) };
    match text.parse::<u32>() {
        Ok(value) if value <= MAX_RANKS => Ok(Some((name, value))),
        _ => Err(SettingError::unusable(name, text, format!("a whole number from 0 to {MAX_RANKS}"))),
    }
}

fn placed(names: Names, rank: u32, size: u32, source: Source) -> Result<Placement, SettingError> {
    if rank < size {
        return Ok(Placement { rank, size, source });
    }
    Err(SettingError::Contradiction {
        first: format!("{}={rank}", names.rank),
        second: format!("{}={size}", names.size),
        cure: "ranks count from 0 and stay below the size".to_owned(),
    })
}

/// More ranks than an instance has; bounds what a peer can make us hold.
pub const MAX_RANKS: u32 = 4096;

const MEETING: &str = "BATON_RENDEZVOUS";
const TOLD: Names = Names { rank: "BATON_RANK", size: "BATON_WORLD_SIZE" };
const SLURM: Names = Names { rank: "SLURM_PROCID", size: "SLURM_NTASKS" };
const RANKS: [&str; 4] = ["RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK"];
const SIZES: [&str; 3] = ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest name that DNS has.
const MAX_HOST_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<RendezvousSettings, SettingError> {
        RendezvousSettings::from_environment(&Environment::from_map(variables.iter().copied()))
    }

    fn placement(variables: &[(&str, &str)]) -> String {
        match parse(variables).and_then(|settings| settings.placement()) {
            Ok(Some(placement)) => placement.to_string(),
            Ok(None) => "nobody says".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        assert_eq!(parse(&[]).unwrap(), RendezvousSettings::default());
        assert_eq!(placement(&[]), "nobody says");
        assert_eq!(RendezvousSettings::default().store(), Ok(None));
        assert_eq!(RendezvousSettings::default().restarts(), "0");
    }

    #[test]
    fn meeting_places_are_names_and_addresses_with_a_port() {
        for text in ["node7:29600", "10.0.0.1:1", "[2001:db8::5]:65535", "a.b-c.svc.cluster.local:80"] {
            let settings = parse(&[("BATON_RENDEZVOUS", text)]).unwrap();
            assert_eq!(settings.meeting.unwrap().to_string(), text);
        }
        for text in [
            "node7",
            ":1",
            "node7:",
            "node7:0",
            "node7:65536",
            "::1:5",
            "[node7]:5",
            "[::1]",
            "a b:1",
            "a:+1",
        ] {
            let error = parse(&[("BATON_RENDEZVOUS", text)]).unwrap_err().to_string();
            assert!(error.starts_with("BATON_RENDEZVOUS=\"") && error.contains("host:port"), "{error}");
        }
    }

    #[test]
    fn who_says_which_rank_this_is() {
        let torch = [("RANK", "1"), ("WORLD_SIZE", "4")];
        let slurm = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2")];
        assert_eq!(placement(&torch), "RANK=1, WORLD_SIZE=4");
        assert_eq!(placement(&slurm), "SLURM_PROCID=0, SLURM_NTASKS=2");
        assert_eq!(placement(&[torch, slurm].concat()), "RANK=1, WORLD_SIZE=4");
        assert_eq!(
            placement(&[("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "3"), ("PMIX_RANK", "2")]),
            "OMPI_COMM_WORLD_RANK=2, OMPI_COMM_WORLD_SIZE=3"
        );
        assert_eq!(placement(&[("PMIX_RANK", "5"), ("SLURM_NTASKS", "8")]), "PMIX_RANK=5, SLURM_NTASKS=8");
        assert_eq!(placement(&[("PMIX_RANK", "5")]), "nobody says");
        let told = [("BATON_RANK", "0"), ("BATON_WORLD_SIZE", "1")];
        assert_eq!(placement(&[&torch[..], &told].concat()), "BATON_RANK=0, BATON_WORLD_SIZE=1");
    }

    #[test]
    fn contradictions_name_both() {
        assert_eq!(
            placement(&[("RANK", "1"), ("OMPI_COMM_WORLD_RANK", "2"), ("WORLD_SIZE", "4")]),
            "RANK=1 and OMPI_COMM_WORLD_RANK=2 contradict each other: BATON_RANK and BATON_WORLD_SIZE say who \
             this process is"
        );
        assert_eq!(
            placement(&[("BATON_RANK", "4"), ("BATON_WORLD_SIZE", "4")]),
            "BATON_RANK=4 and BATON_WORLD_SIZE=4 contradict each other: ranks count from 0 and stay below the \
             size"
        );
        assert_eq!(
            placement(&[("BATON_RANK", "4")]),
            "BATON_RANK is set and BATON_WORLD_SIZE is not: set both or neither"
        );
        assert_eq!(
            placement(&[("RANK", "-1"), ("WORLD_SIZE", "4")]),
            "RANK=\"-1\" is not usable: a whole number from 0 to 4096"
        );
    }

    #[test]
    fn a_stale_launcher_is_no_error_until_it_is_asked() {
        let settings = parse(&[("RANK", "x"), ("MASTER_PORT", "y"), ("MASTER_ADDR", "node0")]).unwrap();
        assert!(settings.placement().is_err() && settings.store().is_err());
    }

    #[test]
    fn the_store_needs_address_and_port() {
        let store = |variables: &[(&str, &str)]| {
            parse(variables).unwrap().store().unwrap().map(|address| address.to_string())
        };
        assert_eq!(store(&[("MASTER_ADDR", "node0")]), None);
        assert_eq!(
            store(&[("MASTER_ADDR", "node0"), ("MASTER_PORT", "29500")]).as_deref(),
            Some("node0:29500")
        );
        assert_eq!(
            store(&[("MASTER_ADDR", "::1"), ("MASTER_PORT", "29500")]).as_deref(),
            Some("[::1]:29500")
        );
    }

    #[test]
    fn mpi_is_off_for_exactly_one() {
        assert!(!parse(&[("TLLM_DISABLE_MPI", "1")]).unwrap().mpi);
        assert!(parse(&[("TLLM_DISABLE_MPI", "0")]).unwrap().mpi);
    }
}
