//! What time brings, in virtual time: silence, stalls, late handshakes, and slow that is not stalled.

use std::time::Duration;

use baton::proto::endpoint::TICK;
use baton::proto::transfer::{STALL_REPORTED, TransferError};

use crate::pair::{DEADLINES, NAMES, Pair};
use crate::seeds::{Style, on_every_style};

/// What steps take of virtual time between what they do and what they look at.
const SLACK: Duration = Duration::from_millis(20);

on_every_style!(
    silence_is_reported_and_then_fatal,
    a_stall_breaks_off,
    slow_is_not_stalled,
    a_late_handshake_ends
);

/// A stopped process is reported within 2 s and given up after the deadline; when it runs again, it finds out.
pub fn silence_is_reported_and_then_fatal(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.work(6);
    let stopped = pair.chance.within(0..2);
    let since = pair.now;
    pair.frozen[stopped] = true;
    pair.drive("given up", |pair| pair.closed.len() == 1);
    let waited = pair.now - since;
    assert!(waited > DEADLINES.peer - Duration::from_millis(600), "given up after {waited:?}");
    assert!(waited < DEADLINES.peer + Duration::from_millis(600), "[silence] given up after {waited:?}");
    let (n, _, reason) = &pair.closed[0];
    assert!(*n != stopped && reason.starts_with("nothing was heard of it for 5"), "{n}: {reason}");
    assert_eq!(pair.silences.len(), 1, "reported once");
    assert!((1200..1600).contains(&pair.silences[0].1), "{:?}", pair.silences);
    assert!(pair.host.live_ids(1 - stopped).is_empty());

    pair.frozen[stopped] = false;
    pair.drive("the other finds out", |pair| pair.closed.len() == 2);
    assert_eq!(pair.host.live(), 0);
    assert!(pair.nodes.iter().all(|node| !node.endpoint.is_busy()));
    pair.connect();
    pair.work(3);
    pair.finish();
}

/// Nothing moves though both sides live: that is reported within a second, and the transfer breaks off at the stall
/// deadline. If the lane moves again, that is all; if it does not, the stream goes after another deadline.
fn a_stall_breaks_off(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.stuck = vec![true; 2];
    let n = pair.chance.within(0..2);
    let Some(index) = pair.submit(n).expect("a loaded peer") else { return };
    let since = pair.now;
    let [id] = pair.host.live_ids(n)[..] else { panic!("one transfer") };
    pair.pass(2_000);
    let of_it: Vec<_> = pair.stalls.iter().filter(|(_, _, stall)| stall.id == id && stall.is_ours).collect();
    let [(reporter, at, stall)] = of_it[..] else { panic!("[stall] reported once: {:?}", pair.stalls) };
    // The clock of a net jumps from tick to tick.
    let late = STALL_REPORTED + 2 * TICK + SLACK;
    assert!(*reporter == n && *at - since <= late, "[stall] reported after {:?}", *at - since);
    assert!(Duration::from_millis(stall.stalled_ms) >= STALL_REPORTED, "{stall:?}");
    let recovers = pair.chance.percent(50);
    if recovers {
        pair.pass(29_000);
        assert!(pair.host.transfers()[index].end.is_none(), "it drains first");
        pair.stuck = vec![false; 2];
    }
    pair.drive("ended", |pair| pair.host.transfers()[index].end.is_some());
    match &pair.host.transfers()[index].end {
        Some(Err(TransferError::Stalled { seconds: 30, .. })) => {}
        // Its ACK crossed the break-off: everything was in place after all.
        Some(Ok(())) if recovers => {}
        other => panic!("{other:?}"),
    }
    assert!(pair.now - since > DEADLINES.stall);
    assert_eq!(pair.closed.is_empty(), recovers, "{:?}", pair.closed);
    pair.stuck = vec![false; 2];
    if !recovers {
        assert_eq!(pair.closed[0].2, "it does not answer an abort");
        assert!(pair.now - since < 2 * DEADLINES.stall + Duration::from_secs(1));
        pair.drive("both let go", |pair| pair.closed.len() == 2);
        pair.connect();
    }
    pair.work(3);
    pair.finish();
}

/// A lane that takes longer than the stall deadline, but moves: everything succeeds.
fn slow_is_not_stalled(style: Style, seed: u64) {
    if !seed.is_multiple_of(8) {
        return; // a minute of virtual time costs more than other runs
    }
    let mut pair = Pair::slow(style, seed);
    pair.connect();
    let until = pair.now + 2 * DEADLINES.stall;
    while pair.now < until || pair.host.live() > 0 {
        if pair.now < until && pair.host.live() < 6 {
            let n = pair.chance.within(0..2);
            pair.submit(n).expect("a loaded peer");
        }
        pair.stuck = vec![true; 2];
        pair.pass(500);
        pair.stuck = vec![false; 2];
        pair.polls(1);
    }
    pair.finish();
    for transfer in pair.host.transfers() {
        assert_eq!(transfer.end, Some(Ok(())));
    }
    assert!(pair.closed.is_empty() && pair.silences.is_empty(), "{:?}", pair.closed);
}

/// An acceptor that never answers: the dialer gives up at the handshake's deadline, and so does the acceptor
/// when the dialer stops in the middle.
fn a_late_handshake_ends(style: Style, seed: u64) {
    let mut pair = Pair::apart(style, seed);
    let n = pair.chance.within(0..2);
    let since = pair.now;
    pair.call(n);
    let steps = pair.chance.within(0..25);
    let stopped = pair.chance.within(0..2);
    pair.steps(steps);
    let live = 1 - stopped;
    if pair.is_up() || pair.nodes[live].endpoint.peers().count() == 0 {
        return;
    }
    pair.frozen[stopped] = true;
    pair.drive("given up", |pair| pair.nodes[live].endpoint.peers().count() == 0);
    assert!(pair.now - since < 2 * DEADLINES.handshake + Duration::from_secs(1));
    pair.frozen[stopped] = false;
    pair.drive("both let go", |pair| pair.nodes.iter().all(|node| node.endpoint.peers().count() == 0));
    assert!(pair.nodes[n].endpoint.loaded_peer(NAMES[1 - n]).is_err());
    pair.connect();
    pair.work(2);
    pair.finish();
}
