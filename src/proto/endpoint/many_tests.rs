//! Many transfers to many peers at once: everybody's share, whose turn it is, and what is kept meanwhile.

use std::time::Instant;

use super::tests::{Hostile, LANE, section};
use super::*;
use crate::desc::{Descriptor, TransferOp};
use crate::proto::plan::{Party, PlanCaps, Side, plan};
use crate::proto::wire::{Hello, LENGTH_BYTES};

const PEERS: u8 = 8;
const TRANSFERS: u64 = 8;
/// The peer places what we send.
const FRAMED: LaneSpec = LaneSpec { native_read: false, framed: true, ..LANE };
/// The peer pulls as fast as it is told what.
const PULL: LaneSpec = LANE;

/// An endpoint and the peers that it has accepted, all up and loaded.
struct Crowd {
    endpoint: Endpoint,
    keys: Vec<PeerKey>,
    now: Instant,
}

impl Crowd {
    fn of(peers: u8, lane: LaneSpec) -> Self {
        let Hostile { endpoint, key, now } = Hostile::silent_over(lane);
        let mut crowd = Self { endpoint, keys: vec![key], now };
        for _ in 1..peers {
            crowd.keys.push(crowd.endpoint.open_accepted(now).expect("there is room"));
        }
        for n in 0..peers {
            let mut theirs = Vec::new();
            section(n + 2).encode(&mut theirs);
            let hello = Hello { link_id: [n; 16], expected: [1; 16], name: &name(n), section: &theirs };
            crowd.say(n, &Frame::Hello(hello));
            let key = crowd.key(n);
            crowd.endpoint.handle_lane(key, lane.name, Ok(()));
            crowd.say(n, &Frame::Ready { lanes: vec![lane.name], again: false });
            crowd.endpoint.mark_loaded(key);
        }
        crowd.actions();
        (0..peers).for_each(|n| drop(crowd.frames(n)));
        crowd
    }

    fn key(&self, n: u8) -> PeerKey {
        self.keys[usize::from(n)]
    }

    fn say(&mut self, n: u8, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.encode(u64::from_le_bytes([n; 8]), &mut bytes);
        self.endpoint.handle_frame(self.key(n), &bytes[LENGTH_BYTES..], self.now);
    }

    /// Submits a write of so many scattered segments.
    fn submit(&mut self, n: u8, segments: u64, len: u64) -> TransferId {
        let table = self.endpoint.regions();
        let descs: Vec<_> =
            (0..segments).map(|at| Descriptor { addr: 0x10000 + 2 * len * at, len, device: 0 }).collect();
        let side =
            |party| Side { party, kind: crate::desc::MemoryKind::Dram, descs: &descs, regions: &*table };
        let lane = self.endpoint.lanes()[0];
        let caps =
            PlanCaps { segments_per_chunk: lane.segments_per_chunk, bytes_per_chunk: lane.bytes_per_chunk };
        let plan = plan(side(Party::Local), side(Party::Remote), caps).expect("a plan");
        let (op, regions) = (TransferOp::Write, vec![RegionKey(1)]);
        let submission =
            Submission { peer: name(n), op, lane: 0, plan, gathered: None, regions, sync_message: None };
        self.endpoint.submit(submission, self.now).expect("it is taken")
    }

    /// A write of 16 chunks, 256 KiB.
    fn submit_large(&mut self, n: u8) -> TransferId {
        self.submit(n, 128, 2048)
    }

    /// A write of one chunk, 512 bytes.
    fn submit_small(&mut self, n: u8) -> TransferId {
        self.submit(n, 8, 64)
    }

    /// What the endpoint wants done, but for taking note.
    fn actions(&mut self) -> Vec<Action> {
        let all = std::iter::from_fn(|| self.endpoint.poll_action(self.now));
        all.filter(|action| !matches!(action, Action::Committed { .. })).collect()
    }

    /// The batches among that, oldest first: the peer, the transfer, and what completes them.
    fn posts(&mut self) -> Vec<(u8, TransferId, OpToken)> {
        let posts = self.actions().into_iter().filter_map(|action| match action {
            Action::Post { peer, token, .. } => Some((peer, token)),
            _ => None,
        });
        let number = |peer| self.keys.iter().position(|key| *key == peer).expect("one of them") as u8;
        posts.map(|(peer, token)| (number(peer), self.endpoint.flights[&token.0].id, token)).collect()
    }

    fn complete(&mut self, token: OpToken) {
        self.endpoint.handle_completed(token, Ok(()), self.now);
    }

    /// Takes what waits for a peer's stream.
    fn frames(&mut self, n: u8) -> Vec<u8> {
        self.endpoint.poll_output(self.key(n), self.now)
    }

    fn output_bytes(&self, n: u8) -> usize {
        self.endpoint.peer(self.key(n)).map_or(0, Peer::output_bytes)
    }
}

fn name(n: u8) -> String {
    format!("peer-{n}")
}

/// The PULLs in this output, and the COMMITs: by their transfer.
fn said(output: &[u8]) -> (Vec<TransferId>, Vec<TransferId>) {
    let (mut pulls, mut commits, mut rest) = (Vec::new(), Vec::new(), output);
    while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let (frame, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        match Frame::decode(frame).expect("a frame of ours").1 {
            Frame::Pull { id, .. } => pulls.push(id),
            Frame::Commit(commit) => commits.push(commit.id),
            _ => {}
        }
        rest = after;
    }
    (pulls, commits)
}

