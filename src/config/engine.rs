//! What the engine is told: lanes, address, and the bounds of its waits.
//!
//! Parsed once, at the start of an agent, from an [`Environment`]; plain values from then on.

use super::backend::{self, Backend, NixlBackend, NixlChoice};
use super::environment::{Environment, PROFILER, SettingError};
use super::lanes::LaneChoice;
use super::nearest::did_you_mean;
use super::{trust, variables};
use crate::trust::Secret;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything about an agent that a person can set from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// The lanes that may carry data.
    pub lanes: LaneChoice,
    /// The network interface whose address peers are told; `None` leaves it to the route.
    pub interface: Option<String>,
    /// The TCP port to listen on; 0 lets the system choose.
    pub port: u16,
    /// How long the progress thread spins after the last frame before it parks.
    pub spin: Duration,
    /// Threads that may copy at a time for this agent, its progress thread and those of the host that wait included.
    pub copy_threads: usize,
    /// Writes of pieces of fewer bytes on average are gathered on lanes that write by themselves; 0 for none, `None` for what
    /// each lane was measured to need.
    pub gather_below: Option<u64>,
    /// The silence after which a peer counts as lost.
    pub peer_timeout: Duration,
    /// The time without progress after which a wait fails.
    pub stall_timeout: Duration,
    /// How long a connection to a peer may take.
    pub connect_timeout: Duration,
    /// The libucp to open instead of the system's.
    pub ucx_library: Option<PathBuf>,
    /// The libcuda to open instead of the driver's.
    pub cuda_library: Option<PathBuf>,
    /// The library of a profiler that wants our ranges.
    pub profiler_library: Option<PathBuf>,
    /// `UCX_TLS`: the transports that the user allows UCX.
    pub ucx_transports: Option<String>,
    /// UCX was asked for by name: its absence is [`backend::ucx_unavailable`], not a fallback.
    pub ucx_required: bool,
    /// The key that peers must have too; without one, peers are not authenticated.
    pub secret: Option<Arc<Secret>>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        EngineSettings {
            lanes: LaneChoice::default(),
            interface: None,
            port: 0,
            spin: Duration::from_micros(50),
            copy_threads: default_copy_threads(),
            gather_below: None,
            peer_timeout: Duration::from_millis(5000),
            stall_timeout: Duration::from_millis(30_000),
            connect_timeout: Duration::from_millis(5000),
            ucx_library: None,
            cuda_library: None,
            profiler_library: None,
            ucx_transports: None,
            ucx_required: false,
            secret: None,
        }
    }
}

impl EngineSettings {
    /// Whether GPU memory is asked for by name: a libcuda, or the lane that carries nothing else.
    pub fn asks_for_gpus(&self) -> bool {
        self.cuda_library.is_some() || self.lanes.explicit && self.lanes.cuda
    }

    /// The settings of an agent that serves as `backend`, and the warnings to log once. What the environment
    /// says of the NIXL backend is for [`Backend::Nixl`] alone.
    ///
    /// # Errors
    /// A variable whose value cannot be used, or a NIXL backend that this version does not have.
    pub fn from_environment(
        environment: &Environment,
        backend: Backend,
    ) -> Result<(EngineSettings, Vec<String>), SettingError> {
        let mut warnings = variables::warnings(environment);
        check_abi(environment)?;
        let nixl = match backend {
            Backend::Nixl => NixlChoice::from_environment(environment)?,
            _ => NixlChoice::default(),
        };
        if nixl.backend == NixlBackend::Libfabric {
            return Err(backend::libfabric_unavailable());
        }
        warnings.extend(nixl.warning);
        let lanes = LaneChoice::from_environment(environment, &mut warnings)?;
        if nixl.explicit && !lanes.ucx {
            warnings.push(
                "TRTLLM_NIXL_KVCACHE_BACKEND=UCX is set, but BATON_LANES leaves ucx out: UCX is not used"
                    .to_owned(),
            );
        }
        let default = EngineSettings::default();
        let settings = EngineSettings {
            lanes,
            interface: interface(environment, backend)?,
            port: port(environment, backend)?,
            spin: duration(environment, "BATON_SPIN_US", Duration::from_micros, SPIN_US, default.spin)?,
            copy_threads: count(environment, COPY_THREADS, COPY_THREADS_RANGE, default.copy_threads)?,
            gather_below: number(environment, "BATON_GATHER_BELOW", GATHER_BELOW)?,
            peer_timeout: milliseconds(environment, "BATON_PEER_TIMEOUT_MS", default.peer_timeout)?,
            stall_timeout: milliseconds(environment, "BATON_STALL_TIMEOUT_MS", default.stall_timeout)?,
            connect_timeout: milliseconds(environment, "BATON_CONNECT_TIMEOUT_MS", default.connect_timeout)?,
            ucx_library: environment.setting("BATON_UCX_LIBRARY")?.map(PathBuf::from),
            cuda_library: cuda_library(environment)?,
            profiler_library: environment.setting(PROFILER)?.map(PathBuf::from),
            ucx_transports: ucx_transports(environment),
            ucx_required: nixl.explicit && lanes.ucx,
            secret: trust::secret(environment)?,
        };
        Ok((settings, warnings))
    }
}

