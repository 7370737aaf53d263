//! Rows in which a network is crossed, over a network of our own: namespaces, and a relay that loses, delays and cuts.
//!
//! [`drills`] lists what is done, [`pair`] puts two hosts at the ends of a [`network`], [`play`] does it, [`promise`] judges.

mod drill;
mod drills;
mod network;
mod packet;
mod pair;
mod play;
mod promise;
mod relay;
mod space;
mod steps;
mod storm;
mod strike;
mod verdict;
mod weather;

pub use drill::Planted;

use crate::bench::Bench;
use crate::row::{Case, Family, Kind, Outcome};

/// The families of this module.
pub fn families() -> Vec<Box<dyn Family>> {
    vec![Box::new(Crossings)]
}

/// Every drill is one case.
struct Crossings;

impl Family for Crossings {
    fn cases(&self, _: u64) -> Vec<Case> {
        drills::cases()
    }

    fn missing(&self, _: &Bench, _: &Case) -> Option<String> {
        missing()
    }

    fn run(&self, bench: &Bench, case: &Case) -> Outcome {
        let at = drills::cases().iter().position(|known| known == case);
        let Some(drill) = at.and_then(|at| drills::drills().into_iter().nth(at)) else {
            return Outcome::new(Kind::Broken, "no such drill");
        };
        run(bench, case, &drill)
    }
}

/// Why this machine has no network of ours; where one breaks for another reason, the run is broken and says so.
pub fn missing() -> Option<String> {
    let forbidden = network::Network::new(0, 1500).err()?;
    forbidden.is_the_machines().then(|| forbidden.to_string())
}

/// A drill with a fault of hosts in it, for the self-test.
pub fn run_planted(bench: &Bench, case: &Case, planted: Planted) -> Outcome {
    run(bench, case, &drills::planted(planted))
}

fn run(bench: &Bench, case: &Case, drill: &drill::Drill) -> Outcome {
    let started = bench
        .folder(case)
        .and_then(|folder| Ok((pair::Pair::start(bench, drill, seed_of(case), &folder)?, folder)));
    match started {
        Ok((mut pair, folder)) => {
            let verdict = play::play(&mut pair, drill);
            // For people: a run is judged without it.
            let _ = std::fs::write(folder.join("verdict.txt"), verdict.lines());
            verdict.outcome()
        }
        Err(error) => Outcome::new(Kind::Broken, format!("the hosts could not be started: {error}")),
    }
}

/// What the relay draws from: the name, so that a run is replayed by it (FNV-1a).
fn seed_of(case: &Case) -> u64 {
    case.to_string()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
