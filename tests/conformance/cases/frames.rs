//! Framed fabrics: headers, landings, discards. Other fabrics have nothing to show here.

use baton::desc::{Segment, Span};
use baton::error::FabricErrorKind;
use baton::fabric::{HEADER_MAX_BYTES, Landing};

use crate::copy::{Route, strided, whole};
use crate::harness::Harness;
use crate::rig::{Mem, Rig};

fn framed<H: Harness>() -> Option<Rig<H>> {
    Rig::pair().filter(|rig| rig.limits().framed)
}

pub fn headers_arrive_intact<H: Harness>() {
    let Some(mut rig) = framed::<H>() else { return };
    let (from, to) = (rig.memory(0, 4096), rig.memory(1, 4096));
    for header_bytes in [8, 9, 255, 4096, 4097, HEADER_MAX_BYTES] {
        let mut batch = rig.batch(Route::Frame, vec![whole(from, to, 100)]);
        batch.header.extend((batch.header.len()..header_bytes).map(|at| (at * 31) as u8));
        let header = batch.header.clone();
        let op = rig.plan(Route::Frame, 0, 1, &batch);
        rig.post_patiently(0, 1, batch);
        rig.finish(&[op]);
        let arrival = rig.nodes[1].log.arrived.last().expect("it has landed");
        assert_eq!((arrival.payload_bytes, arrival.header.len()), (100, header.len()));
        assert!(arrival.header == header, "a header of {header_bytes} bytes was changed on the way");
    }
}

/// The receiver cuts the payload differently than the sender gathered it.
pub fn payload_of_one_frame_scatters_exactly<H: Harness>() {
    let Some(mut rig) = framed::<H>() else { return };
    let (from, to) = (rig.memory(0, 1 << 20), rig.memory(1, 1 << 20));
    let gathered = strided(from, to, 64, 3000);
    let batch = rig.batch(Route::Frame, gathered.clone());
    let op = rig.plan(Route::Frame, 0, 1, &batch);
    let spans: Vec<Span> =
        (0..50).map(|at| Span { addr: to.span.addr + 7 + at * 5000, len: 64 * 3000 / 50 }).collect();

    let source = rig.snapshot(from);
    let payload: Vec<u8> =
        gathered.iter().flat_map(|s| source.at(Span { addr: s.src, len: s.len }).to_vec()).collect();
    let mut wanted = rig.snapshot(to);
    for (span, piece) in spans.iter().zip(payload.chunks(64 * 3000 / 50)) {
        wanted.put(span.addr, piece);
    }

    let ticket = batch.token.0;
    rig.nodes[1].log.landings.insert(ticket, Landing::Scatter { ticket, spans });
    rig.post_patiently(0, 1, batch);
    rig.finish(&[op]);
    rig.snapshot(to).assert_same(&wanted, "destination");
}

pub fn discard_touches_nothing_and_keeps_step<H: Harness>() {
    let Some(mut rig) = framed::<H>() else { return };
    let (from, to) = (rig.memory(0, 1 << 20), rig.memory(1, 1 << 20));
    let untouched = rig.snapshot(to);
    for len in [1, 4096, 1 << 20] {
        let batch = rig.batch(Route::Frame, vec![whole(from, to, len)]);
        let token = batch.token;
        rig.post_patiently(0, 1, batch);
        rig.until("the frame has been sent and discarded", |rig| {
            rig.nodes[0].log.outcome(token).is_some()
                && rig.nodes[1].log.arrived.last().is_some_and(|last| last.header == token.0.to_le_bytes())
        });
        assert_eq!(rig.nodes[0].log.outcome(token), Some(&Ok(())));
    }
    rig.settle();
    rig.snapshot(to).assert_same(&untouched, "after frames were discarded");
    assert!(rig.nodes[1].log.landed.is_empty(), "a discarded frame landed");
    rig.copy_and_check(Route::Frame, from, to, &strided(from, to, 100, 4096));
}

/// A landing outside every region, past the end of one, or one that wraps: `InvalidRegion`, nothing written, and the
/// next frame is understood.
pub fn bad_landing_touches_nothing_and_keeps_step<H: Harness>() {
    let Some(mut rig) = framed::<H>() else { return };
    let (from, to) = (rig.memory(0, 65_536), rig.memory(1, 65_536));
    let untouched = rig.snapshot(to);
    for bad in bad_spans(to) {
        let good = Span { addr: to.span.addr, len: 4096 };
        let segments = vec![Segment { src: from.span.addr, dst: 0, len: good.len + bad.len }];
        let batch = rig.batch(Route::Frame, segments);
        let ticket = batch.token.0;
        let landing = Landing::Scatter { ticket, spans: vec![good, bad] };
        rig.nodes[1].log.landings.insert(ticket, landing);
        rig.post_patiently(0, 1, batch);
        rig.until("the bad landing is reported", |rig| rig.nodes[1].log.landed.contains_key(&ticket));
        let error = rig.nodes[1].log.landed[&ticket].clone().expect_err("a landing outside every region");
        assert_eq!(error.kind, FabricErrorKind::InvalidRegion, "{error}");
    }
    rig.settle();
    rig.snapshot(to).assert_same(&untouched, "after bad landings");
    rig.copy_and_check(Route::Frame, from, to, &[whole(from, to, 65_536)]);
}

fn bad_spans(to: Mem) -> [Span; 3] {
    let end = to.span.addr + to.span.len;
    [Span { addr: 64, len: 100 }, Span { addr: end - 50, len: 100 }, Span { addr: u64::MAX - 50, len: 100 }]
}
