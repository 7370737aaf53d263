//! Links that never come up, end, or break.

use baton::desc::OpToken;
use baton::fabric::Posted;

use crate::copy::{Op, Route, whole};
use crate::harness::Harness;
use crate::rig::{Mem, Rig};

/// Bytes of one batch that is in flight when something ends.
const LEN: usize = 4 << 20;

pub fn bad_addresses_end_in_an_error<H: Harness>() {
    let Some(mut rig) = Rig::<H>::apart(2) else { return };
    let id = rig.link_id();
    let good = rig.harness.link(rig.fabric(1), id);
    for (at, (name, link)) in rig.harness.bad_links(&good).into_iter().enumerate() {
        let peer = baton::desc::PeerKey(1000 + at as u32);
        rig.fabric_mut(0).connect(peer, link);
        rig.until(name, |rig| rig.nodes[0].log.connected.contains_key(&peer));
        let outcome = rig.nodes[0].log.connected[&peer].clone();
        let error = outcome.expect_err(name);
        assert!(!error.detail.is_empty(), "{name}: the error says what is wrong: {error}");
        rig.fabric_mut(0).disconnect(peer);
    }
    rig.connect(0, 1);
}

/// Posts batches of bulk and polls the poster a little, so that one is half way.
fn in_flight<H: Harness>(rig: &mut Rig<H>, route: Route, from: Mem, to: Mem) -> Vec<Op> {
    rig.poll_budget_bytes = 4096;
    let (poster, other) = if route == Route::Read { (to.node, from.node) } else { (from.node, to.node) };
    let mut ops = Vec::new();
    let len = (LEN as u64).min(rig.limits().bytes_per_batch);
    for _ in 0..4 {
        let batch = rig.batch(route, vec![whole(from, to, len)]);
        let op = rig.plan(route, poster, to.node, &batch);
        match rig.post(poster, other, batch).expect("a sound batch") {
            Posted::Accepted => ops.push(op),
            Posted::Full(_) => break,
        }
    }
    for _ in 0..3 {
        rig.poll_all();
    }
    ops
}

fn ends<H: Harness>() -> Option<(Rig<H>, Mem, Mem)> {
    let mut rig = Rig::<H>::pair()?;
    let (from, to) = (rig.memory(0, LEN), rig.memory(1, LEN));
    Some((rig, from, to))
}

fn tokens_done<H: Harness>(rig: &Rig<H>, poster: usize) -> Vec<OpToken> {
    rig.nodes[poster].log.completed.iter().map(|(token, _)| *token).collect()
}

/// The side that posts disconnects: no token completes afterwards, and what it moves itself stops.
pub fn disconnect_silences_the_posting_side<H: Harness>() {
    let Some((rig, ..)) = ends::<H>() else { return };
    for route in rig.routes() {
        let Some((mut rig, from, to)) = ends::<H>() else { return };
        let ops = in_flight(&mut rig, route, from, to);
        let poster = ops[0].poster;
        rig.disconnect(poster, 1 - poster);
        let (bytes, tokens) = (rig.snapshot(to), tokens_done(&rig, poster));
        rig.settle();
        assert_eq!(tokens_done(&rig, poster), tokens, "{route:?}: a token completed after disconnect");
        if route != Route::Frame {
            rig.snapshot(to).assert_same(&bytes, "after disconnect");
        }
    }
}

/// The side whose sink places frames disconnects: no byte lands afterwards.
pub fn disconnect_silences_the_landing_side<H: Harness>() {
    let Some((mut rig, from, to)) = ends::<H>() else { return };
    if !rig.limits().framed {
        return;
    }
    in_flight(&mut rig, Route::Frame, from, to);
    rig.disconnect(1, 0);
    let bytes = rig.snapshot(to);
    rig.settle();
    rig.snapshot(to).assert_same(&bytes, "after disconnect");
}

/// The peer's fabric goes away with batches in flight: each ends once, with or without error, and then nothing
/// more can be moved, where the fabric can tell ([`Harness::NOTICES_DROPPED_PEERS`]).
pub fn dropped_peer_ends_every_batch<H: Harness>() {
    let Some((rig, ..)) = ends::<H>() else { return };
    for route in rig.routes() {
        let Some((mut rig, from, to)) = ends::<H>() else { return };
        let ops = in_flight(&mut rig, route, from, to);
        let poster = ops[0].poster;
        rig.drop_fabric(1 - poster);
        rig.until("every batch has ended", |rig| rig.nodes[poster].log.in_flight.is_empty());

        // A framed fabric may need a few batches before the kernel tells it.
        rig.poll_budget_bytes = 1 << 20;
        rig.settle();
        let noticed = (0..1000).any(|_| late_batch_fails(&mut rig, route, poster, [from, to]));
        assert!(noticed || !H::NOTICES_DROPPED_PEERS, "{route:?}: {}", rig.state());
        rig.settle();
        assert!(rig.nodes[poster].log.lost.len() <= 1);
    }
}

/// Whether a batch to a peer that has gone is refused or ends with an error. It ends in any case.
fn late_batch_fails<H: Harness>(rig: &mut Rig<H>, route: Route, poster: usize, [from, to]: [Mem; 2]) -> bool {
    let batch = rig.batch(route, vec![whole(from, to, 4096)]);
    let token = batch.token;
    match rig.post(poster, 1 - poster, batch) {
        Err(_) => return true,
        Ok(posted) => assert_eq!(posted, Posted::Accepted, "the queue was empty"),
    }
    rig.until("the late batch has ended", |rig| rig.nodes[poster].log.outcome(token).is_some());
    rig.nodes[poster].log.outcome(token).is_some_and(Result::is_err)
}

pub fn dropped_peer_leaves_others_alone<H: Harness>() {
    let Some(mut rig) = Rig::<H>::star(3) else { return };
    let mems = [0, 1, 2].map(|node| rig.memory(node, LEN));
    for route in rig.routes() {
        rig.copy_and_check(route, mems[2], mems[0], &[whole(mems[2], mems[0], LEN as u64)]);
    }
    let route = rig.routes()[0];
    in_flight(&mut rig, route, mems[0], mems[1]);
    rig.drop_fabric(1);
    rig.poll_budget_bytes = 1 << 20;
    for route in rig.routes() {
        rig.copy_and_check(route, mems[2], mems[0], &[whole(mems[2], mems[0], LEN as u64)]);
        rig.copy_and_check(route, mems[0], mems[2], &[whole(mems[0], mems[2], LEN as u64)]);
    }
}
