//! Runs cases on a few threads, a watchdog over each.

use crate::bench::Bench;
use crate::row::{Case, Family, Kind, Outcome};
use crate::watchdog;
use indicatif::ProgressBar;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

/// A case, and the family that runs it.
pub type Planned<'a> = (&'a dyn Family, Case);

/// Runs all of them, `jobs` at a time; `told` hears of each in the order in which they end.
pub fn run_all(
    bench: &Bench,
    planned: &[Planned<'_>],
    jobs: usize,
    bar: &ProgressBar,
    mut told: impl FnMut(&Case, Outcome),
) {
    let next = AtomicUsize::new(0);
    let (sender, ended) = channel();
    thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((family, case)) = planned.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if sender.send((case, run_one(bench, *family, case))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (case, outcome) in &ended {
            told(case, outcome);
            bar.inc(1);
        }
    });
}

/// One run. A panic of the harness is a broken run, not the end of all.
fn run_one(bench: &Bench, family: &dyn Family, case: &Case) -> Outcome {
    if let Some(why) = family.missing(bench, case) {
        return Outcome::new(Kind::Skipped, why);
    }
    let run = || catch_unwind(AssertUnwindSafe(|| family.run(bench, case)));
    let (outcome, was_ended) = watchdog::guard(case.limit, run);
    let outcome =
        outcome.unwrap_or_else(|_| Outcome::new(Kind::Broken, "the harness panicked: see standard error"));
    match was_ended {
        // Bytes that are wrong stay the worst of it.
        true if outcome.kind < Kind::Hung => {
            let text = format!("the watchdog ended it after {:?}; {}", case.limit, outcome.text);
            Outcome { kind: Kind::Hung, text, ..outcome }
        }
        _ => outcome,
    }
}
