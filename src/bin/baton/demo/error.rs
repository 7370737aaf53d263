//! What can go wrong in a demo, and what the ranks said when they ended.

use baton::config::backend::Backend;
use baton::config::fields::ConfigError;
use baton::config::model::ModelError;
use std::fmt;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;
use thiserror::Error;

use super::seam::Seam;
use crate::installed::Missing;
use crate::shape::Layout;

/// Why a demo could not be run to its end.
#[derive(Debug, Error)]
pub enum DemoError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The lane carries memory of GPUs alone, out of a source that can be shared.
    #[error(
        "--lane cuda copies from GPU to GPU, out of memory that can be shared, and the ranks have {memories}: add \
         --memory vram or vmm"
    )]
    NotOnGpus {
        /// What they have, context ranks first.
        memories: String,
    },
    /// The report has no place.
    #[error("the report cannot be written to {path}: {source}; name another file with --out")]
    Report {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// A line of the trace is no request.
    #[error("{file}:{line}: {problem}")]
    Row {
        /// The trace.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The serving configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model or its ranks are wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The configuration names no backend.
    #[error("{file}: backend is not set: the cache transceiver is disabled, there is nothing to run")]
    Disabled {
        /// The configuration.
        file: String,
    },
    /// The backend is inside TensorRT-LLM.
    #[error(
        "backend {backend} opens no library ({why}): TensorRT-LLM has it inside; use NIXL, MOONCAKE or UCX"
    )]
    NoSeam {
        /// The backend.
        backend: Backend,
        /// How it was chosen.
        why: String,
    },
    /// The backend is that of another seam.
    #[error("--seam {seam}: backend {backend} of the configuration does not go through it, but {} does", .seam.own_backend())]
    OtherSeam {
        /// As asked for.
        seam: Seam,
        /// As configured.
        backend: Backend,
    },
    /// The runtime of the seam does not send that way.
    #[error("--shape {layout} does not exist at seam {seam}: {}", why_not(*.layout))]
    NoShape {
        /// The seam.
        seam: Seam,
        /// The shape.
        layout: Layout,
    },
    /// A program or library is not there.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The configured slot size cannot be.
    #[error("max_tokens_in_buffer {tokens} is not a multiple of tokens_per_block {tokens_per_block}")]
    UnevenSlot {
        /// As configured.
        tokens: u64,
        /// Tokens in one block.
        tokens_per_block: u64,
    },
    /// No row fits into the pool.
    #[error(
        "{layout}: no request fits: the smallest has {smallest} tokens, the pool holds {capacity_tokens}; \
         raise --pool-gib, choose a smaller model, or set max_tokens_in_buffer so that a request fits a slot and a \
         pool fits beside it"
    )]
    NothingFits {
        /// The run.
        layout: Layout,
        /// What would fit.
        capacity_tokens: u64,
        /// The smallest request.
        smallest: u64,
    },
    /// More requests are to be corrupted than there are.
    #[error("--corrupt {wanted}: only {requests} requests run")]
    TooManyCorrupt {
        /// What was asked for.
        wanted: u64,
        /// What there is.
        requests: u64,
    },
    /// The ranks have no place to meet.
    #[error("no port of 127.0.0.1 is free for the ranks to meet at: {0}")]
    NoMeeting(io::Error),
    /// A rank could not be started.
    #[error("cannot start {rank} ({program}): {source}")]
    Start {
        /// The rank.
        rank: String,
        /// Its program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// A rank did not answer in time.
    #[error("{doing}: nothing came from {ranks}; --verbose shows what they log")]
    Silent {
        /// The ranks waited for, and for how long.
        ranks: String,
        /// What was expected of them.
        doing: &'static str,
    },
    /// A rank said something that it should not have.
    #[error("{rank}: {problem}")]
    Nonsense {
        /// The rank.
        rank: String,
        /// What is wrong.
        problem: String,
    },
    /// One or more ranks ended or failed.
    #[error("{0}")]
    RanksEnded(RankReports),
    /// Data went over another lane than the one asked for.
    #[error("--lane {asked}, but the lane was {used}; --verbose shows why")]
    OtherLane {
        /// As `BATON_LANES` was set.
        asked: &'static str,
        /// As the library logged.
        used: String,
    },
    /// After a kill, a rank did not notice, or not with a typed error.
    #[error("after the kill: {0}")]
    KillUnnoticed(String),
}

/// A demo that did not reach its end, with what its processes last logged.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: Box<DemoError>,
    /// The last log lines of every rank, where ranks ran; empty otherwise.
    pub logs: String,
}

impl From<DemoError> for Failed {
    fn from(error: DemoError) -> Self {
        Failed { error: Box::new(error), logs: String::new() }
    }
}

impl Failed {
    /// This error, with the logs that go with it.
    pub fn with_logs(error: DemoError, logs: String) -> Self {
        Failed { logs, ..Failed::from(error) }
    }
}

/// How each rank stood when one of them had failed.
#[derive(Debug)]
pub struct RankReports(pub Vec<RankReport>);

/// How one rank stood.
#[derive(Debug)]
pub struct RankReport {
    /// The rank.
    pub rank: String,
    /// The error it reported, if it did.
    pub error: Option<ReportedError>,
    /// How its process ended, if it did.
    pub status: Option<ExitStatus>,
}

/// An error event of a rank.
#[derive(Clone, Debug)]
pub struct ReportedError {
    /// Its kind, for programs.
    pub kind: String,
    /// Its text, for people.
    pub text: String,
    /// How long after the first sign of trouble it came.
    pub after: Duration,
}

impl fmt::Display for RankReports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, report) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{report}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RankReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.error, &self.status) {
            (Some(error), _) => write!(
                f,
                "{}: {}: {} (after {:.2} s)",
                self.rank,
                error.kind,
                error.text,
                error.after.as_secs_f64()
            ),
            (None, Some(status)) => write!(f, "{}: ended without a word: {status}", self.rank),
            (None, None) => write!(f, "{}: still running", self.rank),
        }
    }
}

/// Why a seam may lack a layout.
fn why_not(layout: Layout) -> &'static str {
    match layout {
        Layout::Staged => "its runtime sends straight from the pool; use --shape paged",
        Layout::Paged => "its runtime gathers every piece first; use --shape staged",
    }
}
