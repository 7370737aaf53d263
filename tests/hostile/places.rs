//! Where a peer wants to write and what it wants to read: nothing outside what is registered, and not one byte of a
//! request that is wrong anywhere.

use baton::desc::{Segment, Span, TransferId};
use baton::proto::wire::{DataHeader, Event, Frame};

use crate::memory::Pool;
use crate::puppet::{Papers, Puppet, agent, assert_serves, beside, closes};

const LEN: u64 = 4096;

fn header(puppet: &Puppet, id: u64, spans: Vec<Span>) -> DataHeader {
    DataHeader { link: puppet.tag, id: TransferId(id), answer: false, heard: 0, chunk: 0, spans }
}

/// Data frames over the stream lane, to places that are not ours to write.
#[test]
fn writes_to_bad_places_fail_their_transfer_and_touch_nothing() {
    let _beside = beside();
    let ctx = agent("ctx");
    let pool = Pool::new(LEN as usize, 0x33);
    pool.register(&ctx);
    let start = pool.addr();
    let span = |addr, len| Span { addr, len };
    let good = span(start, 64);
    let cases = [
        ("one byte before", vec![good, span(start - 1, 64)]),
        ("one byte behind", vec![good, span(start + LEN - 63, 64)]),
        ("far away", vec![good, span(start ^ (1 << 46), 64)]),
        ("null", vec![good, span(0, 64)]),
        ("wraps", vec![good, span(u64::MAX - 31, 64)]),
        ("wraps to our start", vec![span(start, u64::MAX - 63), span(start, 128)]),
        ("negative length", vec![span(start + 64, 64u64.wrapping_neg()), span(start, 128)]),
        ("no bytes", vec![good, span(start, 0)]),
        ("nothing at all", vec![]),
        ("more than the payload", vec![good, span(start + 64, 65)]),
    ];
    let mut puppet = Puppet::meet(&ctx, Papers { stream: true, ..Papers::default() });
    for (id, (what, spans)) in (1u64..).zip(cases) {
        puppet.send(&header(&puppet, id, spans), 128);
        let words = puppet.hear("Fail");
        assert!(words.contains(&format!("TransferId({id})")), "{what}: {words}");
        assert_eq!(pool.bytes(), [0x33; LEN as usize], "{what}");
    }
    // The lane is in step still: a good frame lands, and spans that overlap are the sender's own affair.
    let id = 99;
    puppet.send(&header(&puppet, id, vec![good, good]), 128);
    let commit = baton::proto::wire::Commit {
        id: TransferId(id),
        op: baton::desc::TransferOp::Write,
        chunks: 1,
        bytes: 128,
        events: 0,
        sync_message: None,
    };
    puppet.say(&Frame::Commit(commit));
    puppet.hear("Ack");
    assert_eq!(pool.bytes()[..65], [&[0xAB; 64][..], &[0x33]].concat());
    assert_serves(&ctx);
}

/// Reads of what is not registered are not answered with a byte.
#[test]
fn reads_of_bad_places_fail_their_transfer() {
    let _beside = beside();
    let ctx = agent("ctx");
    let pool = Pool::new(LEN as usize, 0x44);
    pool.register(&ctx);
    let start = pool.addr();
    let mut puppet = Puppet::meet(&ctx, Papers { stream: true, ..Papers::default() });
    let segment = |src, len| Segment { src, dst: 0x1000, len };
    for (id, segments) in (1u64..).zip([
        vec![segment(start - 1, 64)],
        vec![segment(start + LEN - 63, 64)],
        vec![segment(start, u64::MAX)],
        vec![segment(u64::MAX, 1)],
        vec![segment(start, 0)],
        vec![],
        vec![segment(start, 1); SEGMENTS_MAX + 1],
    ]) {
        puppet.say(&Frame::Send { id: TransferId(id), chunk: 0, heard: 0, segments: segments.into() });
        let words = puppet.hear("Fail");
        assert!(words.contains(&format!("TransferId({id})")), "{words}");
    }
    let answers = puppet.answers.as_mut().expect("the lane");
    answers.set_nonblocking(true).expect("a socket");
    let mut heard = [0; 64];
    let heard = std::io::Read::read(answers, &mut heard).map(|count| heard[..count].to_vec());
    assert_eq!(heard.ok(), Some([&b"BTNS\x01\0\0\0"[..], &puppet.link_id].concat()), "the preface alone");
}

/// Segments that a chunk may have: as many as fit one header.
const SEGMENTS_MAX: usize = baton::proto::wire::DATA_SPANS_MAX;

/// As many descriptors as a chunk may have are served, in one frame.
#[test]
fn a_chunk_may_have_as_many_descriptors_as_a_header_holds() {
    let _beside = beside();
    let ctx = agent("ctx");
    let pool = Pool::new(LEN as usize, 0x55);
    pool.register(&ctx);
    let mut puppet = Puppet::meet(&ctx, Papers { stream: true, ..Papers::default() });
    let spans: Vec<_> =
        (0..SEGMENTS_MAX as u64).map(|at| Span { addr: pool.addr() + 2 * at, len: 1 }).collect();
    puppet.send(&header(&puppet, 1, spans), SEGMENTS_MAX);
    let (id, op) = (TransferId(1), baton::desc::TransferOp::Write);
    let bytes = SEGMENTS_MAX as u64;
    puppet.say(&Frame::Commit(baton::proto::wire::Commit {
        id,
        op,
        chunks: 1,
        bytes,
        events: 0,
        sync_message: None,
    }));
    puppet.hear("Ack");
    assert!(pool.bytes().chunks_exact(2).all(|pair| pair == [0xAB, 0x55]));
}

/// Heads of data frames at their limits and one above.
#[test]
fn a_data_frame_may_have_its_limits_and_no_byte_more() {
    let _beside = beside();
    let ctx = agent("ctx");
    for (header, payload, is_good) in [
        (64 << 10, 0, true),
        ((64 << 10) + 1, 0, false),
        (25, 64u64 << 20, true),
        (25, (64 << 20) + 1, false),
        (u32::MAX, u64::MAX, false),
    ] {
        let mut puppet = Puppet::meet(&ctx, Papers { stream: true, ..Papers::default() });
        let head = [&b"BTNF"[..], &u32::to_le_bytes(header), &u64::to_le_bytes(payload)].concat();
        std::io::Write::write_all(puppet.data.as_mut().expect("a lane"), &head).expect("sent");
        if is_good {
            // It is waited for: what is said elsewhere meanwhile is answered.
            puppet.tell(Event::RegionRemove { key: baton::desc::RegionKey(9) });
            puppet.hear("RegionReleased");
        } else {
            assert!(closes(&mut puppet.control), "header {header}, payload {payload}");
        }
    }
    assert_serves(&ctx);
}

/// Regions that cannot be cost the peer that announces them its stream.
#[test]
fn regions_that_wrap_or_are_empty_end_the_stream() {
    let _beside = beside();
    let ctx = agent("ctx");
    for (addr, len, text) in [(u64::MAX, 2, "runs past the end"), (4096, 0, "has zero length")] {
        let mut puppet = Puppet::meet(&ctx, Papers::default());
        let mut region = Vec::new();
        let mut writer = baton::proto::codec::Writer::new(&mut region);
        writer.u32(1).u8(0).u32(0).u64(addr).u64(len).u8(0);
        puppet.tell(Event::RegionAdd { region: &region });
        let words = puppet.last_words();
        assert!(words.contains(text), "{words}");
    }
}
