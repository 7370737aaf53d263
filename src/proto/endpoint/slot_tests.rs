//! What a peer can say of staging slots, and what a slot may hold.

use std::borrow::Cow;

use super::tests::{Hostile, LANE};
use super::*;
use crate::desc::{Descriptor, MemoryKind, Region, Segment, Span, TransferOp};
use crate::proto::grant::{Slot, SlotPhase};
use crate::proto::plan::{Party, PlanCaps, Side, plan};
use crate::proto::section::{AnnouncedRegion, CAPABILITY_SLOTS};
use crate::proto::wire::{Filled, StagingSlot};

/// Eight slots of 4 KiB, four of them for peers.
const STAGING: Span = Span { addr: 0x40_0000, len: 8 * 4096 };

/// A lane that gathers, and a peer that has said nothing yet.
fn gathering() -> Hostile {
    let mut peer = Hostile::silent_over(LaneSpec { native_write: true, gathers_below: 4096, ..LANE });
    let region = Region { key: RegionKey(2), kind: MemoryKind::Dram, device: 0, span: STAGING };
    peer.endpoint.add_region(AnnouncedRegion { region, keys: Vec::new() }).expect("a region");
    let spec = StagingSpec {
        kind: MemoryKind::Dram,
        device: 0,
        copier: 1,
        memory: STAGING,
        slot_bytes: 4096,
        segments_per_copy: 64,
    };
    peer.endpoint.add_staging(spec);
    peer.endpoint.handle_copier(peer.key, MemoryKind::Dram);
    peer
}

/// One that is up and has been lent four slots.
fn lent() -> Hostile {
    let mut peer = gathering();
    peer.hello_with("them", [1; 16], CAPABILITY_SLOTS);
    peer.endpoint.handle_lane(peer.key, LANE.name, Ok(()));
    let mut peer = peer.come_up();
    assert_eq!(granted(&peer), 4);
    assert_eq!(peer.endpoint.gathers_below(peer.key), Some(4096));
    peer.actions();
    peer
}

#[test]
fn a_peer_that_lends_no_slots_is_lent_none() {
    let mut peer = gathering();
    peer.hello("them", [1; 16]);
    peer.endpoint.handle_lane(peer.key, LANE.name, Ok(()));
    let peer = peer.come_up();
    assert_eq!((granted(&peer), peer.endpoint.gathers_below(peer.key)), (0, None));
}

fn granted(peer: &Hostile) -> u32 {
    peer.endpoint.slots(MemoryKind::Dram).of(SlotPhase::Granted)
}

fn slot(index: u32, generation: u32) -> StagingSlot {
    StagingSlot { kind: MemoryKind::Dram, lease: Slot { index, generation } }
}

fn filled(number: u64, slot: StagingSlot, id: u64, spans: &[Span]) -> Frame<'_> {
    let filled = Filled { slot, id: TransferId(id), chunk: 0, heard: 9, spans: Cow::Borrowed(spans) };
    Frame::Event { number, event: Event::SlotFilled(filled) }
}

/// Why the stream is closed, if it is.
fn closed(peer: &mut Hostile) -> Option<String> {
    peer.actions().into_iter().find_map(|action| match action {
        Action::Close { reason, .. } => Some(reason),
        _ => None,
    })
}

#[test]
fn a_filled_slot_is_scattered_and_lent_again() {
    let mut peer = lent();
    let spans = [Span { addr: 0x10100, len: 100 }, Span { addr: 0x10000, len: 28 }];
    peer.say(&filled(1, slot(2, 1), 5, &spans));
    let actions = peer.actions();
    let [Action::Post { lane: 1, token, op: TransferOp::Read, segments, .. }] = &actions[..] else {
        panic!("{actions:?}");
    };
    let start = STAGING.addr + 2 * 4096;
    let expected =
        [Segment { src: start, dst: 0x10100, len: 100 }, Segment { src: start + 100, dst: 0x10000, len: 28 }];
    assert_eq!((granted(&peer), &segments[..]), (3, &expected[..]));
    peer.endpoint.handle_completed(*token, Ok(()), peer.now);
    assert_eq!(granted(&peer), 4);
    assert!(closed(&mut peer).is_none());
}