/// `BATON_CUDA_LIBRARY`: the libcuda to open instead of the system's.
///
/// # Errors
/// A value that is not UTF-8.
pub fn cuda_library(environment: &Environment) -> Result<Option<PathBuf>, SettingError> {
    Ok(environment.setting("BATON_CUDA_LIBRARY")?.map(PathBuf::from))
}

/// The age of the host's ABI that `BATON_TRTLLM_ABI` names, as written.
pub fn abi_override(environment: &Environment) -> Option<String> {
    environment.setting(ABI).ok().flatten().map(str::to_owned)
}

/// [`abi_override`] of this process.
pub fn process_abi_override() -> Option<String> {
    abi_override(&Environment::from_process())
}

/// The filter that `BATON_LOG` names.
pub fn log_filter(environment: &Environment) -> Option<String> {
    environment.setting("BATON_LOG").ok().flatten().map(str::to_owned)
}

/// [`log_filter`] of this process.
pub fn process_log_filter() -> Option<String> {
    log_filter(&Environment::from_process())
}

/// The transports that the user leaves to UCX (`UCX_TLS`), for the fabric to cut its native set with.
pub fn ucx_transports(environment: &Environment) -> Option<String> {
    environment.setting("UCX_TLS").ok().flatten().map(str::to_owned)
}

/// The variable that names the network interface of workers that serve as `backend`.
pub fn interface_variable(backend: Backend) -> &'static str {
    if backend == Backend::Ucx { "TRTLLM_UCX_INTERFACE" } else { "TRTLLM_NIXL_INTERFACE" }
}

fn check_abi(environment: &Environment) -> Result<(), SettingError> {
    match environment.setting(ABI)? {
        None => Ok(()),
        Some(age) if AGES.contains(&age) => Ok(()),
        Some(other) => {
            let hint = did_you_mean(other, &AGES);
            Err(SettingError::unusable(ABI, other, format!("unknown age{hint}; valid: {}", AGES.join(", "))))
        }
    }
}

fn interface(environment: &Environment, backend: Backend) -> Result<Option<String>, SettingError> {
    let variable = interface_variable(backend);
    let Some(name) = environment.setting(variable)? else { return Ok(None) };
    let plausible =
        name.len() <= MAX_INTERFACE_BYTES && !name.contains(|c: char| c == '/' || c.is_whitespace());
    if plausible {
        return Ok(Some(name.to_owned()));
    }
    Err(SettingError::unusable(
        variable,
        name,
        format!("the name of one network interface, at most {MAX_INTERFACE_BYTES} bytes (see `ip link`)"),
    ))
}

/// The UCX backend has always let the system choose.
fn port(environment: &Environment, backend: Backend) -> Result<u16, SettingError> {
    if backend == Backend::Ucx {
        return Ok(0);
    }
    const VARIABLE: &str = "TRTLLM_NIXL_PORT";
    let Some(text) = environment.setting(VARIABLE)? else { return Ok(0) };
    text.parse()
        .map_err(|_| SettingError::unusable(VARIABLE, text, "a TCP port from 0 (any) to 65535".to_owned()))
}

pub(super) fn milliseconds(
    environment: &Environment,
    variable: &'static str,
    default: Duration,
) -> Result<Duration, SettingError> {
    duration(environment, variable, Duration::from_millis, TIMEOUT_MS, default)
}

fn duration(
    environment: &Environment,
    variable: &'static str,
    unit: fn(u64) -> Duration,
    range: RangeInclusive<u64>,
    default: Duration,
) -> Result<Duration, SettingError> {
    Ok(number(environment, variable, range)?.map_or(default, unit))
}

