//! Storms over many seeds: a thousand with every change, as many as one likes at night.

use crate::seeds::{SEED_VARIABLE, number};

use super::coverage::{Coverage, Kind};
use super::faults::FRAMES_SUFFER;
use super::run_storm;

/// Set to 1 to print what happens in a replay.
const TRACE_VARIABLE: &str = "BATON_SIM_TRACE";
/// Seeds of every change.
const SEEDS: u64 = 1000;

/// A thousand storms, in which every kind of fault strikes.
#[test]
fn storm_of_a_thousand_seeds() {
    let traces = number(TRACE_VARIABLE) == Some(1);
    if let Some(seed) = number(SEED_VARIABLE) {
        return drop(run_storm(seed, traces).unwrap_or_else(|violation| panic!("{violation}")));
    }
    let mut coverage = Coverage::default();
    for seed in 0..SEEDS {
        match run_storm(seed, false) {
            Ok(more) => coverage += &more,
            Err(violation) => panic!("{violation}"),
        }
    }
    let off = [Kind::FrameDropped, Kind::FrameDuplicated, Kind::FrameReordered];
    let off = if FRAMES_SUFFER { &off[..0] } else { &off };
    let alive = |kind: &Kind| coverage.of(*kind) > 0 || off.contains(kind);
    let dead: Vec<_> = Kind::ALL.iter().filter(|kind| !alive(kind)).collect();
    assert!(dead.is_empty(), "these never struck: {dead:?}\n{coverage}");
}
