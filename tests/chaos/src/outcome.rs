//! What was found wrong in a run, and the one outcome that it comes to.

use crate::row::{Kind, Outcome};

/// What was found wrong so far.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    wrong: Vec<(Kind, String)>,
}

impl Findings {
    /// Adds one.
    pub fn add(&mut self, kind: Kind, text: impl Into<String>) {
        self.wrong.push((kind, text.into()));
    }

    /// Adds what went wrong, if it did.
    pub fn check(&mut self, kind: Kind, result: Result<(), String>) {
        if let Err(text) = result {
            self.add(kind, text);
        }
    }

    /// The outcome: the worst of them, or `good` if there are none.
    pub fn outcome(mut self, good: Outcome) -> Outcome {
        self.wrong.sort_by_key(|(kind, _)| std::cmp::Reverse(*kind));
        match self.wrong.first() {
            None => good,
            Some((kind, _)) => {
                let texts: Vec<_> = self.wrong.iter().map(|(_, text)| text.as_str()).collect();
                Outcome { kind: *kind, text: texts.join("; "), error_ms: good.error_ms }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_outcome() {
        let mut findings = Findings::default();
        let good = Outcome { kind: Kind::Clean, text: "gone".to_owned(), error_ms: Some(3.0) };
        assert_eq!(findings.clone().outcome(good.clone()), good);
        findings.add(Kind::Broken, "late");
        findings.add(Kind::Corrupt, "a byte");
        let outcome = findings.outcome(good);
        assert_eq!((outcome.kind, outcome.text.as_str()), (Kind::Corrupt, "a byte; late"));
        assert_eq!(outcome.error_ms, Some(3.0));
    }
}
