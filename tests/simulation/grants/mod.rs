//! Leases of staging slots: the owner's half and the senders' halves against each other.

mod sender;
mod world;

use proptest::prelude::*;

use crate::chance::Chance;
use crate::seeds::each;

pub use world::Lane;
use world::World;

/// Steps of a run by seed.
const STEPS: usize = 600;

/// One run; panics when a check fails. Returns how many slots were committed and read.
pub fn run(lane: Lane, seed: u64) -> u64 {
    let mut world = World::new(lane, seed);
    let mut chance = Chance::new(!seed);
    chance.bytes(STEPS).into_iter().for_each(|choice| world.step(choice));
    world.settle();
    world.read
}

#[test]
fn no_write_lands_in_a_slot_of_somebody_else_one_sided() {
    each(1000, |seed| _ = run(Lane::OneSided, seed));
}

#[test]
fn no_write_lands_in_a_slot_of_somebody_else_checked() {
    each(1000, |seed| _ = run(Lane::Checked, seed));
}

#[test]
fn runs_do_move_something() {
    let read: u64 = (0..50).map(|seed| run(Lane::OneSided, seed)).sum();
    assert!(read > 300, "{read} slots were committed and read in 50 runs");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_events(choices in prop::collection::vec(any::<u8>(), 0..300), seed in 0..1000u64) {
        let lane = if seed % 2 == 0 { Lane::OneSided } else { Lane::Checked };
        let mut world = World::new(lane, seed);
        choices.into_iter().for_each(|choice| world.step(choice));
        world.settle();
    }
}
