//! Transfers both ways with notifications between them, on every style.

use baton::proto::transfer::TransferError;

use crate::pair::Pair;
use crate::seeds::{Style, on_every_style};

on_every_style!(everything_succeeds, cancelled_at_any_moment, failing_posts);

/// Reads and writes of random lists, with and without sync messages, and notifications: all arrive.
fn everything_succeeds(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.work(40);
    pair.finish();
    for transfer in pair.host.transfers() {
        assert_eq!(transfer.end, Some(Ok(())));
    }
}

/// A cancelled transfer ends; after that no byte of it lands.
fn cancelled_at_any_moment(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    for _ in 0..15 {
        pair.work(3);
        let n = pair.chance.within(0..2);
        let live = pair.host.live_ids(n);
        if !live.is_empty() {
            let id = pair.chance.pick(&live);
            pair.nodes[n].endpoint.cancel(id);
            pair.act(n);
        }
    }
    pair.finish();
    assert!(pair.closed.is_empty(), "a cancel costs no stream: {:?}", pair.closed);
}

/// A post that fails ends its transfer, quickly and on both sides, and nothing else.
pub fn failing_posts(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.post_failures = 15;
    pair.work(30);
    pair.finish();
    let late = |end: &&Result<_, TransferError>| matches!(end, Err(TransferError::Stalled { .. }));
    let late = pair.host.ended_since(0).iter().find(late);
    assert!(late.is_none(), "[late failure] nobody was told that it failed: {late:?}");
    assert!(pair.closed.is_empty(), "a failed post costs no stream: {:?}", pair.closed);
}
