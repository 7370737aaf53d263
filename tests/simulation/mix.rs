//! Transfers both ways with notifications between them, on every style.

use crate::pair::Pair;
use crate::seeds::{Style, on_every_style};

on_every_style!(everything_succeeds);

/// Reads and writes of random lists, with and without sync messages, and notifications: all arrive.
fn everything_succeeds(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.work(40);
    pair.finish();
    for transfer in pair.host.transfers() {
        assert_eq!(transfer.end, Some(Ok(())));
    }
}
