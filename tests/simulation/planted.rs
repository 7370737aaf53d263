//! Each bug that [`baton::planted`] can switch on is found within a thousand seeds, and none where none is switched on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use baton::planted::{Planted, plant};

use crate::grants::{self, Lane};

/// Seeds within which a bug must be found.
const SEEDS_MAX: u64 = 1000;

/// One run of a world; panics when one of its checks fails.
type Run = fn(u64);

/// Where a bug can show.
const GRANTS: &[(&str, Run)] = &[
    ("grants, one-sided", |seed| _ = grants::run(Lane::OneSided, seed)),
    ("grants, checked", |seed| _ = grants::run(Lane::Checked, seed)),
];

/// How a bug was found.
struct Finding {
    bug: Planted,
    world: &'static str,
    seed: u64,
    check: String,
}

#[test]
fn each_bug_is_found() {
    quiet_panics();
    let mut missed = Vec::new();
    let mut last = 0;
    println!("{:<28} {:<20} {:>5}  found by", "bug", "world", "seed");
    for bug in Planted::ALL {
        let _planted = plant(*bug);
        match find(*bug) {
            Some(Finding { bug, world, seed, check }) => {
                println!("{:<28} {world:<20} {seed:>5}  {check}", format!("{bug:?}"));
                last = last.max(seed);
            }
            None => missed.push(*bug),
        }
    }
    let all = Planted::ALL.len();
    println!("planted: {} of {all} bugs found, the last of them at seed {last}", all - missed.len());
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
    for seed in 0..=last {
        for (world, run) in GRANTS {
            if let Err(check) = attempt(*run, seed) {
                panic!("no bug was planted, and {world} finds one at seed {seed}: {check}");
            }
        }
    }
}

/// Runs the worlds in turns, seed by seed, until one of them finds something.
fn find(bug: Planted) -> Option<Finding> {
    (0..SEEDS_MAX).find_map(|seed| {
        GRANTS.iter().find_map(|(world, run)| {
            attempt(*run, seed).err().map(|check| Finding { bug, world, seed, check })
        })
    })
}

/// The name of the check that failed, which the panic's text has in brackets, or else that text's beginning.
fn attempt(run: Run, seed: u64) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(|| run(seed))).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        let name = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        name.map_or_else(|| text.chars().take(60).collect(), |(name, _)| name.to_owned())
    })
}

thread_local! {
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The panics of this thread are its findings: they are not printed one by one.
fn quiet_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                hook(info);
            }
        }));
    });
    QUIET.set(true);
}
