//! The suite on streams that carry GPU memory, at one end or at both.

use std::time::{Duration, Instant};

use baton::desc::{MemoryKind, Segment, Span};
use baton::fabric::stream::StreamFabric;
use baton::fabric::{Fabric, Link, Posted};
use fake_cuda::{all_in_a_process, in_a_process};

use super::{Configured, Sealed, Tcp4, Unix};
use crate::cases::basics::readable_nodes;
use crate::copy::{Route, strided, whole};
use crate::gpu;
use crate::harness::{Harness, Skip};
use crate::rig::{DEADLINE, Rig};

/// `INNER`'s streams, with GPU memory at nodes of an even number, of an odd one.
struct Vram<INNER, const EVEN: bool, const ODD: bool>(INNER);

impl<INNER: Harness + Configured, const EVEN: bool, const ODD: bool> Harness for Vram<INNER, EVEN, ODD> {
    const KINDS: [MemoryKind; 2] = [kind(EVEN), kind(ODD)];

    fn set_up() -> Result<Self, Skip> {
        gpu::cuda()?;
        INNER::set_up().map(Self)
    }

    fn open(&self) -> Box<dyn Fabric> {
        let cuda = gpu::cuda().ok().expect("the set-up has seen that there is a driver");
        Box::new(StreamFabric::open(INNER::config(), Some(cuda)).expect("a stream opens on loopback"))
    }

    fn link(&self, target: &dyn Fabric, link_id: [u8; 16]) -> Link {
        self.0.link(target, link_id)
    }

    fn bad_links(&self, good: &Link) -> Vec<(&'static str, Link)> {
        self.0.bad_links(good)
    }
}

const fn kind(is_vram: bool) -> MemoryKind {
    if is_vram { MemoryKind::Vram } else { MemoryKind::Dram }
}

conformance!(unix, Vram<Unix, true, true>);
conformance!(unix_to_dram, Vram<Unix, true, false>);
conformance!(unix_from_dram, Vram<Unix, false, true>);
conformance!(unix_dram, Vram<Unix, false, false>);
conformance!(tcp, Vram<Tcp4, true, true>);
conformance!(tcp_to_dram, Vram<Tcp4, true, false>);
conformance!(sealed_unix, Sealed<Vram<Unix, true, true>>);
conformance!(sealed_tcp_from_dram, Sealed<Vram<Tcp4, false, true>>);

/// GPU memory at both ends, over a Unix socket.
type Gpu = Vram<Unix, true, true>;

/// Whatever waits for a device has to wait: copies are under way when links end, when others are posted, when slots run
/// out.
#[test]
fn the_suite_passes_on_a_slow_device() {
    if fake_cuda::serves("a slow device") {
        let slow = [("FAKE_CUDA_DELAY_US", "300")];
        all_in_a_process("stream::gpu::unix::", &slow);
        all_in_a_process("stream::gpu::sealed_unix::", &slow);
    }
}

/// One batch of host memory and GPU memory in turn, at either end, of several regions.
#[test]
fn one_batch_mixes_kinds() {
    let Some(mut rig) = Rig::<Vram<Unix, true, false>>::pair() else { return };
    mixed_batch(&mut rig);
    let Some(mut rig) = Rig::<Sealed<Vram<Unix, true, false>>>::pair() else { return };
    mixed_batch(&mut rig);
}

fn mixed_batch<H: Harness>(rig: &mut Rig<H>) {
    use MemoryKind::{Dram, Vram};
    let len = 256 << 10;
    let from = [Vram, Dram, Vram].map(|kind| rig.memory_of(0, kind, len));
    let to = [Dram, Vram, Vram].map(|kind| rig.memory_of(1, kind, len));
    let mut wanted = to.map(|mem| rig.snapshot(mem));
    let mut segments = Vec::new();
    for at in 0..90 {
        let (source, target) = (at % 3, (at / 3) % 3);
        let (offset, len) = (at as u64 * 2500, 1 + (at as u64 * 97) % 2300);
        let segment =
            Segment { src: from[source].span.addr + offset, dst: to[target].span.addr + offset, len };
        let bytes = rig.snapshot(from[source]);
        wanted[target].put(segment.dst, bytes.at(Span { addr: segment.src, len }));
        segments.push(segment);
    }
    let ops = rig.copy(Route::Frame, 0, 1, &segments);
    assert_eq!(ops.len(), 1, "one batch");
    rig.finish(&ops);
    for (mem, wanted) in to.iter().zip(&wanted) {
        rig.snapshot(*mem).assert_same(wanted, "destination");
    }
}

