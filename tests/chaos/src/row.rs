//! What is run and what came of it: a [`Family`] of rows lists its [`Case`]s and runs one at a time.
//!
//! A case is one run of one row of the matrix (`docs/reliability.md`): a fault, at a point, over a lane. Its name
//! is stable, so that `--only` finds it and one command replays it. Cases know nothing of each other: any of them
//! may run alone, and several run at once.

use crate::bench::Bench;
use std::fmt;
use std::time::Duration;

/// A group of rows that are listed and run in one way.
pub trait Family: Sync {
    /// Its cases, the same for the same seed, each with a name of its own.
    fn cases(&self, seed: u64) -> Vec<Case>;

    /// Why this machine cannot run a case of this family; `None` if it can.
    fn missing(&self, bench: &Bench, case: &Case) -> Option<String>;

    /// Runs one. It ends within [`Case::limit`]: every wait inside is bounded, and whatever it started is gone when
    /// this returns.
    fn run(&self, bench: &Bench, case: &Case) -> Outcome;
}

/// One run of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The row of the matrix, `17`.
    pub row: String,
    /// What is done to whom, `SIGKILL sender`.
    pub fault: String,
    /// The point at which it is done, `tx.5of16` or `load+200us`.
    pub phase: String,
    /// What carries the data.
    pub lane: Lane,
    /// The door by which the hosts go in.
    pub seam: Seam,
    /// Which of the runs of this very fault, point and lane: 0, 1, ...
    pub turn: u32,
    /// Part of `--short`.
    pub is_short: bool,
    /// How long the run may take until its watchdog ends it.
    pub limit: Duration,
}

impl Case {
    /// A case over a lane at seam S1 with the usual limit.
    pub fn new(row: &str, fault: impl Into<String>, phase: impl Into<String>, lane: Lane) -> Case {
        Case {
            row: row.to_owned(),
            fault: fault.into(),
            phase: phase.into(),
            lane,
            seam: Seam::S1,
            turn: 0,
            is_short: false,
            limit: LIMIT,
        }
    }
}

/// How long most runs may take: far longer than any needs.
const LIMIT: Duration = Duration::from_secs(40);

/// `17/SIGKILL-sender/tx.5of16/local/s1/0`.
impl fmt::Display for Case {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fault = self.fault.replace(' ', "-");
        write!(to, "{}/{fault}/{}/{}/{}/{}", self.row, self.phase, self.lane, self.seam, self.turn)
    }
}

/// What carries the data of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// `process_vm_readv` by the destination's owner.
    Local,
    /// A Unix socket.
    StreamUnix,
    /// TCP.
    StreamTcp,
    /// One-sided writes by UCX.
    Ucx,
}

impl Lane {
    /// All of them, in the order in which runs take turns.
    pub const ALL: [Lane; 4] = [Lane::Local, Lane::StreamUnix, Lane::StreamTcp, Lane::Ucx];

    /// As `BATON_LANES` says it.
    pub fn name(self) -> &'static str {
        match self {
            Lane::Local => "local",
            Lane::StreamUnix => "stream-unix",
            Lane::StreamTcp => "stream-tcp",
            Lane::Ucx => "ucx",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// The door by which hosts go in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seam {
    /// The C++ agent factory.
    S1,
    /// The Python agent class.
    S2,
    /// The UCX connection manager.
    S3,
}

impl Seam {
    /// As the hosts' command line says it.
    pub fn name(self) -> &'static str {
        match self {
            Seam::S1 => "s1",
            Seam::S2 => "s2",
            Seam::S3 => "s3",
        }
    }
}

impl fmt::Display for Seam {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The verdict.
    pub kind: Kind,
    /// What was seen, in a few words: the survivor's error, what differs, why it was left out.
    pub text: String,
    /// From the fault to the survivor's error; `None` where it had nothing under way, or succeeded.
    pub error_ms: Option<f64>,
}

/// The verdict on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// This machine cannot run it.
    Skipped,
    /// The transfer succeeded, and that is true.
    Success,
    /// A typed error that names its peer, in time; nothing else was hurt.
    Clean,
    /// A promise other than the three below was broken: an error that names nobody, too late, too early, silence
    /// that nobody reported, a next request that failed.
    Broken,
    /// A process that was not to die crashed.
    Crashed,
    /// Something did not end, and the watchdog had to end it.
    Hung,
    /// A byte is not what it has to be, or a success was not true.
    Corrupt,
}

impl Kind {
    /// The word in the report.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Skipped => "skipped",
            Kind::Success => "success",
            Kind::Clean => "clean error",
            Kind::Broken => "broken",
            Kind::Crashed => "crashed",
            Kind::Hung => "hung",
            Kind::Corrupt => "corrupt",
        }
    }

    /// Whether the run shows a fault of ours.
    pub fn is_bad(self) -> bool {
        self >= Kind::Broken
    }
}

impl Outcome {
    /// An outcome without a time.
    pub fn new(kind: Kind, text: impl Into<String>) -> Outcome {
        Outcome { kind, text: text.into(), error_ms: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable() {
        let case = Case { turn: 1, ..Case::new("17", "SIGKILL sender", "tx.5of16", Lane::StreamUnix) };
        assert_eq!(case.to_string(), "17/SIGKILL-sender/tx.5of16/stream-unix/s1/1");
    }

    #[test]
    fn only_broken_promises_are_bad() {
        let bad: Vec<_> =
            [Kind::Skipped, Kind::Success, Kind::Clean, Kind::Broken, Kind::Crashed, Kind::Hung]
                .into_iter()
                .filter(|kind| kind.is_bad())
                .collect();
        assert_eq!(bad, [Kind::Broken, Kind::Crashed, Kind::Hung]);
    }
}
