//! The command line.

use crate::bench::Bench;
use crate::host::HostSpec;
use crate::row::{Case, Lane};
use crate::stage::shape;
use clap::Parser;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Strikes real processes that use the library: kills, stops, starves and disturbs them, and holds what is left
/// against what was promised.
///
/// Every run starts a context and a generation worker that open the library as TensorRT-LLM does. Something is done
/// to one of them at a known point of a request. Then the other has to end with an error that names its peer, or with a
/// success that is true, within its bounds; every byte has to be what it may be; memory that was given back must not
/// change any more; and the next request has to be served.
#[derive(Debug, Parser)]
#[command(
    name = "chaos",
    after_help = "Names of runs are ROW/FAULT/POINT/LANE/SEAM/TURN, such as 17/SIGKILL-sender/tx.5of16/local/s1/0: \
                  row 17 of the fault matrix, the sender killed when 5/16 of the bytes are in place.\n\n\
                  chaos --only SIGSTOP --only tx.     stops while bytes move\n\
                  chaos --only /ucx/ --short          the short selection over one lane\n\
                  chaos --only 17/SIGKILL-sender/tx.5of16/local/s1/0 --keep-logs\n\n\
                  Exit code: 0 all promises kept, 1 some were not, 2 it could not be run."
)]
pub struct Options {
    /// Run what has this in its name; several times: all of them
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,

    /// Run these rows of the matrix, with commas between them
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',')]
    pub row: Vec<String>,

    /// Run a selection of a few minutes
    #[arg(long)]
    pub short: bool,

    /// Show that this program sees a foreign byte, a lie, a hang and a crash, by hosts that have them planted
    #[arg(long)]
    pub self_test: bool,

    /// Print the names of the runs, and run nothing
    #[arg(long)]
    pub list: bool,

    /// Print the report as JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// Decides which lane comes first, and what else is left to chance
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Runs at a time
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: u16,

    /// Keep the logs of good runs as well
    #[arg(long)]
    pub keep_logs: bool,

    /// The folder that CMake built into: lib, bin, chaos
    #[arg(long, default_value = BUILD, value_name = "DIR")]
    pub build: PathBuf,

    /// The folder of the libraries that hosts open, if it is not BUILD/lib
    #[arg(long, value_name = "DIR")]
    pub lib_dir: Option<PathBuf>,

    /// The host program, if it is not BUILD/bin/baton-chaos-host
    #[arg(long, value_name = "FILE")]
    pub host: Option<PathBuf>,

    /// The Python of seam S2's hosts; without it they are left out
    #[arg(long, value_name = "FILE")]
    pub python: Option<PathBuf>,

    /// The folder of seam S2's binding, if it is not BUILD/python/plain-open
    #[arg(long, value_name = "DIR")]
    pub binding: Option<PathBuf>,

    /// A libucp that hosts open for themselves, besides Baton's; by default the system's, if there is one
    #[arg(long, value_name = "FILE")]
    pub second_ucx: Option<PathBuf>,

    /// The libucp that Baton opens; hosts have it from their environment
    #[arg(long, env = UCX_LIBRARY, value_name = "FILE", hide = true)]
    pub ucx_library: Option<String>,

    /// This program's own folder in the source tree
    #[arg(long, default_value = "tests/chaos", value_name = "DIR")]
    pub source_dir: PathBuf,

    /// Where chaos.json and the logs go
    #[arg(long, default_value = "target", value_name = "DIR")]
    pub out: PathBuf,
}

impl Options {
    /// Whether a run was asked for.
    pub fn wants(&self, case: &Case) -> bool {
        let name = case.to_string();
        (!self.short || case.is_short)
            && (self.row.is_empty() || self.row.contains(&case.row))
            && self.only.iter().all(|text| name.contains(text.as_str()))
    }

    /// Where the report goes.
    pub fn report_path(&self) -> PathBuf {
        self.out.join("chaos.json")
    }

    /// The command that runs a case once more, as a shell takes it.
    pub fn replay(&self, case: &Case) -> String {
        let mut words = Vec::new();
        words.extend(self.ucx_library.as_ref().map(|path| format!("{UCX_LIBRARY}={}", quoted(path))));
        words.push("target/release/chaos".to_owned());
        words.push(format!("--only {}", quoted(case)));
        words.push("--keep-logs".to_owned());
        let paths = [
            ("--build", Some(&self.build).filter(|path| **path != Path::new(BUILD))),
            ("--lib-dir", self.lib_dir.as_ref()),
            ("--host", self.host.as_ref()),
            ("--python", self.python.as_ref()),
            ("--binding", self.binding.as_ref()),
            ("--second-ucx", self.second_ucx.as_ref()),
        ];
        let given = paths.iter().filter_map(|(flag, path)| Some((flag, (*path)?)));
        words.extend(given.map(|(flag, path)| format!("{flag} {}", quoted(&path.display()))));
        if self.seed != 0 {
            words.push(format!("--seed {}", self.seed));
        }
        words.join(" ")
    }