fn count(
    environment: &Environment,
    variable: &'static str,
    range: RangeInclusive<u64>,
    default: usize,
) -> Result<usize, SettingError> {
    Ok(number(environment, variable, range)?.map_or(default, |count| count as usize))
}

fn number(
    environment: &Environment,
    variable: &'static str,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, SettingError> {
    let Some(text) = environment.setting(variable)? else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(value) if range.contains(&value) => Ok(Some(value)),
        _ => {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            Err(SettingError::unusable(variable, text, expected))
        }
    }
}

/// As many as there are cores, as far as more of them bring more: a few saturate the memory of a machine.
fn default_copy_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(COPY_THREADS_ENOUGH)
}

const ABI: &str = "BATON_TRTLLM_ABI";
const AGES: [&str; 5] = ["p0", "p1", "p2", "p3", "p4"];
/// Longer spinning would only burn a core that the model wants.
const SPIN_US: RangeInclusive<u64> = 0..=10_000;
const COPY_THREADS: &str = "BATON_COPY_THREADS";
const COPY_THREADS_RANGE: RangeInclusive<u64> = 1..=64;
/// Pieces of so many bytes are not gathered: a slot of staging memory has no more.
pub const GATHER_BELOW_MAX: u64 = 512 << 10;
const GATHER_BELOW: RangeInclusive<u64> = 0..=GATHER_BELOW_MAX;
const COPY_THREADS_ENOUGH: usize = 4;
const TIMEOUT_MS: RangeInclusive<u64> = 100..=600_000;
/// IFNAMSIZ less the closing zero.
const MAX_INTERFACE_BYTES: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<(EngineSettings, Vec<String>), SettingError> {
        EngineSettings::from_environment(&Environment::from_map(variables.iter().copied()), Backend::Nixl)
    }

    #[test]
    fn an_empty_environment_gives_the_defaults_and_no_warning() {
        assert_eq!(parse(&[]), Ok((EngineSettings::default(), vec![])));
    }

    #[test]
    fn every_setting_arrives() {
        let (settings, warnings) = parse(&[
            ("BATON_LANES", "local, stream-tcp"),
            ("BATON_SPIN_US", "0"),
            ("BATON_COPY_THREADS", "7"),
            ("BATON_GATHER_BELOW", "4096"),
            ("BATON_PEER_TIMEOUT_MS", "100"),
            ("BATON_STALL_TIMEOUT_MS", "600000"),
            ("BATON_CONNECT_TIMEOUT_MS", "250"),
            ("BATON_UCX_LIBRARY", "/opt/ucx/lib/libucp.so.0"),
            ("BATON_CUDA_LIBRARY", "/opt/cuda/libcuda.so.1"),
            ("NVTX_INJECTION64_PATH", "/opt/nsight/libToolsInjection64.so"),
            ("TRTLLM_NIXL_INTERFACE", "ib0"),
            ("TRTLLM_NIXL_PORT", "18515"),
        ])
        .unwrap();
        assert_eq!(settings.lanes.names(), ["local", "stream-tcp"]);
        assert!(settings.lanes.explicit);
        assert_eq!((settings.spin, settings.copy_threads), (Duration::ZERO, 7));
        assert_eq!(settings.gather_below, Some(4096));
        assert_eq!(settings.peer_timeout, Duration::from_millis(100));
        assert_eq!(settings.stall_timeout, Duration::from_secs(600));
        assert_eq!(settings.connect_timeout, Duration::from_millis(250));
        assert_eq!(settings.ucx_library, Some(PathBuf::from("/opt/ucx/lib/libucp.so.0")));
        assert_eq!(settings.cuda_library, Some(PathBuf::from("/opt/cuda/libcuda.so.1")));
        assert_eq!(settings.profiler_library, Some(PathBuf::from("/opt/nsight/libToolsInjection64.so")));
        assert_eq!(settings.interface.as_deref(), Some("ib0"));
        assert_eq!(settings.port, 18515);
        assert_eq!(warnings, [] as [&str; 0]);
    }

    #[test]
    fn unusable_values_are_errors_that_say_what_is_valid() {
        let table = [
            (
                "BATON_LANES",
                "locl,ucx",
                "BATON_LANES=\"locl,ucx\" is not usable: unknown lane \"locl\" (did you mean \"local\"?); \
                 valid: local, ucx, cuda, libfabric, mpi, stream, stream-unix, stream-tcp",
            ),
            (
                "BATON_LANES",
                "mpi",
                "BATON_LANES=\"mpi\" is not usable: it leaves no lane that this version has; valid: local, \
                 ucx, cuda, libfabric, mpi, stream, stream-unix, stream-tcp",
            ),
            (
                "BATON_TRTLLM_ABI",
                "P4",
                "BATON_TRTLLM_ABI=\"P4\" is not usable: unknown age (did you mean \"p4\"?); valid: p0, p1, \
                 p2, p3, p4",
            ),
            (
                "BATON_SPIN_US",
                "10001",
                "BATON_SPIN_US=\"10001\" is not usable: a whole number from 0 to 10000",
            ),
            (
                "BATON_COPY_THREADS",
                "0",
                "BATON_COPY_THREADS=\"0\" is not usable: a whole number from 1 to 64",
            ),
            (
                "BATON_PEER_TIMEOUT_MS",
                "5s",
                "BATON_PEER_TIMEOUT_MS=\"5s\" is not usable: a whole number from 100 to 600000",
            ),
            (
                "BATON_PEER_TIMEOUT_MS",
                "99",
                "BATON_PEER_TIMEOUT_MS=\"99\" is not usable: a whole number from 100 to 600000",
            ),
            (
                "TRTLLM_NIXL_PORT",
                "65536",
                "TRTLLM_NIXL_PORT=\"65536\" is not usable: a TCP port from 0 (any) to 65535",
            ),
            (
                "TRTLLM_NIXL_INTERFACE",
                "eth0 eth1",
                "TRTLLM_NIXL_INTERFACE=\"eth0 eth1\" is not usable: the name of one network interface, at \
                 most 15 bytes (see `ip link`)",
            ),
            (
                "TRTLLM_NIXL_KVCACHE_BACKEND",
                "LIBFABRIC",
                "Failed to create NIXL backend: LIBFABRIC: this version of Baton has no libfabric lane \
                 yet; unset TRTLLM_NIXL_KVCACHE_BACKEND or set it to UCX",
            ),
        ];
        for (name, value, text) in table {
            assert_eq!(parse(&[(name, value)]).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn ucx_is_required_only_when_named_and_allowed() {
        const BACKEND: &str = "TRTLLM_NIXL_KVCACHE_BACKEND";
        let required = |variables: &[(&str, &str)]| parse(variables).unwrap().0.ucx_required;
        assert!(!required(&[]));
        assert!(required(&[(BACKEND, "UCX")]));
        assert!(!required(&[(BACKEND, "ucx")]));
        assert!(!required(&[(BACKEND, "UCX"), ("BATON_LANES", "stream")]));
        let (_, warnings) = parse(&[(BACKEND, "UCX"), ("BATON_LANES", "stream")]).unwrap();
        assert_eq!(
            warnings,
            ["TRTLLM_NIXL_KVCACHE_BACKEND=UCX is set, but BATON_LANES leaves ucx out: UCX is not used"]
        );
        assert_eq!(parse(&[(BACKEND, "ucx")]).unwrap().1, ["Unsupported NIXL backend: ucx, fallback to UCX"]);
    }

    #[test]
    fn the_nixl_backend_is_nothing_to_other_backends() {
        for value in ["LIBFABRIC", "UCX", "GDS"] {
            let environment = Environment::from_map([("TRTLLM_NIXL_KVCACHE_BACKEND", value)]);
            let parsed = EngineSettings::from_environment(&environment, Backend::Mooncake);
            assert_eq!(parsed, Ok((EngineSettings::default(), vec![])), "{value}");
        }
    }

    #[test]
    fn overrides_are_handed_on_as_written() {
        let environment = Environment::from_map([("BATON_TRTLLM_ABI", "p3"), ("BATON_LOG", "debug")]);
        assert_eq!(abi_override(&environment).as_deref(), Some("p3"));
        assert_eq!(log_filter(&environment).as_deref(), Some("debug"));
        assert_eq!(abi_override(&Environment::default()), None);
    }

    proptest::proptest! {
        #[test]
        fn any_value_parses_or_fails_without_a_panic(
            index in 0..variables::VARIABLES.len(),
            value in "\\PC{0,40}",
        ) {
            let name = variables::VARIABLES[index].name;
            let _ = parse(&[(name, &value)]);
        }
    }
}
