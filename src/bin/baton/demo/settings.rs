//! What the hosts are told besides the shape: the seam, the library, the slot size, the lane.

use baton::config::backend::{self, Backend, Frontend, Resolution};
use baton::config::rules;
use baton::config::serving::ServingConfig;
use baton::config::transceiver::Runtime;
use baton::config::{self, Environment};
use baton::trace;
use clap::ValueEnum;
use std::path::Path;

use super::error::DemoError;
use super::memory::Memories;
use super::seam::Seam;
use crate::text;

/// What a `cache_transceiver_config` and the environment come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferSettings {
    /// What the hosts go through.
    pub seam: Seam,
    /// Why it is that seam, in a few words.
    pub why: String,
    /// NIXL, MOONCAKE or UCX; one that the seam takes.
    pub backend: Backend,
    /// Tokens of a staging slot, where configured.
    pub max_tokens_in_buffer: Option<u64>,
    /// What hardly does what was meant.
    pub warnings: Vec<String>,
}

/// Which lane carries the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LaneOption {
    /// Whatever Baton picks, or BATON_LANES says
    Auto,
    /// The receiver pulls from the sender's memory
    Local,
    /// Baton's stream over a Unix socket
    StreamUnix,
    /// Baton's stream over TCP
    StreamTcp,
    /// UCX's native transports
    Ucx,
    /// Memory of GPUs, from one process's into the other's: for --memory vram or vmm
    Cuda,
}

impl LaneOption {
    /// The value for `BATON_LANES`; `None` leaves the variable alone.
    pub fn variable(self) -> Option<&'static str> {
        match self {
            LaneOption::Auto => None,
            LaneOption::Local => Some("local"),
            LaneOption::StreamUnix => Some("stream-unix"),
            LaneOption::StreamTcp => Some("stream-tcp"),
            LaneOption::Ucx => Some("ucx"),
            LaneOption::Cuda => Some("cuda"),
        }
    }
}

/// Reads `--config`, judges it as TensorRT-LLM would, resolves the backend as it does, and finds the seam of backend
/// and runtime. A seam that is asked for goes before the runtime, and a backend that is left open is its own.
///
/// # Errors
/// A file that is no configuration, values that do not go together, a backend that opens no library or does not go
/// through the seam asked for.
pub fn transfer(
    config: Option<&Path>,
    asked: Option<Seam>,
    environment: &Environment,
    tokens_per_block: u64,
) -> Result<TransferSettings, DemoError> {
    settle(config.map(read).transpose()?, asked, environment, tokens_per_block)
}

fn settle(
    serving: Option<ServingConfig>,
    asked: Option<Seam>,
    environment: &Environment,
    tokens_per_block: u64,
) -> Result<TransferSettings, DemoError> {
    let mut warnings = Vec::new();
    let (configured, runtime, max_tokens_in_buffer) = match serving {
        None => (Backend::Default, None, None),
        Some(serving) => {
            let findings = rules::check(&serving, environment, Some(tokens_per_block));
            findings.errors.into_iter().next().map_or(Ok(()), Err)?;
            warnings = findings.warnings;
            let parsed = serving.transceiver;
            let configured = parsed.backend.ok_or(DemoError::Disabled { file: serving.file })?;
            (configured, parsed.transceiver_runtime, parsed.max_tokens_in_buffer)
        }
    };
    let resolution = backend::resolve(configured, environment, Frontend::Python);
    let (seam, backend) = match asked {
        Some(seam) if seam.takes(resolution.backend) => (seam, resolution.backend),
        Some(seam) if configured == Backend::Default => (seam, seam.own_backend()),
        Some(seam) => return Err(DemoError::OtherSeam { seam, backend: resolution.backend }),
        None => match Seam::of(resolution.backend, runtime) {
            Some(seam) => (seam, resolution.backend),
            None => {
                return Err(DemoError::NoSeam { backend: resolution.backend, why: resolution.why });
            }
        },
    };
    let why = why(seam, asked.is_some(), &resolution, runtime);
    warnings.extend(resolution.warnings);
    Ok(TransferSettings { seam, why, backend, max_tokens_in_buffer, warnings })
}

/// What led to the seam; where a seam was asked for, what the configuration's runtime would go through instead.
fn why(seam: Seam, is_asked: bool, resolution: &Resolution, runtime: Option<Runtime>) -> String {
    let backend = resolution.backend;
    match (is_asked, runtime) {
        (true, Some(runtime @ (Runtime::Cpp | Runtime::Python))) => {
            match Seam::of(backend, Some(runtime)).filter(|own| *own != seam) {
                Some(own) => format!("as --seam asks; transceiver_runtime {runtime} would go through {own}"),
                None => "as --seam asks".to_owned(),
            }
        }
        (true, _) => "as --seam asks".to_owned(),
        (false, Some(runtime @ (Runtime::Cpp | Runtime::Python))) => {
            format!("backend {backend} and transceiver_runtime {runtime}")
        }
        (false, Some(Runtime::Auto)) if backend == Backend::Nixl => format!(
            "backend {backend} and transceiver_runtime auto, which TensorRT-LLM settles for itself; --seam s2 is PYTHON"
        ),
        (false, _) => format!("backend {backend} ({})", resolution.why),
    }
}

