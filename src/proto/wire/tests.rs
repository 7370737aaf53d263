//! Every frame both ways, and bytes that are none.

use crate::desc::{MemoryKind, Span};
use crate::proto::grant::Slot;
use crate::proto::transfer::Run;

use super::*;

fn samples() -> Vec<Frame<'static>> {
    let segments = vec![Segment { src: 1, dst: 2, len: 3 }, Segment { src: u64::MAX, dst: 0, len: 1 }];
    let hello = Hello { link_id: [7; 16], expected: [8; 16], name: "ctx", section: b"section" };
    let commit = Commit {
        id: TransferId(9),
        op: TransferOp::Write,
        chunks: 3,
        bytes: 4096,
        events: 2,
        sync_message: Some(b"done\0"),
    };
    let runs = (0..40).map(|at| Run { first: 9 * at, last: 9 * at + at });
    let state = State {
        id: TransferId(2),
        standing: Standing::Receiving,
        committed: true,
        done: 7,
        unheard: Runs::new([Run { first: 0, last: u32::MAX }].into_iter()),
        missing: Runs::new(runs),
    };
    let slot = StagingSlot { kind: MemoryKind::Vram, lease: Slot { index: 3, generation: 9 } };
    let span = Span { addr: 1 << 40, len: 4096 };
    let spans = vec![Span { addr: 64, len: 1 }; 3].into();
    let filled = Filled { slot, id: TransferId(5), chunk: 6, heard: 7, spans };
    vec![
        Frame::Hello(hello),
        Frame::Welcome { name: "gen", section: b"" },
        Frame::Refuse { reason: RefuseReason::NameTaken, text: "taken" },
        Frame::Fetch,
        Frame::Blob { bytes: b"blob" },
        Frame::Ready { lanes: vec!["local", "stream"], again: false },
        Frame::Ready { lanes: vec![], again: true },
        Frame::Heartbeat { said: 3, heard: u64::MAX, again: true },
        Frame::Event { number: 1, event: Event::Loaded { loaded: true } },
        Frame::Event { number: 2, event: Event::RegionAdd { region: b"region" } },
        Frame::Event { number: 3, event: Event::RegionRemove { key: RegionKey(4) } },
        Frame::Event { number: 4, event: Event::RegionReleased { key: RegionKey(4) } },
        Frame::Event { number: u64::MAX, event: Event::Notify { message: b"\0binary\xff" } },
        Frame::Event { number: 5, event: Event::SlotGranted { slot, span } },
        Frame::Event { number: 6, event: Event::SlotFilled(filled.clone()) },
        Frame::Event { number: 7, event: Event::SlotFilled(Filled { spans: Cow::default(), ..filled }) },
        Frame::Event { number: 8, event: Event::SlotReturned { slot } },
        Frame::Pull { id: TransferId(1), chunk: 2, heard: 9, segments: segments.clone().into() },
        Frame::Send { id: TransferId(1), chunk: 2, heard: u64::MAX, segments: segments.into() },
        Frame::Commit(commit.clone()),
        Frame::Commit(Commit { sync_message: None, op: TransferOp::Read, ..commit }),
        Frame::Ack { id: TransferId(u64::MAX), events: 7 },
        Frame::Progress { id: TransferId(2), done: 3 },
        Frame::Ask { id: TransferId(2) },
        Frame::State(state.clone()),
        Frame::State(State { standing: Standing::Forgotten, unheard: Runs::default(), ..state }),
        Frame::Fail { id: TransferId(1), text: "no such region" },
        Frame::Abort { id: TransferId(1), issued: 5 },
        Frame::Aborted { id: TransferId(1), sent: 6 },
        Frame::Goodbye { text: "shutdown" },
    ]
}

#[test]
fn every_frame_survives_the_wire() {
    for frame in samples() {
        let mut bytes = Vec::new();
        frame.encode(0x1122, &mut bytes);
        let length = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(check_length(length, FRAME_MAX_BYTES), Ok(bytes.len() - LENGTH_BYTES));
        assert_eq!(Frame::decode(&bytes[LENGTH_BYTES..]), Ok((0x1122, frame)));
    }
}

#[test]
fn every_truncation_and_every_extra_byte_is_an_error() {
    for frame in samples() {
        let mut bytes = Vec::new();
        frame.encode(1, &mut bytes);
        for end in LENGTH_BYTES..bytes.len() {
            assert!(Frame::decode(&bytes[LENGTH_BYTES..end]).is_err(), "{frame:?} cut at {end}");
        }
        bytes.push(0);
        assert!(Frame::decode(&bytes[LENGTH_BYTES..]).is_err(), "{frame:?} with a byte too many");
    }
}

#[test]
fn a_count_that_cannot_be_there_is_refused_before_allocation() {
    let mut bytes = Vec::new();
    Frame::Pull { id: TransferId(1), chunk: 0, heard: 0, segments: vec![].into() }.encode(0, &mut bytes);
    let count_at = bytes.len() - 4;
    bytes[count_at..].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(Frame::decode(&bytes[LENGTH_BYTES..]), Err(DecodeError::Truncated { .. })));
    assert!(check_length(u32::MAX, FRAME_MAX_BYTES).is_err());
    assert!(check_length(3, FRAME_MAX_BYTES).is_err());
}

#[test]
fn a_hello_of_another_major_version_is_refused_by_name() {
    let mut bytes = Vec::new();
    samples()[0].encode(0, &mut bytes);
    bytes[LENGTH_BYTES + HEAD_BYTES + 4] = 9;
    let error = Frame::decode(&bytes[LENGTH_BYTES..]).unwrap_err();
    assert_eq!(error.to_string(), "major version holds 0x9, which is not a valid value");
}

#[test]
fn data_headers_survive_the_wire() {
    let spans = vec![Span { addr: 1 << 40, len: 4096 }; DATA_SPANS_MAX];
    let header = DataHeader { link: 1, id: TransferId(2), answer: false, heard: 9, chunk: 3, spans };
    let bytes = header.encode();
    assert!(bytes.len() <= 64 * 1024, "fits every fabric's header bound");
    assert_eq!(DataHeader::decode(&bytes), Ok(header));
    for end in 0..bytes.len().min(64) {
        assert!(DataHeader::decode(&bytes[..end]).is_err());
    }
}

proptest::proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = Frame::decode(&bytes);
        let _ = DataHeader::decode(&bytes);
    }
}
