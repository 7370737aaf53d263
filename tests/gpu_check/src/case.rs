//! One thing that is checked, and what came of it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rig::{CORRUPT, Rig};

/// The parts of the program, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The driver and its devices.
    Driver,
    /// The kernels.
    Kernels,
    /// Every path between two processes.
    Paths,
    /// The kernels under compute-sanitizer.
    Sanitizer,
    /// Processes that die or stop.
    Kills,
    /// The whole, through the library that hosts load.
    Demo,
    /// How fast.
    Bench,
}

impl Part {
    /// Whether its checks hold bytes against those that should be there.
    pub fn compares_bytes(self) -> bool {
        match self {
            Self::Kernels | Self::Paths | Self::Kills | Self::Demo | Self::Bench => true,
            Self::Driver | Self::Sanitizer => false,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "driver",
            Self::Kernels => "kernels",
            Self::Paths => "paths",
            Self::Sanitizer => "sanitizer",
            Self::Kills => "kills",
            Self::Demo => "demo",
            Self::Bench => "bench",
        }
    }
}

/// See the [module](self).
pub struct Case {
    /// Which part it belongs to.
    pub part: Part,
    /// What it is, below its part.
    pub name: String,
    /// Does it.
    pub run: Box<dyn Fn(&Rig) -> Outcome>,
}

impl Case {
    /// One that is done by `run`.
    pub fn new(part: Part, name: impl Into<String>, run: impl Fn(&Rig) -> Outcome + 'static) -> Self {
        Self { part, name: name.into(), run: Box::new(run) }
    }

    /// One that cannot be done here.
    pub fn skipped(part: Part, name: impl Into<String>, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::new(part, name, move |_| Outcome::skipped(why.clone()))
    }

    /// `kernels/copy/17`.
    pub fn title(&self) -> String {
        format!("{}/{}", self.part.name(), self.name)
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it has to be.
    Passed,
    /// It could not be done here.
    Skipped,
    /// Not as it has to be.
    Failed,
    /// Wrong bytes.
    Corrupt,
}

/// What came of a case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// What was done, or what went wrong.
    pub text: String,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub figures: Value,
}

impl Outcome {
    /// It could not be done.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, text: why.into(), figures: Value::Null }
    }
}

impl From<Result<String, String>> for Outcome {
    fn from(result: Result<String, String>) -> Self {
        let (verdict, text) = match result {
            Ok(text) => (Verdict::Passed, text),
            Err(text) if text.contains(CORRUPT) => (Verdict::Corrupt, text),
            Err(text) => (Verdict::Failed, text),
        };
        Self { verdict, text, figures: Value::Null }
    }
}
