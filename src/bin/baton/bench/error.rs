//! What can go wrong in a bench.

use std::io;
use std::path::PathBuf;
use thiserror::Error;

use super::network::Forbidden;
use crate::installed::Missing;

/// Why a bench could not be run to its end.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A program or library is not where it was looked for.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The path that was asked for cannot be had.
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    /// The person has left no cell.
    #[error("--only \"{only}\" is in the title of no cell; they read as \"{example}\"")]
    NoCell {
        /// What was asked for.
        only: String,
        /// A title.
        example: String,
    },
    /// A driver cannot be started.
    #[error("{driver}: {program} cannot be started: {source}")]
    Start {
        /// Implementation and side.
        driver: String,
        /// Its program.
        program: String,
        /// What the system says.
        source: io::Error,
    },
    /// A driver has answered that it could not do something.
    #[error("{driver}: {asked}: {said}{log}")]
    Failed {
        /// Implementation and side.
        driver: String,
        /// The command.
        asked: String,
        /// Its words.
        said: String,
        /// The last lines of its log.
        log: String,
    },
    /// A driver has ended by itself.
    #[error("{driver} has ended by itself{log}")]
    Gone {
        /// Implementation and side.
        driver: String,
        /// The last lines of its log.
        log: String,
    },
    /// A driver does not answer.
    #[error("{driver} does not answer to {asked}{log}")]
    Silent {
        /// Implementation and side.
        driver: String,
        /// The command.
        asked: String,
        /// The last lines of its log.
        log: String,
    },
    /// A driver's answer is none.
    #[error("{driver}: {asked}: \"{said}\" is no answer")]
    Nonsense {
        /// Implementation and side.
        driver: String,
        /// The command.
        asked: String,
        /// Its words.
        said: String,
    },
}
