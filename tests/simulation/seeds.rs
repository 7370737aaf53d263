//! Runs a case on each style of fabric and over many seeds, and says how to run a failure again.

use baton::fabric::sim::{SimConfig, SimStyle};

use crate::chance::Chance;

/// Set to run one seed only.
pub const SEED_VARIABLE: &str = "BATON_SIM_SEED";

/// A simulated net of some style, its bounds drawn from the seed.
pub fn config(style: Style, seed: u64) -> SimConfig {
    let mut chance = Chance::new(seed ^ 0x5151);
    let (kind, ordered) = match style {
        Style::Native | Style::NativeLate => (SimStyle::Native, false),
        Style::NativeOrdered => (SimStyle::Native, true),
        Style::ReadOnly => (SimStyle::ReadOnly, chance.percent(50)),
        Style::Framed => (SimStyle::Framed, true),
    };
    SimConfig {
        ordered,
        batches_in_flight: chance.within(1..6),
        segments_per_batch: chance.within(1..12),
        bytes_per_batch: chance.within(100..4000) as u64,
        piece_bytes: chance.within(20..2000) as u64,
        steps_per_poll: chance.within(1..8) as u64,
        wire_bytes: chance.within(500..8000) as u64,
        gathers_below: gathers_below(seed),
        ..SimConfig::new(kind, seed)
    }
}

/// Every other net has lanes that gather.
pub fn gathers_below(seed: u64) -> u64 {
    if Chance::new(seed ^ 0x6A7).percent(50) { u64::MAX } else { 0 }
}

/// What carries the bytes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One-sided both ways, completions in any order.
    Native,
    /// One-sided both ways, completions in order.
    NativeOrdered,
    /// One-sided reads only: the owner of the destination pulls.
    ReadOnly,
    /// Frames that the receiver places.
    Framed,
    /// One-sided both ways, and a deregistration stops nothing: storms only.
    NativeLate,
}

impl Style {
    /// Every style.
    pub const ALL: [Self; 5] =
        [Self::Native, Self::NativeOrdered, Self::ReadOnly, Self::Framed, Self::NativeLate];
}

/// Makes a case a test on each style: `on_every_style!(case)` in a module gives `case::native` and so on.
macro_rules! on_every_style {
    ($($case:ident),* $(,)?) => { $(
        mod $case {
            use crate::seeds::{Style, each_seed};

            #[test]
            fn native() { each_seed(Style::Native, super::$case) }
            #[test]
            fn native_ordered() { each_seed(Style::NativeOrdered, super::$case) }
            #[test]
            fn read_only() { each_seed(Style::ReadOnly, super::$case) }
            #[test]
            fn framed() { each_seed(Style::Framed, super::$case) }
        }
    )* };
}
pub(crate) use on_every_style;

/// Seeds that a case runs over on each style.
const SEEDS: u64 = 200;

/// Runs a case over every seed, or over the one that the environment names.
pub fn each_seed(style: Style, case: fn(Style, u64)) {
    each(SEEDS, |seed| case(style, seed));
}

/// Runs something over so many seeds, or over the one that the environment names.
pub fn each(seeds: u64, mut case: impl FnMut(u64)) {
    for seed in number(SEED_VARIABLE).map_or(0..seeds, |seed| seed..seed + 1) {
        let _replay = Replay(seed);
        case(seed);
    }
}

/// A number from the environment: of a replay, or of how much a nightly run does.
#[allow(clippy::disallowed_methods)] // the command line of a test, not a setting of the product
pub fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is '{value}': give it a whole number")))
}

/// Prints how to repeat the run when it panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            eprintln!("replay: {SEED_VARIABLE}={} cargo test --test simulation -- --exact {name}", self.0);
        }
    }
}
