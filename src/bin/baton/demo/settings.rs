//! What the hosts are told besides the shape: the library, the slot size, the lane, where the programs lie.

use baton::config::backend::{self, Backend, Frontend};
use baton::config::rules;
use baton::config::serving::ServingConfig;
use baton::config::{self, Environment};
use baton::trace;
use clap::ValueEnum;
use std::fs;
use std::path::{self, Path, PathBuf};

use super::DemoArgs;
use super::error::DemoError;
use crate::text;

/// What a `cache_transceiver_config` and the environment come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferSettings {
    /// NIXL or MOONCAKE.
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

/// Reads `--config`, judges it as TensorRT-LLM would, and resolves the backend as it does.
///
/// # Errors
/// A file that is no configuration, values that do not go together, a backend that has no seam here yet.
pub fn transfer(
    config: Option<&Path>,
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
    warnings.extend(resolution.warnings);
    match resolution.backend {
        Backend::Nixl | Backend::Mooncake => {
            Ok(TransferSettings { backend: resolution.backend, max_tokens_in_buffer, warnings })
        }
        other => Err(DemoError::NotYet { backend: other, why: resolution.why }),
    }
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

/// The programs that a run consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The engine host.
    pub host: PathBuf,
    /// The folder that holds the library under the name the host opens.
    pub library_folder: PathBuf,
}

/// Finds the engine host and the library: where the flags say, else around this executable.
///
/// # Errors
/// What was not found, and every place that was looked at.
pub fn programs(args: &DemoArgs, backend: Backend) -> Result<Programs, DemoError> {
    let here = fs::read_link("/proc/self/exe")
        .ok()
        .and_then(|executable| executable.parent().map(Path::to_path_buf))
        .unwrap_or_default();
    let around = |folders: &[&str]| folders.iter().map(|folder| here.join(folder)).collect::<Vec<_>>();
    let library = match backend {
        Backend::Mooncake => "libtensorrt_llm_mooncake_wrapper.so",
        _ => "libtensorrt_llm_nixl_wrapper.so",
    };
    let hosts = match &args.host {
        Some(path) => vec![path.clone()],
        None => around(&HOST_FOLDERS).into_iter().map(|folder| folder.join("baton-engine-host")).collect(),
    };
    let folders = match &args.lib_dir {
        Some(folder) => vec![folder.clone()],
        None => around(&LIBRARY_FOLDERS),
    };
    let libraries = folders.into_iter().map(|folder| folder.join(library)).collect();
    let host = first_file("the engine host", "--host", hosts)?;
    let library = first_file(library, "--lib-dir", libraries)?;
    Ok(Programs { host, library_folder: library.parent().map(Path::to_path_buf).unwrap_or_default() })
}

fn first_file(
    what: &'static str,
    flag: &'static str,
    candidates: Vec<PathBuf>,
) -> Result<PathBuf, DemoError> {
    // Made absolute but not resolved: the library is found under the name of the link, in the link's folder.
    let found = candidates.iter().find(|path| path.is_file()).and_then(|path| path::absolute(path).ok());
    match found {
        Some(path) => Ok(path),
        None => Err(DemoError::Missing { what, flag, looked_at: candidates }),
    }
}

/// Where the library says which lane a peer was given.
const LANE_TARGET: &str = "baton::agent";

/// Where an installed or a freshly built engine host lies, seen from the `baton` executable.
const HOST_FOLDERS: [&str; 3] = [".", "../libexec/baton", "../../build/bin"];
/// The same for the library.
const LIBRARY_FOLDERS: [&str; 6] =
    [".", "../lib", "../lib64", "../lib/x86_64-linux-gnu", "../lib/aarch64-linux-gnu", "../../build/lib"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_without_a_seam_is_refused_by_name() {
        let environment = Environment::from_map([("TRTLLM_USE_UCX_KVCACHE", "1")]);
        let error = transfer(None, &environment, 32).unwrap_err().to_string();
        assert!(error.starts_with("backend UCX is not yet supported"), "{error}");
        let settings = transfer(None, &Environment::default(), 32).unwrap();
        assert_eq!((settings.backend, settings.max_tokens_in_buffer), (Backend::Nixl, None));
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

    #[test]
    fn a_missing_program_is_named_with_its_flag() {
        let error = first_file("the engine host", "--host", vec!["/nowhere/h".into()]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the engine host was not found (looked at /nowhere/h); name its place with --host"
        );
    }
}
