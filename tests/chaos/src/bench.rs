//! What every run may use: where the library and the hosts lie, where logs go, what the machine has.

use std::path::PathBuf;

/// The same for all runs.
#[derive(Clone, Debug)]
pub struct Bench {
    /// The folder with the libraries that hosts open.
    pub lib_dir: PathBuf,
    /// The C++ host.
    pub host: PathBuf,
    /// The interpreter for hosts of seam S2, and the folder of its binding.
    pub python: Option<(PathBuf, PathBuf)>,
    /// The folder of `host.py` (`tests/chaos`).
    pub source_dir: PathBuf,
    /// The shim that shifts the wall clock.
    pub clock_shim: Option<PathBuf>,
    /// Where logs of runs and the report go (`target/chaos`).
    pub out_dir: PathBuf,
    /// Keeps the logs of good runs as well.
    pub keeps_logs: bool,
    /// Decides what is left to chance.
    pub seed: u64,
}

impl Bench {
    /// The folder for the logs of a run; it exists from then on, and is empty.
    pub fn folder(&self, case: &crate::row::Case) -> std::io::Result<PathBuf> {
        let folder = self.out_dir.join(case.to_string().replace('/', "_"));
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&folder)?,
        }
        Ok(folder)
    }
}