    /// What runs may use, found and tried.
    pub fn bench(&self) -> Result<Bench, String> {
        let or = |path: &Option<PathBuf>, usual: &str| path.clone().unwrap_or_else(|| self.build.join(usual));
        let whole = |path: PathBuf| {
            std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let binding = whole(or(&self.binding, "python/plain-open"))?;
        let mut bench = Bench {
            lib_dir: whole(or(&self.lib_dir, "lib"))?,
            host: whole(or(&self.host, "bin/baton-chaos-host"))?,
            python: self.python.clone().map(|python| (python, binding)),
            source_dir: whole(self.source_dir.clone())?,
            clock_shim: whole(self.build.join("chaos/libbaton-chaos-clock.so"))?,
            second_ucx: self.second_ucx.clone().or_else(systems_ucx),
            out_dir: whole(self.out.join("chaos"))?,
            without: HashMap::new(),
        };
        let of_python = bench.python.iter().flat_map(|(python, binding)| [python, binding]);
        for path in [&bench.lib_dir, &bench.host].into_iter().chain(of_python) {
            if !path.exists() {
                return Err(format!(
                    "{} is not there: `make build` makes it, --build says where",
                    path.display()
                ));
            }
        }
        bench.without = lanes_without(&bench)?;
        Ok(bench)
    }
}

/// A libucp where systems have it.
fn systems_ucx() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/opt/hpcx/ucx/lib"];
    folders.iter().map(|folder| Path::new(folder).join("libucp.so.0")).find(|path| path.exists())
}

/// Lanes that this machine does not have, as the library says itself.
fn lanes_without(bench: &Bench) -> Result<HashMap<Lane, String>, String> {
    let mut without = HashMap::new();
    for lane in Lane::ALL {
        let case = Case::new("probe", "none", "none", lane);
        let spec = HostSpec { shape: shape(1), ..HostSpec::usual(&case, 1, PROBE_LIMIT) };
        let folder = bench.folder(&case).map_err(|error| format!("{}: {error}", bench.out_dir.display()))?;
        let host = crate::host::Host::start(bench, &spec, "probe", &folder);
        let host = host.map_err(|error| format!("{}: {error}", bench.host.display()))?;
        if let Err(why) = host.ask("make probe", PROBE_LIMIT).text() {
            without.insert(lane, why);
        }
        drop(host);
        let _ = std::fs::remove_dir_all(folder); // what stays is the next run's to remove
    }
    match without.len() == Lane::ALL.len() {
        true => Err(format!("no lane can be had: {}", without[&Lane::Local])),
        false => Ok(without),
    }
}

/// A word of a command, whatever is in it.
fn quoted(word: &impl std::fmt::Display) -> String {
    let word = word.to_string();
    let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:=%".contains(c));
    if is_plain { word } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Where `make build` builds.
const BUILD: &str = "build";
/// The variable by which Baton finds its UCX.
const UCX_LIBRARY: &str = "BATON_UCX_LIBRARY";
/// An agent is made in milliseconds.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Seam;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        assert_eq!(Options::parse_from(["chaos"]).jobs, 3);
    }

    #[test]
    fn a_failed_run_says_how_to_run_it_again() {
        let options = Options::parse_from(["chaos", "--seed", "3", "--only", "tx."]);
        let case = Case { seam: Seam::S3, ..Case::new("17", "SIGKILL sender", "tx.1of16", Lane::Ucx) };
        let again = options.replay(&case);
        assert!(again.contains("--only 17/SIGKILL-sender/tx.1of16/ucx/s3/0"), "{again}");
        assert!(again.contains("--seed 3"), "{again}");
        let odd = Case::new("39", "release() by the sender's", "tx", Lane::Local);
        let other = ["chaos", "--build", "a b", "--binding", "c", "--ucx-library", "/lib/ucp.so"];
        let again = Options::parse_from(other).replay(&odd);
        assert!(again.contains(r"--only '39/release()-by-the-sender'\''s/tx/local/s1/0'"), "{again}");
        assert!(again.starts_with("BATON_UCX_LIBRARY=/lib/ucp.so target/release/chaos"), "{again}");
        assert!(again.contains("--build 'a b'") && again.ends_with("--binding c"), "{again}");
        let wanted = |words: &[&str]| Options::parse_from([&["chaos"], words].concat()).wants(&case);
        assert!(
            wanted(&["--row", "1,17", "--only", "ucx/s3"])
                && !wanted(&["--short"])
                && !wanted(&["--row", "7"])
        );
        assert!(options.wants(&case));
    }
}
