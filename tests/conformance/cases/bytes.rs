//! Bytes arrive whole, where they belong and nowhere else.

use baton::desc::{Segment, Span};

use crate::copy::{strided, whole};
use crate::harness::Harness;
use crate::rig::Rig;

pub fn moves_every_size<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let sizes = [1, 2, 7, 64, 4095, 4096, 4097, 65_537, 1 << 20, (5 << 20) + 3];
    for route in rig.routes() {
        for len in sizes {
            let (from, to) = (rig.memory(0, len), rig.memory(1, len));
            rig.copy_and_check(route, from, to, &[whole(from, to, len as u64)]);
        }
    }
}

pub fn moves_many_scattered_segments<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let shapes = [(2, 4096), (255, 4096), (1023, 4096), (1024, 64), (1025, 64), (2049, 3), (65_536, 64)];
    for route in rig.routes() {
        for (count, len) in shapes {
            let room = count * 2 * len as usize;
            let (from, to) = (rig.memory(0, room), rig.memory(1, room));
            rig.copy_and_check(route, from, to, &strided(from, to, count, len));
        }
    }
}

/// Lengths from 1 to 9,000 bytes, sources in one order, destinations in the other, nothing aligned.
pub fn moves_uneven_segments_in_any_order<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let lens: Vec<u64> = (0..500).map(|at: u64| 1 + (at * 7919) % 9000).collect();
    let total: u64 = lens.iter().sum();
    let room = (total + lens.len() as u64) as usize;
    let (from, to) = (rig.memory(0, room), rig.memory(1, room));
    let mut segments = Vec::new();
    let (mut src, mut dst) = (from.span.addr, to.span.addr + to.span.len);
    for len in lens {
        dst -= len + 1;
        segments.push(Segment { src, dst, len });
        src += len;
    }
    for route in rig.routes() {
        rig.copy_and_check(route, from, to, &segments);
    }
}

pub fn moves_both_ways_at_once<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (count, len) = (64, 16_384);
    let room = count * 2 * len as usize;
    let [a, b] = [0, 1].map(|node| (rig.memory(node, room), rig.memory(node, room)));
    for route in rig.routes() {
        let there = strided(a.0, b.1, count, len);
        let back = strided(b.0, a.1, count, len);
        let wanted = (rig.expected(a.0, b.1, &there), rig.expected(b.0, a.1, &back));
        let mut ops = rig.copy(route, 0, 1, &there);
        ops.extend(rig.copy(route, 1, 0, &back));
        rig.finish(&ops);
        rig.snapshot(b.1).assert_same(&wanted.0, "there");
        rig.snapshot(a.1).assert_same(&wanted.1, "back");
    }
}

/// The same span registered twice and a region across it: bytes move while any of them covers the segment.
pub fn overlapping_regions_serve_until_the_last_is_gone<H: Harness>() {
    let Some(mut rig) = Rig::<H>::pair() else { return };
    let (from, to) = (rig.memory(0, 65_536), rig.memory(1, 65_536));
    for mem in [from, to] {
        for span in [mem.span, Span { addr: mem.span.addr + 4096, len: 8192 }] {
            let region = rig.region(mem.node, span);
            let key_bytes = rig.register(mem.node, &region).expect("an overlapping region registers");
            let other = 1 - mem.node;
            let peer = rig.peer(other, mem.node);
            rig.fabric_mut(other).import(peer, &region, Some(&key_bytes)).expect("its key imports");
            if span != mem.span {
                rig.fabric_mut(other).import(peer, &region, None).expect("its key is withdrawn");
                rig.fabric_mut(mem.node).deregister(region.key);
            }
        }
        let first = rig.region_of(mem);
        rig.withdraw(mem);
        rig.fabric_mut(mem.node).deregister(first.key);
    }
    for route in rig.routes() {
        rig.copy_and_check(route, from, to, &[whole(from, to, 65_536)]);
    }
}