/// What a card has written is flushed before anything reads it, and before anybody is told.
#[test]
fn gpus_see_what_was_written_first() {
    let kinds = &[MemoryKind::Dram, MemoryKind::Vram];
    let mut peer = Hostile::silent_over(LaneSpec { native_write: true, gathers_below: 4096, kinds, ..LANE });
    let vram = |key, span| Region { key: RegionKey(key), kind: MemoryKind::Vram, device: 2, span };
    let target = Span { addr: 0x90_0000, len: 4096 };
    for region in [vram(2, STAGING), vram(3, target)] {
        peer.endpoint.add_region(AnnouncedRegion { region, keys: Vec::new() }).expect("a region");
    }
    let kind = MemoryKind::Vram;
    let spec =
        StagingSpec { kind, device: 2, copier: 1, memory: STAGING, slot_bytes: 4096, segments_per_copy: 64 };
    peer.endpoint.add_staging(spec);
    peer.endpoint.handle_copier(peer.key, kind);
    peer.hello_with("them", [1; 16], CAPABILITY_SLOTS);
    peer.endpoint.handle_lane(peer.key, LANE.name, Ok(()));
    let mut peer = peer.come_up();
    let slot = StagingSlot { kind, ..slot(0, 1) };
    peer.say(&filled(1, slot, 5, &[target]));
    assert!(matches!(peer.actions()[..], [Action::Flush { .. }, Action::Post { lane: 1, .. }]));
    peer.commit(6); // moved by the peer alone
    assert!(matches!(peer.actions()[..], [Action::Flush { .. }, Action::Deliver { .. }]));
    peer.commit(7);
    let key = peer.key;
    assert!(matches!(peer.endpoint.poll_action(peer.now), Some(Action::Flush { .. })));
    peer.endpoint.handle_unflushed(key, "on purpose");
    let rest = peer.answers().concat();
    assert!(!rest.contains("Ack { id: TransferId(7)") && rest.contains("Goodbye"), "{rest}");
}

/// Hosts may give host memory any device's number.
#[test]
fn host_memory_of_any_number_is_scattered_to() {
    let mut peer = lent();
    let span = Span { addr: 0x90_0000, len: 4096 };
    let region = Region { key: RegionKey(3), kind: MemoryKind::Dram, device: 3, span };
    peer.endpoint.add_region(AnnouncedRegion { region, keys: Vec::new() }).expect("a region");
    peer.say(&filled(1, slot(0, 1), 5, &[span]));
    assert!(matches!(peer.actions()[..], [Action::Post { lane: 1, .. }]));
}

#[test]
fn staging_memory_is_no_destination() {
    let mut peer = lent();
    peer.say(&filled(1, slot(0, 1), 5, &[Span { addr: STAGING.addr + 4096, len: 8 }]));
    assert!(peer.actions().is_empty());
    assert!(peer.answers().concat().contains("is staging memory"));
}

/// An older agent would not know what it is told.
#[test]
fn who_does_not_know_of_slots_is_lent_none() {
    let mut peer = gathering();
    peer.hello_with("them", [1; 16], 0);
    peer.endpoint.handle_lane(peer.key, LANE.name, Ok(()));
    assert_eq!(granted(&peer.come_up()), 0);
}

#[test]
fn a_slot_that_is_not_lent_cannot_be_filled() {
    let one = [Span { addr: 0x10000, len: 8 }];
    let wraps = [Span { addr: 0x10000, len: u64::MAX }, Span { addr: 0x10000, len: 8 }];
    let long = [Span { addr: 0x10000, len: 4097 }];
    let cases: [(StagingSlot, &[Span]); 7] = [
        (slot(2, 2), &one),
        (slot(2, 0), &one),
        (slot(4, 1), &one),
        (slot(u32::MAX, 1), &one),
        (StagingSlot { kind: MemoryKind::Vram, ..slot(2, 1) }, &one),
        (slot(2, 1), &wraps),
        (slot(2, 1), &long),
    ];
    for (slot, spans) in cases {
        let mut peer = lent();
        peer.say(&filled(1, slot, 5, spans));
        let reason = closed(&mut peer).unwrap_or_else(|| panic!("{slot:?} was taken"));
        assert!(reason.contains("it has filled slot"), "{reason}");
    }
}

