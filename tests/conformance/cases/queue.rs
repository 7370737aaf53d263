//! Back-pressure, completion accounting, order, fairness.

use baton::desc::{MemoryKind, OpToken};
use baton::fabric::Posted;

use crate::copy::{Op, Route, strided, whole};
use crate::harness::Harness;
use crate::rig::Rig;

/// Most posts without a poll that the suite tries before it takes a queue for unbounded.
const QUEUE_MAX: usize = 1 << 16;

pub fn full_queue_hands_the_batch_back<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (from, to) = (rig.memory(0, 65_536), rig.memory(1, 65_536));
    for route in rig.routes() {
        let bound = rig.limits().batches_in_flight.min(QUEUE_MAX);
        let wanted = rig.expected(from, to, &strided(from, to, 4, 4096));
        let (poster, other) = if route == Route::Read { (1, 0) } else { (0, 1) };
        let mut ops: Vec<Op> = Vec::new();
        let refused = loop {
            assert!(ops.len() <= bound, "{} posts are in flight, the limit is {bound}", ops.len());
            let batch = rig.batch(route, strided(from, to, 4, 4096));
            let before = batch.clone();
            let op = rig.plan(route, poster, 1, &batch);
            match rig.post(poster, other, batch).expect("a sound batch") {
                Posted::Accepted => ops.push(op),
                Posted::Full(back) => {
                    assert_eq!(back, before, "the batch came back changed");
                    ops.push(op);
                    break back;
                }
            }
        };
        assert!(ops.len() > 1, "an empty queue is full");
        rig.post_patiently(poster, other, refused);
        rig.finish(&ops);
        rig.snapshot(to).assert_same(&wanted, "destination");
    }
}

pub fn each_token_completes_once<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (from, to) = (rig.memory(0, 1 << 20), rig.memory(1, 1 << 20));
    for route in rig.routes() {
        let mut ops = Vec::new();
        for count in 1..200 {
            ops.extend(rig.copy(route, 0, 1, &strided(from, to, 1 + count % 32, 1024)));
        }
        rig.finish(&ops);
        rig.settle();
        let poster = ops[0].poster;
        let mut tokens: Vec<OpToken> =
            rig.nodes[poster].log.completed.iter().map(|(token, _)| *token).collect();
        let count = tokens.len();
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), count, "a token completed twice");
        assert!(rig.nodes[poster].log.in_flight.is_empty(), "{}", rig.state());
    }
}

/// Large and small batches in turn, so that a fabric that lets small ones overtake is seen.
pub fn ordered_is_ordered<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    if !rig.limits().ordered {
        return;
    }
    let (from, to) = (rig.memory(0, 1 << 20), rig.memory(1, 1 << 20));
    for route in rig.routes() {
        let lens = (0..60).map(|at| if at % 3 == 0 { 1 << 20 } else { 1 + at * 100 });
        let ops: Vec<Op> = lens.flat_map(|len| rig.copy(route, 0, 1, &[whole(from, to, len)])).collect();
        rig.finish(&ops);
        let posted: Vec<OpToken> = ops.iter().map(|op| op.token).collect();
        let log = &rig.nodes[ops[0].poster].log;
        let completed: Vec<OpToken> = log.completed.iter().map(|(token, _)| *token).collect();
        assert!(completed.ends_with(&posted), "{route:?}: completed {completed:?}, posted {posted:?}");
        if route == Route::Frame {
            let arrived = rig.nodes[1].log.arrived.iter().map(|arrival| arrival.header.clone());
            let posted = posted.iter().map(|token| token.0.to_le_bytes().to_vec());
            assert!(arrived.eq(posted), "frames arrived out of order");
        }
    }
}

/// One peer gets a queue full of bulk, another one small batch: by the time the small one is over, no more than
/// half of the bulk that was outstanding has gone before it. Not on GPU memory: a device copies in its own time, whatever is
/// polled, so that nothing follows from what has gone before.
pub fn bulk_does_not_starve_another_peer<H: Harness>() {
    if H::KINDS.contains(&MemoryKind::Vram) {
        eprintln!("skipped: bulk_does_not_starve_another_peer: turns of a device are its own");
        return;
    }
    let Some(mut rig) = Rig::<H>::star(3) else { return };
    rig.poll_budget_bytes = 256 << 10;
    let len = 4 << 20;
    let bulk = [0, 1].map(|node| rig.memory(node, len));
    let small = [0, 2].map(|node| rig.memory(node, 4096));
    for route in rig.routes() {
        // Node 0 posts: it reads from the others or writes to them.
        let (bulk, small) = match route {
            Route::Read => ([bulk[1], bulk[0]], [small[1], small[0]]),
            Route::Write | Route::Frame => (bulk, small),
        };
        let bulk_ops: Vec<Op> = (0..8)
            .flat_map(|_| rig.copy(route, bulk[0].node, bulk[1].node, &[whole(bulk[0], bulk[1], len as u64)]))
            .collect();
        let left = |rig: &Rig<H>| bulk_ops.iter().filter(|op| rig.outcome(op).is_none()).count();
        let outstanding = left(&rig);
        let small_op = rig.copy(route, small[0].node, small[1].node, &[whole(small[0], small[1], 4096)]);
        let mut left_before = outstanding;
        while rig.outcome(&small_op[0]).is_none() {
            left_before = left(&rig);
            rig.poll_all();
            assert!(
                left_before * 2 >= outstanding,
                "{left_before} of {outstanding} bulk batches are left, the small one waits\n{}",
                rig.state()
            );
        }
        assert!(left_before * 2 >= outstanding);
        rig.finish(&bulk_ops);
    }
}