fn read(path: &Path) -> Result<ServingConfig, DemoError> {
    let file = path.display().to_string();
    match text::read(path, text::MAX_CONFIG_BYTES) {
        Ok(text) => Ok(ServingConfig::parse(&file, &text)?),
        Err(source) => Err(DemoError::File { path: file, source }),
    }
}

/// The value for `LD_LIBRARY_PATH` of the ranks: the folder of the library that is shown, and no other, unless a GPU's
/// memory is asked for; then the CUDA driver may lie where this process would find it.
pub fn library_path(folder: &Path, memories: Memories, environment: &Environment) -> String {
    let own = folder.display().to_string();
    match environment.shown("LD_LIBRARY_PATH") {
        Some(inherited) if memories.need_gpu() && !inherited.is_empty() => format!("{own}:{inherited}"),
        _ => own,
    }
}

/// The value for `BATON_LOG`: the user's own, with the lines that name the lane let through.
pub fn log_filter(environment: &Environment) -> String {
    let asked = config::log_filter(environment).unwrap_or_default();
    if trace::shows_info(&asked, LANE_TARGET) { asked } else { format!("{asked},{LANE_TARGET}=info") }
}

/// Where the library says which lane a peer was given.
const LANE_TARGET: &str = "baton::agent";

#[cfg(test)]
mod tests {
    use super::*;

    /// What no configuration, an environment and `--seam` come to.
    fn resolved(environment: &[(&str, &str)], asked: Option<Seam>) -> Result<(Seam, Backend), DemoError> {
        let environment = Environment::from_map(environment.iter().copied());
        let settings = transfer(None, asked, &environment, 32)?;
        assert_eq!(settings.max_tokens_in_buffer, None);
        Ok((settings.seam, settings.backend))
    }

    #[test]
    fn the_backend_picks_the_seam_and_an_open_one_is_the_seams_own() {
        let ucx = [("TRTLLM_USE_UCX_KVCACHE", "1")];
        let mooncake = [("TRTLLM_USE_MOONCAKE_KVCACHE", "1")];
        assert_eq!(resolved(&[], None).unwrap(), (Seam::S1, Backend::Nixl));
        assert_eq!(resolved(&ucx, None).unwrap(), (Seam::S3, Backend::Ucx));
        assert_eq!(resolved(&mooncake, Some(Seam::S1)).unwrap(), (Seam::S1, Backend::Mooncake));
        assert_eq!(resolved(&mooncake, Some(Seam::S2)).unwrap(), (Seam::S2, Backend::Nixl));
        assert_eq!(resolved(&[], Some(Seam::S3)).unwrap(), (Seam::S3, Backend::Ucx));
        assert_eq!(resolved(&ucx, Some(Seam::S2)).unwrap(), (Seam::S2, Backend::Nixl));
    }

    /// The seam of a configuration with `--seam`, and why.
    fn chosen(text: &str, asked: Option<Seam>) -> Result<(Seam, String), DemoError> {
        let serving = ServingConfig::parse("serve.yaml", text)?;
        let settings = settle(Some(serving), asked, &Environment::default(), 32)?;
        Ok((settings.seam, settings.why))
    }

    #[test]
    fn the_python_runtime_has_its_own_seam_unless_another_is_asked_for() {
        let python = "backend: NIXL\ntransceiver_runtime: PYTHON\nkv_transfer_timeout_ms: 1000\n";
        let (seam, why) = chosen(python, None).unwrap();
        assert_eq!((seam, why.as_str()), (Seam::S2, "backend NIXL and transceiver_runtime PYTHON"));
        let (seam, why) = chosen(python, Some(Seam::S1)).unwrap();
        let told = "as --seam asks; transceiver_runtime PYTHON would go through s2";
        assert_eq!((seam, why.as_str()), (Seam::S1, told));
        let cpp = "backend: NIXL\ntransceiver_runtime: CPP\n";
        let (seam, why) = chosen(cpp, Some(Seam::S2)).unwrap();
        assert_eq!(
            (seam, why.as_str()),
            (Seam::S2, "as --seam asks; transceiver_runtime CPP would go through s1")
        );
        assert_eq!(chosen(cpp, Some(Seam::S1)).unwrap().1, "as --seam asks");
        assert_eq!(chosen("backend: NIXL\n", None).unwrap().0, Seam::S1);
        assert!(chosen(python, Some(Seam::S3)).is_err());
    }

    #[test]
    fn a_backend_without_a_seam_is_refused_by_name() {
        let error = resolved(&[("TRTLLM_USE_MPI_KVCACHE", "1")], None).unwrap_err().to_string();
        assert!(error.starts_with("backend MPI opens no library"), "{error}");
    }

    #[test]
    fn the_lane_is_named_whatever_the_log_filter() {
        let filter = |value: &str| log_filter(&Environment::from_map([("BATON_LOG", value)]));
        assert_eq!(log_filter(&Environment::default()), "");
        assert_eq!(filter("error"), "error,baton::agent=info");
        assert_eq!(filter("off"), "off,baton::agent=info");
        assert_eq!(filter("baton::fabric=debug"), "baton::fabric=debug,baton::agent=info");
        for enough in ["debug", "warn,baton::agent=trace", "inof"] {
            assert_eq!(filter(enough), enough);
        }
    }
}
