use proptest::prelude::*;

use super::super::blob::{Blob, BlobError};
use super::super::nixl_document::{Document, DocumentError};
use super::*;

fn to_hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

/// Pins the words that NIXL 1.5.1 was seen to take as they are meant: it logs the notice's text and refuses it, and
/// loads the shadow (`scripts/install-nixl.sh` fetches one to try). The file may change with the text, and
/// then has to be tried again.
#[test]
fn the_words_for_stock_agents_are_those_that_were_tried() {
    let golden = include_str!("../../../tests/golden/words-to-stock-nixl.hex");
    assert_eq!(to_hex(&answer("ctx-1")), golden);
}

#[test]
fn a_notice_names_the_agent_the_cause_and_the_cure() {
    let notice = notice("ctx-1");
    let document = Document::decode(&notice).expect("it is a document");
    assert!(document.agent.contains("ctx-1 (cause: it runs Baton"), "{}", document.agent);
    assert!(document.agent.contains("put the Baton library on this side too"), "{}", document.agent);
    assert!(document.connections.is_empty(), "else a stock agent says that it has no backend for them");
    assert_eq!(skip_notice(&[&notice[..], b"blob"].concat()), b"blob");
    assert_eq!(skip_notice(&notice[..notice.len() - 1]), &notice[..notice.len() - 1]);
    assert_eq!(skip_notice(b"nixlSerDes|Agent"), b"nixlSerDes|Agent");
}

#[test]
fn a_blob_that_is_cut_off_behind_or_in_its_notice_is_truncated() {
    let notice = notice("ctx-1");
    let whole = [&notice[..], b"nixlSerDes|Agent\x05\0\0\0\0\0\0\0ctx-1|"].concat();
    for len in 1..whole.len() {
        let error = Blob::decode(&whole[..len]).expect_err("there is no blob");
        assert!(
            matches!(error, BlobError::Document(DocumentError::Truncated { .. })),
            "{len} bytes: {error}"
        );
    }
}

#[test]
fn a_hello_is_known_once_it_is_whole() {
    let hello = hello("gen-1");
    assert_eq!((hello[0], hello.len() % 256), (0, 8), "ZeroMQ must find a length of zero");
    for len in 0..hello.len() {
        assert_eq!(opening(&hello[..len]), Opening::Unclear, "after {len} bytes");
    }
    let len = hello.len();
    assert_eq!(opening(&hello), Opening::Baton { len });
    assert_eq!(opening(&[&hello[..], b"more"].concat()), Opening::Baton { len });
}

#[test]
fn the_longest_name_fits_a_hello() {
    let hello = hello(&"n".repeat(super::super::blob::MAX_NAME_BYTES));
    assert!(hello.len() <= HELLO_MAX_BYTES);
    assert_eq!(opening(&hello), Opening::Baton { len: hello.len() });
}

#[test]
fn stock_agents_are_known_by_their_first_message() {
    for command in [&b"SEND"[..], b"INVLagent-7", b"LOADnixlSerDes|Agent\x05\0\0\0\0\0\0\0stock|Conns"] {
        let message = framed(&[COMMAND, command].concat());
        assert_eq!(opening(&message), Opening::Stock, "{}", String::from_utf8_lossy(command));
        assert_eq!(opening(&message[..PREFIX_BYTES - 1]), Opening::Unclear);
    }
    assert_eq!(opening(&answer("ctx-1")), Opening::Baton { len: answer("ctx-1").len() }, "our own words");
    let mut endless = hello("x");
    endless[..8].copy_from_slice(&(1_u64 << 29).to_le_bytes());
    assert_eq!(opening(&endless), Opening::Stock, "no hello is that long");
}

#[test]
fn others_are_no_messages() {
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0; 64], b"\x0c\0\0\0\x04\0\0\0\0\0\0\0\0\0\0\0"]
    {
        assert_eq!(opening(bytes), Opening::Other, "{bytes:?}");
    }
    let mut absurd = framed(&[COMMAND, SEND].concat());
    absurd[..8].fill(0xff);
    assert_eq!(opening(&absurd), Opening::Other);
}

proptest! {
    /// The longer the beginning, the less is unclear; and what is clear stays so.
    #[test]
    fn an_opening_does_not_change_its_mind(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            (any::<u64>(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(length, rest)| {
                [&(length % 64).to_le_bytes()[..], COMMAND, &rest].concat()
            }),
            (0..2000_usize).prop_map(|len| {
                let hello = hello("gen-1");
                hello[..len.min(hello.len())].to_vec()
            }),
        ],
    ) {
        let mut before = Opening::Unclear;
        for len in 0..=bytes.len() {
            let now = opening(&bytes[..len]);
            prop_assert!(before == Opening::Unclear || now == before, "{before:?} became {now:?} at {len}");
            before = now;
        }
        let _ = skip_notice(&bytes);
    }
}
