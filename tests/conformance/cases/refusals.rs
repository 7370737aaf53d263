//! What a fabric must not do for a caller who is wrong.

use baton::desc::{Segment, TransferOp};
use baton::error::{FabricError, FabricErrorKind};
use baton::fabric::{Batch, Posted};

use crate::copy::{Route, strided, whole};
use crate::harness::Harness;
use crate::rig::{Mem, Rig};

/// Posts a batch that has to be refused, at once or by its completion, and returns why.
fn refusal<H: Harness>(rig: &mut Rig<H>, poster: usize, to: usize, batch: Batch) -> FabricError {
    let token = batch.token;
    match rig.post(poster, to, batch) {
        Err(error) => return error,
        Ok(Posted::Full(_)) => panic!("an empty queue is full"),
        Ok(Posted::Accepted) => {}
    }
    rig.until("the bad batch is refused", |rig| rig.nodes[poster].log.outcome(token).is_some());
    let outcome = rig.nodes[poster].log.outcome(token).cloned();
    outcome.expect("it completed").expect_err("a bad batch must not succeed")
}

/// Memory at both nodes: the poster's, which is the local side of `route`, and the other's.
fn sides<H: Harness>(rig: &mut Rig<H>) -> (Mem, Mem) {
    (rig.memory(0, 65_536), rig.memory(1, 65_536))
}

/// A segment of node 0's batch: `local` is an address there, `remote` one at node 1.
fn segment(route: Route, local: u64, remote: u64, len: u64) -> Segment {
    match route {
        Route::Read => Segment { src: remote, dst: local, len },
        Route::Write | Route::Frame => Segment { src: local, dst: remote, len },
    }
}

/// Node 0 posts segments that must be refused as `InvalidRegion`, and neither side's memory changes.
fn refused_untouched<H: Harness>(rig: &mut Rig<H>, route: Route, mems: [Mem; 2], segments: Vec<Segment>) {
    let before = mems.map(|mem| rig.snapshot(mem));
    let what = format!("{route:?} of {:?}", segments.last());
    let batch = rig.batch(route, segments);
    let error = refusal(rig, 0, 1, batch);
    assert_eq!(error.kind, FabricErrorKind::InvalidRegion, "{what}: {error}");
    rig.settle();
    for (mem, before) in mems.iter().zip(&before) {
        rig.snapshot(*mem).assert_same(before, &what);
    }
    assert!(rig.nodes[1].log.arrived.is_empty(), "{what}: a refused frame arrived");
}

pub fn local_address_outside_every_region<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (local, remote) = sides(&mut rig);
    let (start, end) = (local.span.addr, local.span.addr + local.span.len);
    for route in rig.routes() {
        for (addr, len) in
            [(start - 1, 1), (start - 8, 16), (end, 1), (end - 8, 16), (64, 64), (start, 65_537)]
        {
            let bad = segment(route, addr, remote.span.addr, len);
            refused_untouched(&mut rig, route, [local, remote], vec![bad]);
        }
    }
}

pub fn one_bad_segment_spoils_the_batch<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (local, remote) = sides(&mut rig);
    for route in rig.routes() {
        let at = |offset: u64| segment(route, local.span.addr + offset, remote.span.addr + offset, 4096);
        let mut segments: Vec<Segment> = (0..3).map(|index| at(index * 8192)).collect();
        segments.push(at(65_536));
        refused_untouched(&mut rig, route, [local, remote], segments);
    }
}

pub fn local_address_that_wraps<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (local, remote) = sides(&mut rig);
    for route in rig.routes() {
        for (addr, len) in [(u64::MAX - 10, 100), (u64::MAX, 1), (local.span.addr, u64::MAX - 100)] {
            // A length beyond the batch limit is the caller's fault in another way; only wrapping is shown here.
            let bad = segment(route, addr, remote.span.addr, len.min(rig.limits().bytes_per_batch));
            refused_untouched(&mut rig, route, [local, remote], vec![bad]);
        }
    }
}

pub fn region_after_deregister<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (local, remote) = sides(&mut rig);
    for route in rig.routes() {
        let good = segment(route, local.span.addr, remote.span.addr, 4096);
        let (from, to) = if route == Route::Read { (remote, local) } else { (local, remote) };
        rig.copy_and_check(route, from, to, &[good]);
    }
    rig.withdraw(local);
    let region = rig.region_of(local);
    rig.fabric_mut(0).deregister(region.key);
    rig.nodes[1].log.arrived.clear();
    for route in rig.routes() {
        let gone = segment(route, local.span.addr, remote.span.addr, 4096);
        refused_untouched(&mut rig, route, [local, remote], vec![gone]);
    }
}

/// The agent never sends a segment without bytes. A fabric that gets one all the same may refuse the batch or
/// skip the segment; it may not hang, or touch anything that the batch does not name.
pub fn segment_without_bytes<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (from, to) = sides(&mut rig);
    for route in rig.routes() {
        let mut segments = strided(from, to, 3, 4096);
        segments[1].len = 0;
        let before = rig.snapshot(to);
        let wanted = rig.expected(from, to, &segments);
        let (poster, other) = if route == Route::Read { (1, 0) } else { (0, 1) };
        let batch = rig.batch(route, segments);
        let op = rig.plan(route, poster, 1, &batch);
        let ended = match rig.post(poster, other, batch) {
            Err(error) => Err(error),
            Ok(posted) => {
                assert_eq!(posted, Posted::Accepted);
                rig.until("the batch with an empty segment ends", |rig| rig.outcome(&op).is_some());
                rig.outcome(&op).expect("it ended")
            }
        };
        let wanted = if ended.is_ok() { wanted } else { before };
        rig.settle();
        rig.snapshot(to).assert_same(&wanted, &format!("{route:?} ended {ended:?}"));
        // And the link serves on.
        rig.copy_and_check(route, from, to, &[whole(from, to, 65_536)]);
    }
}

pub fn operation_the_limits_exclude<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (local, remote) = sides(&mut rig);
    let limits = rig.limits();
    let excluded = [
        (!limits.native_read, Route::Read, TransferOp::Read),
        (!limits.native_write && !limits.framed, Route::Write, TransferOp::Write),
    ];
    for (_, route, op) in excluded.into_iter().filter(|(excluded, ..)| *excluded) {
        let batch = rig.batch(route, vec![segment(route, local.span.addr, remote.span.addr, 4096)]);
        let error = refusal(&mut rig, 0, 1, batch);
        assert_eq!(error.kind, FabricErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(&op.to_string()), "names {op}: {error}");
    }
}

pub fn unknown_peer<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (local, remote) = sides(&mut rig);
    for route in rig.routes() {
        let batch = rig.batch(route, vec![segment(route, local.span.addr, remote.span.addr, 4096)]);
        let stranger = baton::desc::PeerKey(4_000_000);
        let error = rig.fabric_mut(0).post(stranger, batch).expect_err("nobody has this key");
        assert_eq!(error.kind, FabricErrorKind::Unreachable, "{error}");
    }
}

/// Fabrics with region keys: once the peer's region is withdrawn, nothing can be posted to it.
pub fn withdrawn_remote_region<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (local, remote) = sides(&mut rig);
    if rig.key_bytes(remote).is_empty() {
        return;
    }
    rig.withdraw(remote);
    for route in rig.routes() {
        let bad = segment(route, local.span.addr, remote.span.addr, 4096);
        refused_untouched(&mut rig, route, [local, remote], vec![bad]);
    }
}
