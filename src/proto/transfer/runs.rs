//! A bounded list of runs of chunks, for reports and for asking again.

use std::fmt;

/// Runs that one list names at most.
pub const RUNS_MAX: usize = 16;

/// Chunks from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first chunk.
    pub first: u32,
    /// The last chunk.
    pub last: u32,
}

/// The first few runs of a set of chunks; [`RUNS_MAX`] at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    runs: Vec<Run>,
    more: bool,
}

impl Runs {
    /// Those that `runs` gives, as many as there is room for.
    pub fn new(mut runs: impl Iterator<Item = Run>) -> Self {
        let kept = runs.by_ref().take(RUNS_MAX).collect();
        Self { runs: kept, more: runs.next().is_some() }
    }

    /// These runs, and whether there are more. At most [`RUNS_MAX`], each with its first chunk first.
    pub(in crate::proto) fn from_parts(runs: Vec<Run>, more: bool) -> Self {
        Self { runs, more }
    }

    /// Whether there are more than these.
    pub fn more(&self) -> bool {
        self.more
    }

    /// The runs, in order.
    pub fn as_slice(&self) -> &[Run] {
        &self.runs
    }
}

/// As people write it: `0, 3-7, 9 and more`.
impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Run { first, last }) in self.runs.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match first == last {
                true => write!(f, "{comma}{first}")?,
                false => write!(f, "{comma}{first}-{last}")?,
            }
        }
        f.write_str(match (self.runs.is_empty(), self.more) {
            (true, _) => "none",
            (false, true) => " and more",
            (false, false) => "",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_bounded_and_says_so() {
        let runs = |count: u32| Runs::new((0..count).map(|at| Run { first: 4 * at, last: 4 * at + at % 2 }));
        assert_eq!(runs(0).to_string(), "none");
        assert_eq!(runs(3).to_string(), "0, 4-5, 8");
        assert!(!runs(RUNS_MAX as u32).to_string().contains("more"));
        let long = runs(RUNS_MAX as u32 + 1);
        assert_eq!(long.as_slice().len(), RUNS_MAX);
        assert!(long.to_string().ends_with(" and more"));
    }
}
