//! Copies between the nodes of a rig, whichever way the fabric moves bytes.

use std::time::Instant;

use baton::desc::{OpToken, Segment, Span, TransferOp};
use baton::error::FabricError;
use baton::fabric::{Batch, Landing, Posted};

use crate::harness::Harness;
use crate::log::Outcome;
use crate::rig::{DEADLINE, Mem, Rig};

/// The way bytes go from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The source's owner posts a one-sided write.
    Write,
    /// The destination's owner posts a one-sided read.
    Read,
    /// The source's owner posts a frame that the destination's sink places.
    Frame,
}

/// A posted batch of a copy.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    pub poster: usize,
    pub token: OpToken,
    /// Where the frame lands, and its ticket.
    pub landing: Option<(usize, u64)>,
}

impl<H: Harness> Rig<H> {
    /// The ways this fabric moves bytes.
    pub fn routes(&self) -> Vec<Route> {
        let limits = self.limits();
        let routes = [
            (limits.native_write, Route::Write),
            (limits.native_read, Route::Read),
            (limits.framed, Route::Frame),
        ];
        routes.into_iter().filter(|(has, _)| *has).map(|(_, route)| route).collect()
    }

    /// Posts what copies `segments` from node `from` to node `to`, polling where a queue is full.
    pub fn copy(&mut self, route: Route, from: usize, to: usize, segments: &[Segment]) -> Vec<Op> {
        let limits = self.limits();
        let batches = cut(segments, limits.segments_per_batch, limits.bytes_per_batch);
        batches.into_iter().map(|segments| self.copy_batch(route, from, to, segments)).collect()
    }

    fn copy_batch(&mut self, route: Route, from: usize, to: usize, segments: Vec<Segment>) -> Op {
        let (poster, other) = if route == Route::Read { (to, from) } else { (from, to) };
        let batch = self.batch(route, segments);
        let op = self.plan(route, poster, to, &batch);
        self.post_patiently(poster, other, batch);
        op
    }

    /// A batch with a new token; the header of a frame names the token as its ticket.
    pub fn batch(&mut self, route: Route, segments: Vec<Segment>) -> Batch {
        let token = OpToken(self.next_token);
        self.next_token += 1;
        let op = if route == Route::Read { TransferOp::Read } else { TransferOp::Write };
        let header = if route == Route::Frame { token.0.to_le_bytes().to_vec() } else { Vec::new() };
        Batch { token, op, segments, header }
    }

    /// Tells the receiver of a frame where it goes: to the `dst` of its segments.
    pub fn plan(&mut self, route: Route, poster: usize, receiver: usize, batch: &Batch) -> Op {
        let ticket = batch.token.0;
        if route == Route::Frame {
            let spans = batch.segments.iter().map(|s| Span { addr: s.dst, len: s.len }).collect();
            self.nodes[receiver].log.landings.insert(ticket, Landing::Scatter { ticket, spans });
        }
        let landing = (route == Route::Frame).then_some((receiver, ticket));
        Op { poster, token: batch.token, landing }
    }

    /// Posts once. An accepted token is in flight from here on.
    pub fn post(&mut self, poster: usize, to: usize, batch: Batch) -> Result<Posted, FabricError> {
        let peer = self.peer(poster, to);
        let token = batch.token;
        let posted = self.fabric_mut(poster).post(peer, batch);
        if matches!(posted, Ok(Posted::Accepted)) {
            self.nodes[poster].log.in_flight.insert(token, peer);
        }
        posted
    }

    /// Posts, polling while the queue is full.
    pub fn post_patiently(&mut self, poster: usize, to: usize, batch: Batch) {
        let deadline = Instant::now() + DEADLINE;
        let mut next = Some(batch);
        while let Some(batch) = next.take() {
            match self.post(poster, to, batch).expect("a sound batch is accepted") {
                Posted::Accepted => {}
                Posted::Full(batch) => next = Some(batch),
            }
            if next.is_some() {
                assert!(Instant::now() < deadline, "the queue stayed full\n{}", self.state());
                self.poll_all();
            }
        }
    }

    /// How an operation ended, landing included; `None` while it has not.
    pub fn outcome(&self, op: &Op) -> Option<Outcome> {
        let posted = self.nodes[op.poster].log.outcome(op.token)?.clone();
        match op.landing {
            Some((node, ticket)) if posted.is_ok() => self.nodes[node].log.landed.get(&ticket).cloned(),
            _ => Some(posted),
        }
    }

    /// Polls until all operations have ended well.
    pub fn finish(&mut self, ops: &[Op]) {
        self.until("all operations have ended", |rig| ops.iter().all(|op| rig.outcome(op).is_some()));
        for op in ops {
            assert_eq!(self.outcome(op), Some(Ok(())), "{op:?}");
        }
    }

    /// Copies, waits for the end and compares the whole destination, gaps and guards included.
    pub fn copy_and_check(&mut self, route: Route, from: Mem, to: Mem, segments: &[Segment]) {
        let wanted = self.expected(from, to, segments);
        let before = self.snapshot(from);
        let ops = self.copy(route, from.node, to.node, segments);
        self.finish(&ops);
        self.snapshot(to).assert_same(&wanted, &format!("{route:?}: destination"));
        self.snapshot(from).assert_same(&before, &format!("{route:?}: source"));
    }
}

/// `count` segments of `len` bytes, each followed by a gap as long, from the start of `from` to that of `to`.
pub fn strided(from: Mem, to: Mem, count: usize, len: u64) -> Vec<Segment> {
    let at = |index: usize| index as u64 * 2 * len;
    (0..count)
        .map(|index| Segment { src: from.span.addr + at(index), dst: to.span.addr + at(index), len })
        .collect()
}

/// One segment from the start of `from` to that of `to`.
pub fn whole(from: Mem, to: Mem, len: u64) -> Segment {
    Segment { src: from.span.addr, dst: to.span.addr, len }
}

/// Cuts segments into batches within the limits.
fn cut(segments: &[Segment], segments_per_batch: usize, bytes_per_batch: u64) -> Vec<Vec<Segment>> {
    let mut batches = vec![Vec::new()];
    let mut bytes = 0;
    for segment in segments {
        let mut rest = *segment;
        while rest.len > 0 {
            if batches.last().is_some_and(|last| last.len() == segments_per_batch) || bytes == bytes_per_batch
            {
                batches.push(Vec::new());
                bytes = 0;
            }
            let len = rest.len.min(bytes_per_batch - bytes);
            batches.last_mut().expect("never empty").push(Segment { len, ..rest });
            bytes += len;
            rest = Segment { src: rest.src + len, dst: rest.dst + len, len: rest.len - len };
        }
    }
    batches
}