/// Peers that do not read keep slots, and those who wait for one go on when a link ends.
#[test]
fn slots_run_out_and_come_back() {
    let Some(mut rig) = Rig::<Gpu>::star(7) else { return };
    let len = 1 << 20;
    let from = rig.memory(0, len);
    let to: Vec<_> = (1..7).map(|node| rig.memory(node, len)).collect();
    // Four links hold all eight slots: more is posted to each than a socket takes.
    let mut ops = Vec::new();
    for (at, mem) in to.iter().enumerate().take(5) {
        let posts = if at < 4 { 8 } else { 1 };
        for _ in 0..posts {
            let batch = rig.batch(Route::Frame, vec![whole(from, *mem, len as u64)]);
            let op = rig.plan(Route::Frame, 0, at + 1, &batch);
            assert_eq!(rig.post(0, at + 1, batch), Ok(Posted::Accepted));
            ops.push((at + 1, op));
        }
    }
    let (_, fifth) = *ops.last().expect("posted");
    rig.settle_some(&[0, 5]);
    assert_eq!(rig.outcome(&fifth), None, "there was a slot for a fifth link\n{}", rig.state());
    let deadline = Instant::now() + DEADLINE;
    while !readable_nodes(&rig, 0..1).is_empty() {
        assert!(Instant::now() < deadline, "its handle is always readable\n{}", rig.state());
        rig.settle_some(&[0, 5]);
    }
    rig.disconnect(0, 1);
    assert!(!readable_nodes(&rig, 0..1).is_empty(), "nobody polls for the one who waits");
    let deadline = Instant::now() + DEADLINE;
    while rig.outcome(&fifth).is_none() {
        assert!(Instant::now() < deadline, "a link has ended, and its slots are not used\n{}", rig.state());
        rig.settle_some(&[0, 5]);
    }
    let others: Vec<_> = ops.iter().filter(|(node, _)| *node != 1).map(|(_, op)| *op).collect();
    rig.finish(&others);
    for mem in &to[1..5] {
        let wanted = rig.expected(from, *mem, &[whole(from, *mem, len as u64)]);
        rig.snapshot(*mem).assert_same(&wanted, "destination");
    }
}

/// More links send GPU memory to one than it has slots, in the clear and sealed, a little at a time.
#[test]
fn many_links_share_the_slots_of_a_receiver() {
    shared_slots::<Gpu>();
    shared_slots::<Sealed<Gpu>>();
}

fn shared_slots<H: Harness>() {
    let Some(mut rig) = Rig::<H>::star(13) else { return };
    rig.poll_budget_bytes = 64 << 10;
    let len = 3 << 20;
    let pairs: Vec<_> = (1..13).map(|node| (rig.memory(node, len), rig.memory(0, len))).collect();
    let mut ops = Vec::new();
    for (from, to) in &pairs {
        ops.extend(rig.copy(Route::Frame, from.node, 0, &[whole(*from, *to, len as u64)]));
    }
    rig.finish(&ops);
    for (from, to) in pairs {
        let wanted = rig.expected(from, to, &[whole(from, to, len as u64)]);
        rig.snapshot(to).assert_same(&wanted, "destination");
    }
}

/// A launch that fails, for one that sends or receives GPU memory: the batch fails and says why, whatever follows that
/// needs the device fails likewise, and host memory is carried on over the same link.
#[test]
fn a_failing_device_fails_its_batches_alone() {
    if fake_cuda::serves("a failing device") {
        for code in ["1", "719"] {
            let failure = format!("cuLaunchKernel:3+:{code}");
            let settings = [("FAKE_CUDA_FAIL", failure.as_str())];
            for test in ["failing_source", "failing_source_of_a_sealed_link", "failing_destination"] {
                in_a_process(&format!("stream::gpu::{test}"), &settings);
            }
        }
    }
}

#[test]
#[ignore = "started by another test"]
fn failing_source() {
    failing_device::<Vram<Unix, true, false>>();
}

#[test]
#[ignore = "started by another test"]
fn failing_source_of_a_sealed_link() {
    failing_device::<Sealed<Vram<Unix, true, false>>>();
}

#[test]
#[ignore = "started by another test"]
fn failing_destination() {
    failing_device::<Vram<Unix, false, true>>();
}

fn failing_device<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (from, to) = (rig.memory(0, 65_536), rig.memory(1, 65_536));
    let host = [0, 1].map(|node| rig.memory_of(node, MemoryKind::Dram, 65_536));
    let mut failed = 0;
    for _ in 0..8 {
        for (from, to) in [(from, to), (host[0], host[1])] {
            let op = rig.copy(Route::Frame, 0, 1, &strided(from, to, 8, 4096))[0];
            rig.until("the batch has ended", |rig| rig.outcome(&op).is_some());
            match rig.outcome(&op) {
                Some(Err(error)) if to.span != host[1].span => {
                    let text = error.to_string();
                    assert!(text.contains("cuLaunchKernel on device 0"), "{text}");
                    failed += 1;
                }
                outcome => assert_eq!(outcome, Some(Ok(())), "{from:?} to {to:?}"),
            }
        }
    }
    assert!(failed >= 6, "{failed} batches failed");
    let wanted = rig.expected(host[0], host[1], &strided(host[0], host[1], 8, 4096));
    rig.snapshot(host[1]).assert_same(&wanted, "host memory");
    assert!(rig.nodes.iter().all(|node| node.log.lost.is_empty()), "{}", rig.state());
}

