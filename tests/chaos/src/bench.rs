//! What every run may use: where the library and the hosts lie, where logs go, what the machine has.

use crate::row::{Case, Lane, Seam};
use std::collections::HashMap;
use std::io;
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
    pub clock_shim: PathBuf,
    /// A libucp besides the one that Baton opens.
    pub second_ucx: Option<PathBuf>,
    /// Where logs of runs and the report go (`target/chaos`).
    pub out_dir: PathBuf,
    /// Lanes that this machine does not have, and why.
    pub without: HashMap<Lane, String>,
}

impl Bench {
    /// The folder for the logs of a run; it exists from then on, and is empty.
    pub fn folder(&self, case: &Case) -> io::Result<PathBuf> {
        let folder = self.logs_of(case);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::fs::create_dir_all(&folder)?,
        }
        Ok(folder)
    }

    /// Where the logs of a run are.
    pub fn logs_of(&self, case: &Case) -> PathBuf {
        self.out_dir.join("logs").join(case.to_string().replace('/', "_"))
    }

    /// Why this machine has no host for a case: its lane, its seam. `None`: it has.
    pub fn lacks(&self, case: &Case) -> Option<String> {
        if case.seam == Seam::S2 && self.python.is_none() {
            return Some(
                "no Python with the binding of seam S2: --python and --binding name them".to_owned(),
            );
        }
        self.without.get(&case.lane).map(|why| format!("no lane {}: {why}", case.lane))
    }
}
