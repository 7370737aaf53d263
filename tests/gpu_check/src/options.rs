//! The command line.

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::parts::demo::Built;
use crate::worker;

/// Holds Baton's work on GPU memory against a CPU's on this machine, and measures it.
///
/// Every check runs in processes of its own, which are started, watched and, where the check is about that, killed by
/// this one. Layouts are random, the same for the same seed; whole buffers are compared, the gaps and what lies ahead and
/// behind too. What cannot be checked here is skipped by name, with the reason.
#[derive(Debug, Parser)]
#[command(
    name = "gpu-check",
    args_conflicts_with_subcommands = true,
    after_help = "Parts, in their order:\n  \
                  driver     version, GPUs, whether the driver takes the kernels\n  \
                  kernels    copies and transforms of random layouts\n  \
                  paths      two processes, READ and WRITE between DRAM and VRAM, over each lane\n  \
                  sanitizer  the kernels under compute-sanitizer, where there is one\n  \
                  kills      a process dies or stops while GPU memory moves\n  \
                  demo       baton demo --memory vram, where it was built\n  \
                  bench      how fast, beside the GPU's own copies and beside NIXL (--nixl)\n\n\
                  gpu-check                         everything; results go to benches/results\n  \
                  gpu-check --only kernels/         one part\n  \
                  gpu-check --only paths/cuda --rounds 500 --seed 7\n  \
                  gpu-check --only bench --nixl ~/nixl/bin/python\n  \
                  gpu-check --list                  the names of all checks on this machine\n\n\
                  To check another machine, carry this one file there: it needs a CUDA driver (12.0 or newer), glibc 2.34 and \
                  libstdc++, no toolkit, no network, nothing of the source tree. `baton`, `baton-engine-host` and build/lib \
                  may go with it for the part demo: --baton, --host, --lib-dir.\n\n\
                  Exit code: 0 all is well, 1 some check failed, 2 it could not be run."
)]
pub struct Options {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Run the checks that have one of these in their names
    #[arg(long, value_name = "TEXT")]
    pub only: Vec<String>,

    /// Print the names of the checks, and run none
    #[arg(long)]
    pub list: bool,

    /// Print the results as JSON instead of a table
    #[arg(long)]
    pub json: bool,

    /// Do little of everything: whether it works, not how well
    #[arg(long)]
    pub short: bool,

    /// Decides what is left to chance
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Random layouts of each path; 20 by default, 3 with --short
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,

    /// Most MiB that a transfer of the bench moves; the GPU's memory is a bound as well
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub bench_mib: u64,

    /// The libcuda to open, if not the one that BATON_CUDA_LIBRARY names, or the system's
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,

    /// A Python that has NIXL (nixl-cu12 or nixl-cu13) and numpy, for the bench
    #[arg(long, value_name = "FILE")]
    pub nixl: Option<PathBuf>,

    /// Where compute-sanitizer is looked for, besides PATH and /usr/local/cuda
    #[arg(long, value_name = "DIR")]
    pub cuda_home: Option<PathBuf>,

    /// Where the results go; benches/results by default, a temporary folder with --short
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// The date of the results; the system's by default
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = date)]
    pub date: Option<String>,

    /// The commit that was built; the one of the current folder's repository by default
    #[arg(long, value_name = "HASH")]
    pub commit: Option<String>,

    /// The `baton` program, for the part demo
    #[arg(long, value_name = "FILE", default_value = "target/release/baton")]
    pub baton: PathBuf,

    /// The engine host, for the part demo
    #[arg(long, value_name = "FILE", default_value = "build/bin/baton-engine-host")]
    pub host: PathBuf,

    /// The folder of the libraries, for the part demo
    #[arg(long, value_name = "DIR", default_value = "build/lib")]
    pub lib_dir: PathBuf,

    /// Flip a byte ahead of every comparison: shows that this program can fail
    #[arg(long, hide = true)]
    pub corrupt: bool,
}

/// What this program starts itself as.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// One of the processes with an agent
    #[command(hide = true)]
    Worker(worker::Settings),
}

impl Options {
    /// Whether a check was asked for.
    pub fn wants(&self, title: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| title.contains(text.as_str()))
    }

    /// Random layouts of each path.
    pub fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.short { 3 } else { 20 })
    }

    /// What the part demo uses, from wherever it is called.
    pub fn built(&self) -> Result<Built, String> {
        let whole =
            |path: &Path| std::path::absolute(path).map_err(|error| format!("{}: {error}", path.display()));
        Ok(Built { baton: whole(&self.baton)?, host: whole(&self.host)?, lib_dir: whole(&self.lib_dir)? })
    }
}

/// A date as file names have it.
fn date(text: &str) -> Result<String, String> {
    let is_digit = |at: usize, c: char| if at == 4 || at == 7 { c == '-' } else { c.is_ascii_digit() };
    let is_date = text.len() == 10 && text.chars().enumerate().all(|(at, c)| is_digit(at, c));
    is_date.then(|| text.to_owned()).ok_or_else(|| "a date is written YYYY-MM-DD".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = Options::parse_from(["gpu-check", "--only", "bench", "--only", "paths/cuda"]);
        assert!(options.wants("paths/cuda/read") && options.wants("bench/4") && !options.wants("kernels/1"));
        assert_eq!(options.rounds(), 20);
        assert!(Options::try_parse_from(["gpu-check", "--date", "24-1-1"]).is_err());
        assert!(matches!(Options::parse_from(["gpu-check", "worker"]).command, Some(Command::Worker(_))));
    }
}