/// A device that never calls back: what it has done is noticed all the same by whoever polls when the handle says so.
#[test]
fn a_device_that_does_not_call_is_looked_at() {
    if fake_cuda::serves("a device that does not call") {
        let settings = [("FAKE_CUDA_FAIL", "cuLaunchHostFunc:1+:1"), ("FAKE_CUDA_DELAY_US", "100000")];
        in_a_process("stream::gpu::silent_device", &settings);
    }
}

#[test]
#[ignore = "started by another test"]
fn silent_device() {
    let Some(mut rig) = Rig::<Gpu>::pair() else { return };
    let (from, to) = (rig.memory(0, 65_536), rig.memory(1, 65_536));
    let op = rig.copy(Route::Frame, 0, 1, &[whole(from, to, 65_536)])[0];
    let deadline = Instant::now() + DEADLINE;
    while rig.outcome(&op).is_none() {
        assert!(Instant::now() < deadline, "it never ends\n{}", rig.state());
        let readable = readable_nodes(&rig, 0..2);
        assert!(!readable.is_empty(), "no handle was readable for long\n{}", rig.state());
        readable.into_iter().for_each(|node| while rig.poll(node) {});
    }
    let error = rig.outcome(&op).expect("it has ended").expect_err("nobody knows that it is in place");
    assert!(error.to_string().contains("cuLaunchHostFunc on device 0"), "{error}");
}

/// The end of a link returns when its copies have ended, at either side: nothing is read or written afterwards.
#[test]
fn the_end_of_a_link_waits_for_its_copies() {
    if fake_cuda::serves("a slow device") {
        let delay = SLOW.as_micros().to_string();
        in_a_process("stream::gpu::ending_links", &[("FAKE_CUDA_DELAY_US", &delay)]);
    }
}

/// What every operation of the device takes at least, in [`ending_links`].
const SLOW: Duration = Duration::from_millis(300);

#[test]
#[ignore = "started by another test"]
fn ending_links() {
    let Some(mut rig) = Rig::<Gpu>::pair() else { return };
    let host = [0, 1].map(|node| rig.memory_of(node, MemoryKind::Dram, 65_536));
    let gpu = [0, 1].map(|node| rig.memory(node, 65_536));

    let posted = Instant::now();
    rig.copy(Route::Frame, 0, 1, &[whole(gpu[0], host[1], 65_536)]);
    rig.disconnect(0, 1);
    assert!(posted.elapsed() >= SLOW, "memory that is sent is still being read");
    rig.disconnect(1, 0);

    rig.connect(0, 1);
    let posted = Instant::now();
    rig.copy(Route::Frame, 0, 1, &[whole(host[0], gpu[1], 65_536)]);
    rig.until("the frame has arrived", |rig| !rig.nodes[1].log.arrived.is_empty());
    read_on(&mut rig, 1);
    rig.disconnect(1, 0);
    assert!(posted.elapsed() >= SLOW, "memory that is received is still being written");
}

/// A device that hangs: the end of a link waits for it, but not for ever, and other links go on when it does.
#[test]
fn a_hanging_device_does_not_hold_the_end_of_a_link() {
    if fake_cuda::serves("a hanging device") {
        in_a_process("stream::gpu::hanging_device", &[("FAKE_CUDA_DELAY_US", "2500000")]);
    }
}

#[test]
#[ignore = "started by another test"]
fn hanging_device() {
    let Some(mut rig) = Rig::<Vram<Unix, false, true>>::pair() else { return };
    let (from, to) = (rig.memory_of(0, MemoryKind::Dram, 65_536), rig.memory(1, 65_536));
    let op = rig.copy(Route::Frame, 0, 1, &[whole(from, to, 65_536)])[0];
    rig.until("the frame has arrived", |rig| rig.nodes[0].log.outcome(op.token).is_some());
    read_on(&mut rig, 1);
    rig.disconnect(1, 0);
    rig.disconnect(0, 1);
    // Nobody is told of it when it ends, and its slot serves again.
    rig.connect(0, 1);
    let op = rig.copy(Route::Frame, 0, 1, &[whole(from, to, 65_536)]);
    rig.finish(&op);
}

/// Has a node read what has come, without giving its device time.
fn read_on<H: Harness>(rig: &mut Rig<H>, node: usize) {
    (0..100).for_each(|_| _ = rig.poll(node));
}
