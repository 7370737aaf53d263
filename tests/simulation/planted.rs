//! Each bug that [`baton::planted`] can switch on is found within a thousand seeds; with none switched on, the same
//! seeds pass.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use baton::planted::{Planted, plant};

use crate::grants::{self, Lane};
use crate::seeds::Style;
use crate::storm::run_storm;
use crate::{mix, slots, time};

/// Seeds within which a bug must be found.
const SEEDS_MAX: u64 = 1000;
/// Threads that look for bugs.
const THREADS_MAX: usize = 8;

/// A simulated world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum World {
    /// The whole protocol: [`crate::storm`].
    Storm,
    /// The leases of staging slots: [`crate::grants`].
    Grants,
    /// Transfers whose operations fail now and then.
    Failures,
    /// A process that is stopped.
    Silence,
    /// Staging slots of one that is lost.
    Slots,
}

/// How a bug was found.
#[derive(Debug)]
struct Finding {
    seed: u64,
    /// The name of the check that failed.
    check: String,
}

impl World {
    /// Where a bug can show.
    fn of(bug: Planted) -> Self {
        match bug {
            Planted::FailUnsaid => Self::Failures,
            Planted::SilenceNeverFatal => Self::Silence,
            Planted::SlotsFreedWithStream => Self::Slots,
            bug if format!("{bug:?}").starts_with("Grant") => Self::Grants,
            _ => Self::Storm,
        }
    }

    /// One run: what failed in it.
    fn run(self, seed: u64) -> Result<(), String> {
        match self {
            Self::Storm => run_storm(seed, false).map(drop).map_err(|violation| violation.to_string()),
            Self::Grants => {
                let lane = if seed.is_multiple_of(2) { Lane::OneSided } else { Lane::Checked };
                caught(|| _ = grants::run(lane, seed))
            }
            Self::Failures => caught(|| mix::failing_posts(style(seed), seed)),
            Self::Slots => caught(|| slots::waits_for_the_proof(Style::Native, seed)),
            Self::Silence => caught(|| time::silence_is_reported_and_then_fatal(style(seed), seed)),
        }
    }
}

#[test]
fn each_bug_is_found() {
    quiet_panics();
    let found = for_each(Planted::ALL, |bug| find(*bug));
    println!("{:<26} {:<8} {:>5}  found by", "bug", "world", "seed");
    for (bug, finding) in Planted::ALL.iter().zip(&found) {
        let (seed, check) = match finding {
            Some(finding) => (finding.seed.to_string(), finding.check.as_str()),
            None => ("-".to_owned(), "NOT FOUND"),
        };
        println!("{:<26} {:<8} {seed:>5}  {check}", format!("{bug:?}"), format!("{:?}", World::of(*bug)));
    }
    let missed: Vec<_> = Planted::ALL.iter().zip(&found).filter(|(_, found)| found.is_none()).collect();
    println!("planted: {} of {} bugs found", found.len() - missed.len(), found.len());
    assert!(missed.is_empty(), "not found within {SEEDS_MAX} seeds: {missed:?}");
    for world in [World::Storm, World::Grants, World::Failures, World::Silence, World::Slots] {
        let of_world = Planted::ALL.iter().zip(&found).filter(|(bug, _)| World::of(**bug) == world);
        let last = of_world.filter_map(|(_, finding)| finding.as_ref()).map(|finding| finding.seed).max();
        let seeds: Vec<_> = (0..=last.unwrap_or_default()).collect();
        let failure = for_each(&seeds, |seed| world.run(*seed)).into_iter().find_map(Result::err);
        assert_eq!(failure, None, "no bug was planted, and {world:?} fails");
    }
}

/// Switches the bug on and runs its world seed by seed until something is found.
fn find(bug: Planted) -> Option<Finding> {
    let _planted = plant(bug);
    (0..SEEDS_MAX).find_map(|seed| {
        let text = World::of(bug).run(seed).err()?;
        let name = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let check = name.map_or_else(|| text.chars().take(60).collect(), |(name, _)| name.to_owned());
        Some(Finding { seed, check })
    })
}

/// Does the work for each item, on as many threads as there are processors; results are in the items' order.
fn for_each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let spawn = |_| {
            let (next, work) = (&next, &work);
            scope.spawn(move || {
                quiet_panics();
                let mine = std::iter::from_fn(|| {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    items.get(at).map(|item| (at, work(item)))
                });
                mine.collect::<Vec<_>>()
            })
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("it catches panics")).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The styles in turns, but for the one that is for storms only.
fn style(seed: u64) -> Style {
    Style::ALL[(seed % 4) as usize]
}

/// A run whose checks panic.
fn caught(run: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().cloned();
        text.unwrap_or_else(|| (*payload.downcast_ref::<&str>().unwrap_or(&"a panic")).to_owned())
    })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
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
