//! How much one peer may be asked for, on both sides.

use super::tests::{Hostile, LANE, segment};
use super::*;
use crate::desc::{Descriptor, MemoryKind, Region, Span, TransferId, TransferOp};
use crate::proto::plan::{MAX_DESCRIPTORS, Party, PlanCaps, Side, plan};
use crate::proto::section::AnnouncedRegion;
use crate::proto::wire::LENGTH_BYTES;

const WIDE: LaneSpec = LaneSpec { segments_per_chunk: 2048, bytes_per_chunk: 1 << 30, ..LANE };
const CHUNKS: u32 = (MAX_DESCRIPTORS / WIDE.segments_per_chunk) as u32;

/// Takes what is said until nothing more is; the segments of all PULLs in it, and whether a COMMIT was.
fn asked(peer: &mut Hostile) -> (usize, bool) {
    let (mut segments, mut committed) = (0, false);
    loop {
        peer.actions();
        let output = peer.endpoint.poll_output(peer.key, peer.now);
        if output.is_empty() {
            return (segments, committed);
        }
        let mut rest = &output[..];
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
            let (frame, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            match Frame::decode(frame).expect("a frame of ours").1 {
                Frame::Pull { segments: asked, .. } => segments += asked.len(),
                Frame::Commit(_) => committed = true,
                _ => {}
            }
            rest = after;
        }
    }
}

/// Submits a write of as many descriptors as there may be.
fn submit_longest(peer: &mut Hostile) -> TransferId {
    let table = peer.endpoint.regions();
    let descs: Vec<_> = (0..MAX_DESCRIPTORS as u64)
        .map(|at| Descriptor { addr: (1 << 32) + 128 * at, len: 64, device: 0 })
        .collect();
    let side = |party| Side { party, kind: MemoryKind::Dram, descs: &descs, regions: &*table };
    let caps =
        PlanCaps { segments_per_chunk: WIDE.segments_per_chunk, bytes_per_chunk: WIDE.bytes_per_chunk };
    let plan = plan(side(Party::Local), side(Party::Remote), caps).expect("a plan");
    let (op, regions) = (TransferOp::Write, vec![RegionKey(2)]);
    let submission =
        Submission { peer: "them".into(), op, lane: 0, plan, gathered: None, regions, sync_message: None };
    peer.endpoint.submit(submission, peer.now).expect("it is taken")
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn the_longest_transfers_wait_for_each_other_and_all_are_asked_for() {
    let mut peer = Hostile::up_over(WIDE);
    let span = Span { addr: 1 << 32, len: 1 << 30 };
    let region = Region { key: RegionKey(2), kind: MemoryKind::Dram, device: 0, span };
    peer.endpoint.add_region(AnnouncedRegion { region, keys: Vec::new() }).expect("a region");
    peer.endpoint.mark_loaded(peer.key);
    let [first, second] = [(); 2].map(|()| submit_longest(&mut peer));
    assert_eq!(asked(&mut peer), (SEGMENTS_ASKED_MAX, true), "the first, and nothing of the second");
    peer.say(&Frame::Progress { id: first, done: CHUNKS / 2 });
    assert_eq!(asked(&mut peer), (MAX_DESCRIPTORS / 2, false), "as much as is done");
    // What is lost is asked after; the answer makes room as well.
    let missing = crate::proto::transfer::Runs::default();
    let state = |id, done| {
        let (unheard, missing) = (missing.clone(), missing.clone());
        let standing = crate::proto::wire::Standing::Receiving;
        Frame::State(crate::proto::wire::State { id, standing, committed: true, done, unheard, missing })
    };
    peer.say(&state(first, CHUNKS));
    assert_eq!(asked(&mut peer), (MAX_DESCRIPTORS / 2, true));
    peer.endpoint.cancel(second);
    submit_longest(&mut peer);
    assert_eq!(asked(&mut peer), (MAX_DESCRIPTORS, true), "what is broken off waits nowhere");
}

#[test]
#[cfg_attr(miri, ignore = "too many for an interpreter")]
fn a_peer_that_asks_for_more_than_may_wait_loses_that_transfer_alone() {
    let mut peer = Hostile::up_over(WIDE);
    let pull = |id, chunk, count| Frame::Pull {
        id: TransferId(id),
        chunk,
        heard: 0,
        segments: vec![segment(0x10000, 1); count].into(),
    };
    // Those on the lane do not wait any more.
    for chunk in 0..WIDE.batches_in_flight as u32 {
        peer.say(&pull(1, chunk, 1));
    }
    assert_eq!(peer.actions().len(), WIDE.batches_in_flight);
    let full = (SEGMENTS_WAITING_MAX / WIDE.segments_per_chunk) as u32;
    for chunk in 0..full {
        peer.say(&pull(2, chunk, WIDE.segments_per_chunk));
    }
    assert!(peer.answers().is_empty(), "as many may wait");
    peer.say(&pull(3, 0, 1));
    let said = peer.answers();
    assert!(said.len() == 1 && said[0].starts_with("Fail { id: TransferId(3)"), "{said:?}");
    peer.say(&Frame::Abort { id: TransferId(2), issued: 0 });
    peer.say(&pull(4, 0, 1));
    let said = peer.answers();
    assert!(said.len() == 1 && said[0].starts_with("Aborted { id: TransferId(2)"), "room again: {said:?}");
}
