//! `cuda` between two processes: memory of the other one is mapped. Both have a GPU: the same one, or each the stand-in for
//! one.

use baton::desc::{MemoryKind, Span};
use baton::error::FabricErrorKind;
use baton::fabric::cuda::CudaFabric;
use baton::fabric::{Fabric, Region};

use crate::gpu;
use crate::processes::{PEER, Pair, Setting, assert_kind, obey, reads_scattered_memory};

const CUDA: Setting = Setting { open, kind: MemoryKind::Vram, len: 4 << 20, other: "cuda::processes::owner" };

/// Not a test: the second process.
#[test]
#[ignore = "started by the other tests of this module"]
fn owner() {
    obey(&CUDA);
}

fn open() -> Box<dyn Fabric> {
    let Ok(cuda) = gpu::cuda() else { panic!("the stand-in is always there") };
    Box::new(CudaFabric::open(cuda).expect("a driver is all it needs"))
}

#[test]
fn reads_scattered_memory_of_another_process() {
    reads_scattered_memory(&CUDA);
}

#[test]
fn one_batch_reads_several_allocations() {
    let mut pair = Pair::connected(&CUDA);
    let regions: Vec<Region> = (0..5).map(|_| pair.import()).collect();
    let segment = |at: u64| {
        let far = regions[at as usize % regions.len()];
        (far, pair.segment(&far, at * 4096, at * 8192, 4096))
    };
    let segments = (0..500).map(segment).collect();
    pair.copy_and_check(segments);
}

#[test]
fn what_was_withdrawn_is_not_read_any_more() {
    let mut pair = Pair::connected(&CUDA);
    let (first, second) = (pair.import(), pair.import());
    pair.copy_and_check(vec![(first, pair.segment(&first, 0, 0, 4096))]);
    pair.fabric.import(PEER, &first, None).expect("withdrawing is no error");
    let late = pair.fabric.post(PEER, pair.batch(vec![pair.segment(&first, 0, 0, 4096)]));
    assert_kind(&late.expect_err("it was withdrawn"), FabricErrorKind::InvalidRegion);
    pair.copy_and_check(vec![(second, pair.segment(&second, 0, 0, 4096))]);
}

#[test]
fn killed_peer_fails_what_comes_after() {
    let mut pair = Pair::connected(&CUDA);
    let far = pair.import();
    pair.copy_and_check(vec![(far, pair.segment(&far, 0, 0, 4096))]);
    pair.peer.kill();
    pair.until("the peer is lost", |log| log.lost.contains_key(&PEER));
    assert_kind(&pair.log.lost[&PEER], FabricErrorKind::PeerLost);
    let late = pair.fabric.post(PEER, pair.batch(vec![pair.segment(&far, 0, 0, 1)]));
    assert_kind(&late.expect_err("the peer is lost"), FabricErrorKind::PeerLost);
}

#[test]
fn a_handle_that_is_none_is_refused_and_one_that_lies_fails_its_batch() {
    let mut pair = Pair::connected(&CUDA);
    let (far, mut key_bytes) = pair.peer.share(&CUDA);
    let noise = pair.fabric.import(PEER, &far, Some(&[0xA5; 40]));
    assert_kind(&noise.expect_err("noise"), FabricErrorKind::InvalidRegion);
    let beyond = Region { span: Span { len: 2 * far.span.len, ..far.span }, ..far };
    let wide = pair.fabric.import(PEER, &beyond, Some(&key_bytes));
    assert_kind(&wide.expect_err("more than the allocation"), FabricErrorKind::InvalidRegion);
    let last = key_bytes.len() - 64; // the driver's handle
    key_bytes[last..].fill(0xA5);
    pair.fabric.import(PEER, &far, Some(&key_bytes)).expect("it looks like one");
    let token = pair.post(vec![pair.segment(&far, 0, 0, 4096)]);
    pair.until("the batch has ended", |log| log.outcome(token).is_some());
    let error =
        pair.log.outcome(token).cloned().expect("it ended").expect_err("the driver refuses the handle");
    assert!(error.to_string().contains("cuIpcOpenMemHandle"), "{error}");
}