/// Whoever submits first has no more on its way than anybody else, and room that a peer makes is that peer's.
#[test]
fn peers_have_equal_shares_of_what_is_on_its_way_and_none_waits_for_another() {
    let mut crowd = Crowd::of(PEERS, FRAMED);
    let mut ids = vec![Vec::new(); usize::from(PEERS)];
    for n in 0..PEERS {
        ids[usize::from(n)].extend((0..TRANSFERS).map(|_| crowd.submit_large(n)));
    }
    let mut on_their_way: VecDeque<_> = crowd.posts().into();
    let mut posted = vec![Vec::new(); usize::from(PEERS)];
    on_their_way.iter().for_each(|(n, id, _)| posted[usize::from(*n)].push(*id));
    assert!(posted.iter().all(|ids| ids.len() == FRAMED.batches_in_flight), "{posted:?}");
    while let Some((n, _, token)) = on_their_way.pop_front() {
        crowd.complete(token);
        let next = crowd.posts();
        assert!(next.len() <= 1 && next.iter().all(|(next, ..)| *next == n), "the room was {n}'s");
        next.iter().for_each(|(n, id, _)| posted[usize::from(*n)].push(*id));
        on_their_way.extend(next);
        let counters = crowd.endpoint.counters();
        assert_eq!(counters.posted, on_their_way.len());
        let counts = posted.iter().map(Vec::len);
        let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
        assert!(most - least <= FRAMED.batches_in_flight, "{least} to {most} chunks");
    }
    for (ids, posted) in ids.iter().zip(&posted) {
        let in_order: Vec<_> = ids.iter().flat_map(|id| [*id; 16]).collect();
        assert_eq!(*posted, in_order, "large ones go in the order in which they were submitted");
    }
}

/// Room on a lane comes chunk by chunk. A supply of small transfers that never ends must not be the end of a large one.
#[test]
fn small_ones_overtake_large_ones_and_do_not_shut_them_out() {
    let mut crowd = Crowd::of(1, FRAMED);
    let large = [(); 2].map(|()| crowd.submit_large(0));
    let mut on_their_way: VecDeque<_> = crowd.posts().into();
    assert_eq!(on_their_way.len(), FRAMED.batches_in_flight);
    (0..3).for_each(|_| _ = crowd.submit_small(0));
    let mut order = Vec::new();
    while let Some((_, _, token)) = on_their_way.pop_front() {
        crowd.complete(token);
        if order.len() < 24 {
            crowd.submit_small(0); // as many more as there is room for
        }
        let next = crowd.posts();
        order.extend(next.iter().map(|(_, id, _)| large.contains(id)));
        on_their_way.extend(next);
    }
    assert_eq!(order[..24], [false, true].repeat(12), "in turns, a small one first");
    assert_eq!(order.iter().filter(|is_large| **is_large).count(), 32 - FRAMED.batches_in_flight);
}

/// What is to be said waits for its own peer's stream alone, and only so much of it.
#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn what_waits_for_a_stream_is_bounded_for_each_peer_by_itself() {
    const CHUNKS: usize = 400;
    let mut crowd = Crowd::of(PEERS, PULL);
    let ids: Vec<Vec<_>> = (0..PEERS)
        .map(|n| (0..TRANSFERS).map(|_| crowd.submit(n, 8 * CHUNKS as u64, 128)).collect())
        .collect();
    let is_bounded = |crowd: &Crowd| {
        // A chunk's request is shorter than a KiB; beside it there may be a COMMIT for each transfer.
        (0..PEERS).all(|n| crowd.output_bytes(n) < OUTPUT_SOFT_LIMIT_BYTES + 1024 + 128 * TRANSFERS as usize)
    };
    assert!(crowd.actions().is_empty() && is_bounded(&crowd));
    assert!((0..PEERS).all(|n| crowd.output_bytes(n) >= OUTPUT_SOFT_LIMIT_BYTES), "and as much as there may");
    // One stream takes all, the others nothing.
    let (mut pulls, mut commits) = (Vec::new(), Vec::new());
    while crowd.output_bytes(0) > 0 {
        let (asked, committed) = said(&crowd.frames(0));
        pulls.extend(asked);
        commits.extend(committed);
        assert!(crowd.actions().is_empty() && is_bounded(&crowd));
    }
    assert_eq!(commits, ids[0], "in the order in which they were submitted");
    assert_eq!(pulls, ids[0].iter().flat_map(|id| [*id; CHUNKS]).collect::<Vec<_>>());
    assert!(
        (1..PEERS).all(|n| crowd.output_bytes(n) >= OUTPUT_SOFT_LIMIT_BYTES),
        "they wait where they were"
    );
    for n in 1..PEERS {
        let mut asked = 0;
        while crowd.output_bytes(n) > 0 {
            asked += said(&crowd.frames(n)).0.len();
            assert!(crowd.actions().is_empty());
        }
        assert_eq!(asked, CHUNKS * TRANSFERS as usize);
    }
}
