//! Memory that is deregistered while transfers use it.

use baton::desc::{RegionKey, Segment, Span, TransferOp};
use baton::proto::endpoint::Submission;
use baton::proto::transfer::TransferError;

use crate::pair::Pair;
use crate::seeds::{Style, each, on_every_style};

on_every_style!(in_the_middle, behind_a_cancel, between_plan_and_submit);

/// A region of one side that has been revoked and is quiet.
struct Revoked {
    n: usize,
    memory: usize,
    key: RegionKey,
    span: Span,
}

/// Revokes a region of either side and does `meanwhile` until it is quiet.
fn revoke(pair: &mut Pair, mut meanwhile: impl FnMut(&mut Pair)) -> Revoked {
    let n = pair.chance.within(0..2);
    let memory = pair.chance.within(0..4);
    let key = RegionKey(memory as u32 + 1);
    let span = pair.host.memories(n).nth(memory).expect("four memories").span();
    pair.nodes[n].endpoint.remove_region(key);
    pair.act(n);
    pair.drive("the region is quiet", |pair| {
        meanwhile(pair);
        !pair.nodes[n].endpoint.region_is_busy(key)
    });
    Revoked { n, memory, key, span }
}

/// Once the region is not busy any more, it may be used for something else: no transfer reads it or writes to
/// it, and what succeeds after that did not need it. Everything else goes on.
fn in_the_middle(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.work(6);
    let steps = pair.chance.within(0..100);
    pair.steps(steps);

    let Revoked { n, memory, key, span } = revoke(&mut pair, Pair::submit_or_not);
    pair.assert_out_of_use(n, span, matches!(style, Style::Native | Style::NativeOrdered));
    baton::fabric::Fabric::deregister(&mut pair.nodes[n].fabric, key);
    pair.host.reuse(n, memory);

    for _ in 0..20 {
        pair.submit_or_not();
        pair.steps(20);
    }
    pair.finish();
    assert!(pair.closed.is_empty(), "deregistering costs no stream: {:?}", pair.closed);
}

/// A cancel and a revocation meet the same transfers. Whatever crosses what: one whose message was delivered is a
/// success.
fn behind_a_cancel(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    pair.work(6);
    let steps = pair.chance.within(0..60);
    pair.steps(steps);
    for n in 0..2 {
        for id in pair.host.live_ids(n) {
            pair.nodes[n].endpoint.cancel(id);
            pair.act(n);
            let steps = pair.chance.within(0..4);
            pair.steps(steps);
        }
    }
    let Revoked { n, memory, key, .. } = revoke(&mut pair, |_| ());
    baton::fabric::Fabric::deregister(&mut pair.nodes[n].fabric, key);
    pair.host.reuse(n, memory);
    pair.finish();
    assert!(pair.closed.is_empty(), "neither costs a stream: {:?}", pair.closed);
}

/// A transfer that was planned while the region was there, and is submitted when it is gone, is refused or
/// fails: it does not touch the region.
fn between_plan_and_submit(style: Style, seed: u64) {
    let mut pair = Pair::connected(style, seed);
    let planner = pair.chance.within(0..2);
    let mut wishes = Vec::new();
    for _ in 0..5 {
        let Some(wish) = pair.host.wish(planner, &mut pair.chance) else { continue };
        let index = wish.index;
        wishes.push((index, pair.plan(planner, wish).expect("registered memory")));
    }
    let Revoked { n, memory, key, span } = revoke(&mut pair, Pair::step);
    baton::fabric::Fabric::deregister(&mut pair.nodes[n].fabric, key);
    pair.host.reuse(n, memory);
    for (index, submission) in wishes {
        let steps = pair.chance.within(0..20);
        pair.steps(steps);
        pair.submit_planned(planner, index, submission);
        pair.assert_out_of_use(n, span, matches!(style, Style::Native | Style::NativeOrdered));
    }
    pair.finish();
    assert!(pair.closed.is_empty(), "a late submit costs no stream: {:?}", pair.closed);
}

/// Memory that is read, deregistered before the bytes are fetched, used for something else and registered again at
/// the same address: the read does not take that for what it wanted.
#[test]
fn registered_again_under_a_read() {
    each(50, |seed| {
        let mut pair = Pair::connected(Style::ReadOnly, seed);
        pair.drive("at rest", |pair| pair.is_quiet());
        let wish = loop {
            let wish = pair.host.wish(0, &mut pair.chance).expect("free memory");
            if wish.op == TransferOp::Read && wish.sync_message.is_none() {
                break wish;
            }
            pair.host.refused(wish.index);
        };
        let (index, addr) = (wish.index, wish.remote[0].addr);
        let submission = pair.plan(0, wish).expect("registered memory");
        let holds = |span: Span| (span.addr..span.addr + span.len).contains(&addr);
        let memory = pair.host.memories(1).position(|memory| holds(memory.span())).expect("it is read");
        let (key, span) =
            (RegionKey(memory as u32 + 1), pair.host.memories(1).nth(memory).expect("just found").span());
        pair.submit_planned(0, index, submission);
        pair.host.trusts = false; // the reader's memory may get anything, but not with a success

        pair.nodes[1].endpoint.remove_region(key);
        pair.act(1);
        assert!(!pair.nodes[1].endpoint.region_is_busy(key), "nobody writes there");
        baton::fabric::Fabric::deregister(&mut pair.nodes[1].fabric, key);
        pair.host.reuse(1, memory);
        pair.nodes[1].register(span).expect("DRAM");
        // The reader fetches and commits before it hears of any of this.
        for _ in 0..300 {
            pair.poll(0);
            pair.act(0);
        }
        pair.drive("it has ended", |pair| pair.host.live() == 0 && pair.is_quiet());
        let end = &pair.host.transfers()[index].end;
        assert!(matches!(end, Some(Err(TransferError::Remote(_)))), "{end:?}");
    });
}

impl Pair {
    /// Submits what was planned before; it may be refused.
    fn submit_planned(&mut self, n: usize, index: usize, submission: Submission) {
        match self.nodes[n].endpoint.submit(submission, self.now) {
            Ok(id) => self.host.submitted(n, index, id),
            Err(_) => self.host.refused(index),
        }
        self.act(n);
    }

    /// Now and then, a random transfer, which may be refused.
    fn submit_or_not(&mut self) {
        if self.chance.percent(20) {
            let n = self.chance.within(0..2);
            let _refused = self.submit(n);
        }
        self.step();
    }

    /// No batch of node `n` touches this memory of its own, and none of the other writes to it by itself.
    #[track_caller]
    pub fn assert_out_of_use(&self, n: usize, span: Span, native_write: bool) {
        for (owner, node) in self.nodes.iter().enumerate() {
            for (_, op, segments) in node.posted.values() {
                if owner != n && !(native_write && *op == TransferOp::Write) {
                    continue;
                }
                let ours = |segment: &Segment| match (op, owner == n) {
                    (TransferOp::Read, true) | (TransferOp::Write, false) => segment.dst,
                    (TransferOp::Read, false) | (TransferOp::Write, true) => segment.src,
                };
                let inside = |addr| addr >= span.addr && addr - span.addr < span.len;
                let used = segments.iter().find(|segment| inside(ours(segment)));
                assert!(used.is_none(), "node {owner} still moves {used:?} with a {op}");
            }
        }
    }
}
