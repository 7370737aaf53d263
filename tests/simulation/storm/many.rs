//! Storms over many seeds: a thousand with every change, as many as one likes at night.

use std::fs;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::seeds::{SEED_VARIABLE, number};

use super::coverage::{Coverage, Kind};
use super::run_storm;

/// Set to 1 to print what happens in a replay.
const TRACE_VARIABLE: &str = "BATON_SIM_TRACE";
/// How many seeds the nightly run has.
const SEEDS_VARIABLE: &str = "BATON_SIM_SEEDS";
/// Seeds of every change.
const SEEDS: u64 = 1000;
/// Violations that the nightly run prints; the rest it counts.
const PRINTED: u64 = 20;
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// A thousand storms, in which every kind of fault strikes.
#[test]
fn storm_of_a_thousand_seeds() {
    let traces = number(TRACE_VARIABLE) == Some(1);
    if let Some(seed) = number(SEED_VARIABLE) {
        let outcome = run_storm(seed, traces);
        return assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
    }
    let mut coverage = Coverage::default();
    for seed in 0..SEEDS {
        match run_storm(seed, false) {
            Ok(more) => coverage += &more,
            Err(violation) => panic!("{violation}"),
        }
    }
    let dead = dead(&coverage);
    assert!(dead.is_empty(), "these never struck: {dead:?}\n{coverage}");
}

/// As many storms as the environment says, on every core; the report goes to `target/simulation.txt`, last line
/// `simulation: <n> seeds, <v> violations`.
#[test]
#[ignore = "hours of it are for the night: make simulate SEEDS=100000"]
fn storm_of_a_night() {
    let seeds = number(SEEDS_VARIABLE).unwrap_or(10 * SEEDS);
    let (next, violations, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let coverage = Mutex::new(Coverage::default());
    let start = Instant::now();
    let (work, told) = (
        || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return;
                }
                match run_storm(seed, false) {
                    Ok(more) => *coverage.lock().expect("no panic while it is held") += &more,
                    Err(violation) if violations.fetch_add(1, Ordering::Relaxed) < PRINTED => say(&violation),
                    Err(_) => {}
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        },
        || {
            let (done, seconds) = (done.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
            let (rate, violations) = (done as f64 / seconds, violations.load(Ordering::Relaxed));
            say(&format_args!("{done} of {seeds} seeds, {rate:.0} seeds/s, {violations} violations"));
        },
    );
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut last = Instant::now();
        while !workers.iter().all(|worker| worker.is_finished()) {
            std::thread::park_timeout(Duration::from_millis(50));
            if last.elapsed() >= PROGRESS_EVERY {
                last = Instant::now();
                told();
            }
        }
    });
    told();
    let (coverage, violations) = (coverage.into_inner().expect("no panic"), violations.into_inner());
    let report = format!("{coverage}simulation: {seeds} seeds, {violations} violations\n");
    fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/target/simulation.txt"), report)
        .expect("target/ is ours");
    assert_eq!(violations, 0, "see above");
    let dead = dead(&coverage);
    assert!(dead.is_empty() || seeds < SEEDS, "these never struck: {dead:?}");
}

/// Kinds of fault that should have struck and have not.
fn dead(coverage: &Coverage) -> Vec<Kind> {
    let is_dead = |kind: &Kind| coverage.of(*kind) == 0;
    Kind::ALL.iter().copied().filter(is_dead).collect()
}

/// Prints a line past the test harness, which would keep it until the end.
fn say(line: &dyn std::fmt::Display) {
    // Nobody reads: then nobody misses it.
    let _ = writeln!(std::io::stderr(), "{line}");
}
