//! Limits, connecting, idleness, registration, the wake handle.

use std::time::Instant;

use baton::desc::{MemoryKind, PeerKey, RegionKey};
use baton::error::FabricErrorKind;
use baton::fabric::Region;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::copy::whole;
use crate::harness::Harness;
use crate::memory::Memory;
use crate::rig::{DEADLINE, Rig};

pub fn limits_agree_with_each_other<H: Harness>() {
    let Some(rig) = Rig::<H>::apart(1) else { return };
    let limits = rig.limits();
    let native = limits.native_read || limits.native_write;
    assert!(native != limits.framed, "exactly one of native and framed: {limits:?}");
    assert!(limits.batches_in_flight > 0 && limits.segments_per_batch > 0 && limits.bytes_per_batch > 0);
    assert!(
        H::KINDS.iter().all(|kind| limits.kinds.contains(kind)),
        "it carries what it is tried on: {limits:?}"
    );
    assert!(!rig.fabric(0).name().is_empty());
    assert_eq!(rig.fabric(0).address(), rig.fabric(0).address(), "the address is stable");
    assert_eq!(rig.fabric(0).limits(), limits, "the limits are stable");
}

pub fn both_sides_connect<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    rig.settle();
    assert!(rig.nodes.iter().all(|node| node.log.lost.is_empty()), "{}", rig.state());
}

pub fn connects_again_after_disconnect<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    rig.disconnect(0, 1);
    rig.disconnect(1, 0);
    rig.settle();
    rig.connect(0, 1);
    let (from, to) = (rig.memory(0, 4096), rig.memory(1, 4096));
    for route in rig.routes() {
        rig.copy_and_check(route, from, to, &[whole(from, to, 4096)]);
    }
}

pub fn an_idle_poll_does_nothing<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    rig.settle();
    let seen = rig.state();
    for _ in 0..100 {
        assert!(!rig.poll(0) && !rig.poll(1), "an idle poll reports progress");
    }
    assert_eq!(rig.state(), seen);
}

pub fn refuses_kinds_outside_its_limits_by_name<H: Harness>() {
    let Some(mut rig) = Rig::<H>::apart(1) else { return };
    let mem = rig.memory(0, 4096);
    let carried = rig.limits().kinds;
    let kinds = [MemoryKind::Dram, MemoryKind::Vram, MemoryKind::Block, MemoryKind::Object, MemoryKind::File];
    for kind in kinds.into_iter().filter(|kind| !carried.contains(kind)) {
        let region = Region { kind, ..rig.region(0, mem.span) };
        let error = rig.register(0, &region).expect_err("a kind outside the limits");
        assert_eq!(error.kind, FabricErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(&kind.to_string()), "names {kind}: {error}");
    }
}

/// Where pinning is apart, a region may be pinned on another thread while the fabric works, and stays pinned when it is
/// deregistered; pinning alone makes nothing usable. What was pinned and never registered is given back as well.
pub fn pins_beside_its_work<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let Some(pinning) = rig.fabric(0).pinning() else { return };
    let (from, to) = (rig.memory(0, 65_536), rig.memory(1, 65_536));
    let late = Memory::new(H::KINDS[0], 65_536);
    let [region, never] = [0; 2].map(|node| rig.region(node, late.span()));
    std::thread::scope(|scope| {
        let pinned = scope.spawn(|| {
            // SAFETY: the memory is freed at the end of this case, unpinned before.
            [region, never].iter().try_for_each(|region| unsafe { pinning.pin(region) })
        });
        for route in rig.routes() {
            rig.copy_and_check(route, from, to, &[whole(from, to, 65_536)]);
        }
        pinned.join().expect("no panic").expect("it is pinned");
    });
    // SAFETY: as above.
    let twice = unsafe { pinning.pin(&region) }.expect_err("pinned already");
    assert_eq!(twice.kind, FabricErrorKind::InvalidRegion, "{twice}");
    for _ in 0..2 {
        rig.register(0, &region).expect("it is pinned");
        rig.fabric_mut(0).deregister(region.key);
    }
    pinning.unpin(region.key);
    pinning.unpin(region.key);
    rig.drop_fabric(0);
    pinning.unpin(never.key);
}

pub fn forgets_unknown_keys_and_peers<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    rig.fabric_mut(0).deregister(RegionKey(4_000_000));
    rig.fabric_mut(0).disconnect(PeerKey(4_000_000));
    let (from, to) = (rig.memory(0, 4096), rig.memory(1, 4096));
    for route in rig.routes() {
        rig.copy_and_check(route, from, to, &[whole(from, to, 4096)]);
    }
}

/// A transfer goes through when each side is polled only while its handle is readable, but for once after the posts.
/// Without a handle the agent polls by a timer, and there is nothing to show.
pub fn wake_handle_tells_of_work<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    if (0..2).any(|node| rig.fabric(node).wake().is_none()) {
        return;
    }
    let len = 3 << 20;
    let (from, to) = (rig.memory(0, len), rig.memory(1, len));
    rig.settle();
    for route in rig.routes() {
        let wanted = rig.expected(from, to, &[whole(from, to, len as u64)]);
        let ops = rig.copy(route, 0, 1, &[whole(from, to, len as u64)]);
        let deadline = Instant::now() + DEADLINE;
        ops.iter().for_each(|op| _ = rig.poll(op.poster));
        while !ops.iter().all(|op| rig.outcome(op).is_some()) {
            assert!(Instant::now() < deadline, "no wake handle became readable\n{}", rig.state());
            let readable = readable_nodes(&rig);
            readable.into_iter().for_each(|node| while rig.poll(node) {});
        }
        rig.snapshot(to).assert_same(&wanted, "destination");
    }
}

/// The nodes whose handles are readable, or become so soon.
pub fn readable_nodes<H: Harness>(rig: &Rig<H>) -> Vec<usize> {
    let handles: Vec<_> = (0..2).filter_map(|node| rig.fabric(node).wake()).collect();
    let mut fds: Vec<_> = handles.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&patience)).expect("poll on wake handles");
    (0..2).filter(|node| fds[*node].revents().contains(PollFlags::IN)).collect()
}
