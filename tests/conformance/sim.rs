//! The suite on `sim`, in each of its styles.

use baton::fabric::Fabric;
use baton::fabric::sim::{SimConfig, SimNet, SimStyle};

use crate::copy::{Route, strided};
use crate::harness::{Harness, Skip};
use crate::rig::Rig;

macro_rules! style {
    ($name:ident, $config:expr) => {
        struct $name(SimNet);

        impl Harness for $name {
            fn set_up() -> Result<Self, Skip> {
                Ok(Self(SimNet::new($config)))
            }

            fn open(&self) -> Box<dyn Fabric> {
                Box::new(self.0.open().expect("an eventfd"))
            }
        }
    };
}

style!(Native, SimConfig::new(SimStyle::Native, 1));
style!(NativeOrdered, SimConfig { ordered: true, ..SimConfig::new(SimStyle::Native, 2) });
style!(ReadOnly, SimConfig::new(SimStyle::ReadOnly, 3));
style!(Framed, SimConfig::new(SimStyle::Framed, 4));
style!(
    Narrow,
    SimConfig {
        batches_in_flight: 1,
        segments_per_batch: 7,
        bytes_per_batch: 100_000,
        piece_bytes: 20_000,
        ..SimConfig::new(SimStyle::Native, 5)
    }
);

conformance!(native, Native);
conformance!(native_ordered, NativeOrdered);
conformance!(read_only, ReadOnly);
conformance!(framed, Framed);
conformance!(narrow, Narrow);

/// What node 0 sees poll by poll while a seeded net moves batches.
fn history(style: SimStyle, seed: u64) -> Vec<String> {
    let mut rig = Rig::of(Seeded(SimNet::new(SimConfig::new(style, seed))), 2);
    rig.connect(0, 1);
    let (from, to) = (rig.memory(0, 1 << 20), rig.memory(1, 1 << 20));
    let route = rig.routes()[0];
    let ops: Vec<_> =
        (1..20).flat_map(|count| rig.copy(route, 0, 1, &strided(from, to, count, 4096))).collect();
    let mut history = Vec::new();
    while !ops.iter().all(|op| rig.outcome(op).is_some()) {
        assert!(history.len() < 100_000, "no end\n{}", rig.state());
        rig.poll_all();
        let completed: Vec<_> = rig.nodes[0].log.completed.iter().map(|(token, _)| token.0).collect();
        history.push(format!("{completed:?} {}", rig.snapshot(to).digest()));
    }
    history
}

struct Seeded(SimNet);

impl Harness for Seeded {
    fn set_up() -> Result<Self, Skip> {
        Err(Skip("made with a seed".to_owned()))
    }

    fn open(&self) -> Box<dyn Fabric> {
        Box::new(self.0.open().expect("an eventfd"))
    }
}

#[test]
fn same_seed_same_history() {
    for style in [SimStyle::Native, SimStyle::ReadOnly, SimStyle::Framed] {
        let first = history(style, 11);
        assert_eq!(first, history(style, 11), "{style:?}: seed 11 twice");
        assert_ne!(first, history(style, 12), "{style:?}: seeds 11 and 12");
    }
}

/// The freedom that the contract leaves is used, or tests on the simulator would not see code that relies on more.
#[test]
fn unordered_net_reorders_and_never_moves_at_the_post() {
    let mut rig = Rig::of(Seeded(SimNet::new(SimConfig::new(SimStyle::Native, 13))), 2);
    rig.connect(0, 1);
    let (from, to) = (rig.memory(0, 1 << 20), rig.memory(1, 1 << 20));
    let before = rig.snapshot(to);
    let ops: Vec<_> =
        (1..20).flat_map(|count| rig.copy(Route::Write, 0, 1, &strided(from, to, count, 4096))).collect();
    rig.snapshot(to).assert_same(&before, "before the first poll");
    rig.finish(&ops);
    let completed: Vec<_> = rig.nodes[0].log.completed.iter().map(|(token, _)| *token).collect();
    let posted: Vec<_> = ops.iter().map(|op| op.token).collect();
    assert_ne!(completed, posted, "nothing was reordered");
}

/// Small and large batches both ways, for many seeds: what one seed hides, another shows.
#[test]
fn every_seed_moves_the_right_bytes() {
    for style in [SimStyle::Native, SimStyle::ReadOnly, SimStyle::Framed] {
        for seed in 100..150 {
            let config = SimConfig { piece_bytes: 3000, wire_bytes: 5000, ..SimConfig::new(style, seed) };
            let mut rig = Rig::of(Seeded(SimNet::new(config)), 2);
            rig.connect(0, 1);
            let [a, b] = [0, 1].map(|node| (rig.memory(node, 65_536), rig.memory(node, 65_536)));
            for route in rig.routes() {
                let (there, back) = (strided(a.0, b.1, 30, 1000), strided(b.0, a.1, 3, 10_000));
                let wanted = (rig.expected(a.0, b.1, &there), rig.expected(b.0, a.1, &back));
                let mut ops = rig.copy(route, 0, 1, &there);
                ops.extend(rig.copy(route, 1, 0, &back));
                rig.finish(&ops);
                rig.snapshot(b.1).assert_same(&wanted.0, &format!("{style:?}, seed {seed}, there"));
                rig.snapshot(a.1).assert_same(&wanted.1, &format!("{style:?}, seed {seed}, back"));
            }
        }
    }
}
