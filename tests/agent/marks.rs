//! What those who watch see of a transfer.

use baton::desc::TransferOp;

use crate::logged::{self, Seen};
use crate::pair::{Lane, Pair};

/// Small enough for one batch.
const LEN: usize = 1 << 14;
const PIECE: usize = 1 << 10;
const PIECES: usize = 4;

/// The phases of a transfer as they end: at its initiator, and at the other side. A flush is seen only where it takes time.
fn phases(lane: Lane, op: TransferOp) -> (&'static [&'static str], &'static [&'static str]) {
    const MOVES: &[&str] = &["plan", "post", "copy", "ack", "transfer"];
    match (lane, op) {
        (Lane::Ucx, _) | (Lane::Local, TransferOp::Read) => (MOVES, &[]),
        (Lane::Local, TransferOp::Write) => (&["plan", "ack", "transfer"], &["post", "copy"]),
        (_, TransferOp::Write) => (MOVES, &["copy"]),
        (_, TransferOp::Read) => (&["plan", "copy", "ack", "transfer"], &["post", "copy"]),
    }
}

pub fn phases_are_noted_once_and_in_order(lane: Lane) {
    logged::listen();
    let pair = Pair::new(lane, LEN);
    let pieces = |at: usize| at * 2 * PIECE; // gaps, so that none are merged
    for (number, op) in [(1, TransferOp::Write), (2, TransferOp::Read)] {
        let ours = (0..PIECES).map(|at| pair.ctx_pool.desc(pieces(at), PIECE)).collect::<Vec<_>>();
        let theirs = (0..PIECES).map(|at| pair.gen_pool.desc(pieces(at), PIECE)).collect::<Vec<_>>();
        pair.run(&pair.request(op, ours, theirs));
        let (at_ctx, at_gen) = phases(lane, op);
        assert_eq!(seen(pair.ctx.name(), pair.gene.name(), number, true), at_ctx, "{op}, its own side");
        assert_eq!(seen(pair.gene.name(), pair.ctx.name(), number, false), at_gen, "{op}, the other side");
    }
}

/// The phases of a transfer that have ended at an agent, by name, but for a flush. Each says whose it is and how much.
fn seen(agent: &str, peer: &str, number: u32, is_ours: bool) -> Vec<&'static str> {
    let of_it = |span: &Seen| {
        let id = span.fields.split(' ').find_map(|field| field.strip_prefix("transfer="));
        id.and_then(|id| id.split_once('.')).is_some_and(|(_, told)| told.parse() == Ok(number))
    };
    let spans: Vec<Seen> = logged::closed_spans_of(agent).into_iter().filter(of_it).collect();
    for span in &spans {
        for field in [
            format!("peer={peer:?} "),
            format!("ours={is_ours} "),
            format!("bytes={} ", PIECES * PIECE),
            format!("segments={PIECES} "),
        ] {
            assert!(span.fields.contains(&field), "{span:?} without {field}");
        }
        assert!(span.fields.contains("lane=\""), "{span:?}");
    }
    spans.iter().map(|span| span.name).filter(|name| *name != "flush").collect()
}
