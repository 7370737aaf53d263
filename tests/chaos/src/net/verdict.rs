//! What a drill has come to so far: what was wrong, and what the library said in the end.

use crate::answers::Answer;
use crate::outcome::Findings;
use crate::row::{Kind, Outcome};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Verdict {
    wrong: Findings,
    /// Errors that were as they have to be.
    said: Vec<String>,
    notes: Vec<String>,
    error_ms: Option<f64>,
}

impl Verdict {
    /// Something that must not be.
    pub fn add(&mut self, kind: Kind, text: impl Into<String>) {
        self.wrong.add(kind, text);
    }

    /// A promise that was not kept.
    pub fn broken(&mut self, text: impl Into<String>) {
        self.add(Kind::Broken, text);
    }

    /// A step that had to work: its result, or a broken promise.
    pub fn hold<T>(&mut self, step: Result<T, String>, what: &str) -> Option<T> {
        step.map_err(|error| self.broken(format!("{what}: {error}"))).ok()
    }

    /// Bytes are what they may be.
    pub fn hold_bytes(&mut self, check: Result<(), String>) {
        if let Err(foreign) = check {
            self.add(Kind::Corrupt, foreign);
        }
    }

    /// An answer that had to come: `None`, and a finding, where it did not.
    pub fn came(&mut self, what: &str, answer: Answer) -> Option<Answer> {
        match answer {
            Answer::Late => self.add(Kind::Hung, format!("{what} does not come back")),
            Answer::Gone => self.add(Kind::Crashed, format!("{what}: the process has ended")),
            Answer::Done { .. } | Answer::Failed { .. } => return Some(answer),
        }
        None
    }

    /// An error as it has to be, so long after the fault.
    pub fn failed(&mut self, text: impl Into<String>, after_ms: f64) {
        self.said.push(text.into());
        self.error_ms = Some(self.error_ms.unwrap_or(0.0).max(after_ms));
    }

    /// Something worth knowing that is as it has to be.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Everything in lines, for the folder of the run.
    pub fn lines(&self) -> String {
        self.notes.iter().chain(&self.said).map(|line| format!("{line}\n")).collect()
    }

    /// The worst of it; else a clean error where there was one, else a success.
    pub fn outcome(self) -> Outcome {
        let kind = if self.said.is_empty() { Kind::Success } else { Kind::Clean };
        let good = Outcome { kind, text: self.said.join("; "), error_ms: self.error_ms };
        self.wrong.outcome(good)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_have_to_be_are_clean_and_the_latest_counts() {
        assert_eq!(Verdict::default().outcome().kind, Kind::Success);
        let mut verdict = Verdict::default();
        verdict.failed("a", 20.0);
        verdict.failed("b", 10.0);
        let outcome = verdict.outcome();
        assert_eq!(
            (outcome.kind, outcome.text.as_str(), outcome.error_ms),
            (Kind::Clean, "a; b", Some(20.0))
        );
    }

    #[test]
    fn what_does_not_come_back_hangs_and_what_had_to_work_is_broken() {
        let mut verdict = Verdict::default();
        verdict.failed("a", 20.0);
        assert_eq!(verdict.hold(Err::<(), _>("d".to_owned()), "e"), None);
        assert!(verdict.came("c", Answer::Late).is_none());
        let outcome = verdict.outcome();
        assert_eq!((outcome.kind, outcome.error_ms), (Kind::Hung, Some(20.0)));
        assert_eq!(outcome.text, "c does not come back; e: d");
    }
}
