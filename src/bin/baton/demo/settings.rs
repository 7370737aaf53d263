//! What the hosts are told besides the shape: the seam, the library, the slot size, the lane.

use baton::config::backend::{self, Backend, Frontend};
use baton::config::rules;
use baton::config::serving::ServingConfig;
use baton::config::{self, Environment};
use baton::trace;
use clap::ValueEnum;
use std::path::Path;

use super::error::DemoError;
use super::seam::Seam;
use crate::text;

/// What a `cache_transceiver_config` and the environment come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferSettings {
    /// What the hosts go through.
    pub seam: Seam,
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
        }
    }
}

/// Reads `--config`, judges it as TensorRT-LLM would, resolves the backend as it does, and finds its seam; a
/// backend that is left open is that of the seam asked for.
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
    let mut warnings = Vec::new();
    let (configured, max_tokens_in_buffer) = match config {
        None => (Backend::Default, None),
        Some(path) => {
            let serving = read(path)?;
            let findings = rules::check(&serving, environment, Some(tokens_per_block));
            findings.errors.into_iter().next().map_or(Ok(()), Err)?;
            warnings = findings.warnings;
            let parsed = serving.transceiver;
            (parsed.backend.ok_or(DemoError::Disabled { file: serving.file })?, parsed.max_tokens_in_buffer)
        }
    };
    let resolution = backend::resolve(configured, environment, Frontend::Python);
    let (seam, backend) = match (asked, Seam::of(resolution.backend)) {
        (Some(seam), _) if seam.takes(resolution.backend) => (seam, resolution.backend),
        (Some(seam), _) if configured == Backend::Default => (seam, seam.own_backend()),
        (Some(seam), _) => return Err(DemoError::OtherSeam { seam, backend: resolution.backend }),
        (None, Some(seam)) => (seam, resolution.backend),
        (None, None) => {
            return Err(DemoError::NoSeam { backend: resolution.backend, why: resolution.why });
        }
    };
    warnings.extend(resolution.warnings);
    Ok(TransferSettings { seam, backend, max_tokens_in_buffer, warnings })
}

fn read(path: &Path) -> Result<ServingConfig, DemoError> {
    let file = path.display().to_string();
    match text::read(path, text::MAX_CONFIG_BYTES) {
        Ok(text) => Ok(ServingConfig::parse(&file, &text)?),
        Err(source) => Err(DemoError::File { path: file, source }),
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
