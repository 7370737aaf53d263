//! How things end: the peer is lost, or our host forgets it.

use baton::proto::endpoint::{CommandError, Standing};
use baton::proto::transfer::TransferError;

use crate::pair::{NAMES, Pair};
use crate::seeds::{Style, on_every_style};

on_every_style!(peer_lost_at_any_moment, invalidate_then_load, invalidated_by_both, shutdown_drains);

/// The stream breaks on one side: everything on it ends on both, soon. Then the two meet again.
fn peer_lost_at_any_moment(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    for _ in 0..3 {
        let count = pair.chance.within(1..12);
        pair.work(count);
        let n = pair.chance.within(0..2);
        let (key, before) = (pair.key(n), pair.host.ended_count());
        pair.let_go(n, key, "its stream was cut");
        pair.act(n);
        assert!(pair.host.live_ids(n).is_empty(), "nothing outlives its stream");
        let mut steps = 0;
        pair.drive("the other side notices", |pair| {
            steps += 1;
            pair.closed.len() % 2 == 0
        });
        assert!(steps < 5000, "{steps} steps to notice");
        assert_eq!(pair.host.live(), 0);
        for end in pair.host.ended_since(before) {
            assert!(matches!(end, Ok(()) | Err(TransferError::PeerLost(_))), "{end:?}");
        }
        for n in 0..2 {
            assert!(!pair.nodes[n].endpoint.is_busy(), "{}", pair.state());
            let error = pair.nodes[n].endpoint.loaded_peer(NAMES[1 - n]).expect_err("it is gone");
            assert!(matches!(error, CommandError::PeerLost { .. }), "{error}");
        }
        pair.connect();
    }
    pair.work(5);
    pair.finish();
}

/// The host's first contact is invalidate, then load; it may do so at any later time too. Its transfers are
/// cancelled, the stream stays, though nobody else has loaded anybody for a moment.
fn invalidate_then_load(style: Style, seed: u64) {
    let mut pair = Pair::apart(style, seed);
    let n = pair.chance.within(0..2);
    pair.nodes[n].endpoint.invalidate(NAMES[1 - n]);
    pair.call(n);
    pair.drive("both up", |pair| pair.is_up());
    pair.host.stream_opened();
    let key = pair.key(n);
    for _ in 0..5 {
        for _ in 0..pair.chance.within(0..5) {
            let steps = pair.chance.within(0..20);
            pair.steps(steps);
            pair.submit(n).expect("a loaded peer");
            pair.notify(n).expect("a loaded peer");
        }
        let before = pair.host.ended_count();
        pair.nodes[n].endpoint.invalidate(NAMES[1 - n]);
        pair.act(n);
        assert!(matches!(pair.submit(n), Ok(None) | Err(_)), "an invalidated peer takes no transfer");
        assert!(pair.notify(n).is_err(), "an invalidated peer takes no notification");
        let (steps, pause_ms) = (pair.chance.within(0..20), pair.chance.within(0..300));
        pair.pass(pause_ms as u64);
        pair.steps(steps);
        pair.drive("drained", |pair| pair.host.live() == 0);
        for end in pair.host.ended_since(before) {
            assert!(matches!(end, Ok(()) | Err(TransferError::Invalidated)), "{end:?}");
        }
        assert_eq!(pair.nodes[n].endpoint.standing(NAMES[1 - n]), Standing::Up(key), "{:?}", pair.closed);
        pair.nodes[n].endpoint.mark_loaded(key);
        pair.act(n);
        let steps = pair.chance.within(0..40);
        pair.steps(steps);
    }
    pair.finish();
    assert!(pair.closed.is_empty(), "the stream stays: {:?}", pair.closed);
}

/// Once neither side has the other loaded, the stream goes, after what was said on it has arrived.
fn invalidated_by_both(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.work(8);
    for n in 0..2 {
        let steps = pair.chance.within(0..50);
        pair.steps(steps);
        pair.nodes[n].endpoint.invalidate(NAMES[1 - n]);
        pair.act(n);
    }
    pair.drive("transfers and notes are through", |pair| pair.host.live() == 0 && pair.is_quiet());
    pair.host.check_over();
    pair.drive("both sides have closed", |pair| pair.closed.len() == 2);
    for n in 0..2 {
        let error = pair.nodes[n].endpoint.loaded_peer(NAMES[1 - n]).expect_err("it was invalidated");
        assert!(matches!(error, CommandError::UnknownPeer { .. }), "{error}");
    }
    assert!(pair.closed.iter().any(|(.., why)| why == "neither side has the other loaded"));
    pair.connect();
    pair.work(3);
    pair.finish();
}

/// Shutdown breaks off what is under way and drains it, and peers let go of our memory, before the streams close.
fn shutdown_drains(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.work(8);
    let n = pair.chance.within(0..2);
    let before = pair.host.ended_count();
    let ours = pair.host.live_ids(n);
    pair.nodes[n].endpoint.shutdown();
    pair.drive("drained", |pair| pair.host.live_ids(n).is_empty());
    assert!(pair.closed.is_empty(), "draining costs no stream: {:?}", pair.closed);
    if !ours.is_empty() {
        let fine = |end: &Result<(), TransferError>| matches!(end, Ok(()) | Err(TransferError::Shutdown));
        assert!(pair.host.ended_since(before).iter().all(fine));
    }
    pair.nodes[n].endpoint.revoke_all();
    pair.act(n);
    pair.drive("nobody touches our memory any more", |pair| {
        !pair.nodes[n].endpoint.is_revoking() && !pair.nodes[n].endpoint.is_busy()
    });
    let spans: Vec<_> = pair.host.memories(n).map(|memory| memory.span()).collect();
    let native = matches!(style, Style::Native | Style::NativeOrdered);
    spans.into_iter().for_each(|span| pair.assert_out_of_use(n, span, native));
    pair.nodes[n].endpoint.close_all();
    pair.act(n);
    pair.drive("both sides have closed", |pair| pair.closed.len() == 2);
    assert_eq!(pair.host.live(), 0);
    assert!(pair.nodes.iter().all(|node| !node.endpoint.is_busy()));
    // What the other side learns first is a matter of luck: the goodbye, or that the lane is gone.
    let why = pair.closed.iter().find(|(side, ..)| *side != n).map_or("", |(.., why)| why);
    assert!(why == "it said goodbye: the agent was shut down" || why.starts_with("its lane broke"), "{why}");
}
