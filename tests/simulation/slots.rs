//! Staging slots: lent ahead, used again and again, and not lent while somebody who is gone may still write into them.

use baton::desc::MemoryKind;
use baton::proto::grant::{SlotPhase, Tally};

use crate::pair::Pair;
use crate::seeds::{Style, each};

/// Slots of each node for its peers, and those that one peer is lent.
const SLOTS: u32 = 6;
const LENT: u32 = 4;

#[test]
fn slots_are_lent_ahead_and_come_back() {
    each(50, |seed| {
        let mut pair = Pair::gathering(Style::Native, seed);
        pair.drive("at rest", |pair| pair.is_quiet());
        for n in 0..2 {
            assert_eq!((free(&pair, n), of(&pair, n, SlotPhase::Granted)), (SLOTS - LENT, LENT));
        }
        pair.work(20);
        pair.drive("at rest", |pair| pair.is_quiet() && pair.host.live() == 0);
        for n in 0..2 {
            assert_eq!((free(&pair, n), of(&pair, n, SlotPhase::Granted)), (SLOTS - LENT, LENT));
            assert_eq!(pair.nodes[n].endpoint.free_slots(MemoryKind::Dram), SLOTS as usize);
        }
        pair.finish();
    });
}

#[test]
fn what_a_lost_peer_held_waits_for_the_proof() {
    each(50, |seed| waits_for_the_proof(Style::Native, seed));
}

/// One side lets go of the other, which is stopped: what that held is nobody's until it has let go, too.
pub fn waits_for_the_proof(style: Style, seed: u64) {
    let mut pair = Pair::gathering(style, seed);
    pair.work(5);
    pair.drive("at rest", |pair| pair.is_quiet() && pair.host.live() == 0);
    pair.frozen[0] = true;
    let key = pair.key(1);
    pair.let_go(1, key, "it has been silent for too long");
    for _ in 0..200 {
        pair.act(1);
        pair.step();
        assert_eq!(of(&pair, 1, SlotPhase::Quarantined), LENT, "node 0 may be writing");
        assert_eq!(free(&pair, 1), SLOTS - LENT);
    }
    pair.frozen[0] = false;
    pair.drive("node 0 lets go", |pair| pair.closed.len() == 2);
    pair.drive("the proof is there", |pair| free(pair, 1) == SLOTS);
    pair.connect();
    pair.drive("at rest", |pair| pair.is_quiet());
    assert_eq!(of(&pair, 1, SlotPhase::Granted), LENT, "lent to the next stream");
    pair.work(5);
    pair.finish();
}

fn tally(pair: &Pair, n: usize) -> Tally {
    pair.nodes[n].endpoint.slots(MemoryKind::Dram)
}

fn of(pair: &Pair, n: usize, phase: SlotPhase) -> u32 {
    tally(pair, n).of(phase)
}

fn free(pair: &Pair, n: usize) -> u32 {
    of(pair, n, SlotPhase::Free)
}