/// Nothing moves, the transfer fails, and the slot is lent again: it costs no stream.
#[test]
fn what_a_slot_cannot_be_scattered_to_fails_the_transfer_alone() {
    for spans in [&[][..], &[Span { addr: 0x10, len: 8 }], &[Span { addr: STAGING.addr - 4, len: 8 }]] {
        let mut peer = lent();
        peer.say(&filled(1, slot(0, 1), 5, spans));
        assert!(peer.actions().is_empty(), "{spans:?}");
        assert_eq!(granted(&peer), 4, "{spans:?}");
        assert!(peer.answers().concat().contains("Fail"), "{spans:?}");
    }
}

#[test]
fn a_returned_slot_is_lent_again_once() {
    let mut peer = lent();
    for number in 1..3 {
        peer.say(&Frame::Event { number, event: Event::SlotReturned { slot: slot(0, 1) } });
        assert_eq!(granted(&peer), 4);
    }
    assert!(closed(&mut peer).is_none());
}

#[test]
fn slots_outside_of_what_is_announced_are_not_taken() {
    let announced = Region {
        key: RegionKey(9),
        kind: MemoryKind::Dram,
        device: 0,
        span: Span { addr: 0x80_0000, len: 4096 },
    };
    let good = announced.span;
    let cases = [
        (slot(0, 1), Span { len: 0, ..good }),
        (slot(0, 1), Span { len: 4097, ..good }),
        (StagingSlot { kind: MemoryKind::Vram, ..slot(0, 1) }, good),
        (slot(1024, 1), good),
    ];
    for (slot, span) in cases {
        let mut peer = lent();
        let mut region = Vec::new();
        let news = AnnouncedRegion { region: announced, keys: Vec::new() };
        news.encode(&mut crate::proto::codec::Writer::new(&mut region));
        peer.say(&Frame::Event { number: 1, event: Event::RegionAdd { region: &region } });
        peer.say(&Frame::Event { number: 2, event: Event::SlotGranted { slot, span } });
        let reason = closed(&mut peer).unwrap_or_else(|| panic!("{slot:?} at {span} was taken"));
        assert!(reason.contains("it lends slot"), "{reason}");
    }
}

#[test]
fn what_is_large_few_or_on_another_device_is_not_gathered() {
    let gathering = Gathering {
        below: 4096,
        caps: PlanCaps { segments_per_chunk: 64, bytes_per_chunk: 4096 },
        devices: [0, 3],
    };
    let suits = |kind: MemoryKind, count: u64, len: u64, devices: [u32; 2]| {
        let list = |device| -> Vec<_> {
            (0..count).map(|at| Descriptor { addr: 1 + 2 * at * len, len, device }).collect()
        };
        let mut table = crate::proto::regions::RegionTable::default();
        for (key, device) in [(1, 0), (2, 1), (3, 3)] {
            let span = Span { addr: 1 + (key - 1) * (1 << 40), len: 1 << 39 };
            table.insert(Region { key: RegionKey(key as u32), kind, device, span }).expect("a region");
        }
        let at = |device: u32| (u64::from(device.min(2)) % 3) << 40;
        let moved = |device| -> Vec<_> {
            list(device).into_iter().map(|d| Descriptor { addr: d.addr + at(device), ..d }).collect()
        };
        let (from, to) = (moved(devices[0]), moved(devices[1]));
        let side = |party, descs| Side { party, kind, descs, regions: &table };
        let caps = PlanCaps { segments_per_chunk: 64, bytes_per_chunk: 1 << 20 };
        let plan = plan(side(Party::Local, &from), side(Party::Remote, &to), caps).expect("a plan");
        gathering.may_suit([(kind, &from), (kind, &to)]) && gathering.suits(&plan)
    };
    use MemoryKind::{Dram, Vram};
    assert!(suits(Dram, 16, 4095, [0, 0]) && suits(Vram, 16, 4095, [0, 3]));
    assert!(!suits(Dram, 16, 4096, [0, 0]), "large");
    assert!(!suits(Dram, 15, 8, [0, 0]), "few");
    assert!(!suits(Vram, 16, 8, [1, 3]) && !suits(Vram, 16, 8, [0, 0]), "elsewhere");
}
