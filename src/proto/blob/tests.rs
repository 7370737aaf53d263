use proptest::prelude::*;

use super::super::section;
use super::*;

fn sample() -> Blob {
    Blob { name: "gen-1".into(), section: section::tests::sample() }
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

/// Pins format 1.0: a blob written by any release of major version 1 must stay readable. When this fails,
/// the format has changed: raise the version and add a file, never edit this one.
#[test]
fn format_1_0_stays_as_it_is() {
    let golden = include_str!("../../../tests/golden/blob-v1.0.hex");
    assert_eq!(to_hex(&sample().encode()), golden, "the bytes written differ from format 1.0");
    assert_eq!(Blob::decode(&from_hex(golden)), Ok(sample()));
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample().encode();
    for len in 0..bytes.len() {
        assert!(Blob::decode(&bytes[..len]).is_err(), "{len} of {} bytes were taken", bytes.len());
    }
}

/// A document of a stock agent of NIXL 1.5.1 with its UCX backend and one registered region of 4096 bytes;
/// the bytes of its worker address and the region's address are blanked.
#[test]
fn a_real_stock_document_is_named_for_what_it_is() {
    let stock = from_hex(include_str!("../../../tests/golden/nixl-1.5.1-ucx.hex"));
    let error = BlobError::NoBaton { agent: "stock-agent".into(), backends: vec!["UCX".into()] };
    assert_eq!(Blob::decode(&stock), Err(error));
}

fn document(agent: &str, connections: &[(&str, &[u8])]) -> Vec<u8> {
    let connections = connections.iter().map(|&(backend, blob)| Connection { backend, blob }).collect();
    Document { agent, connections }.encode()
}

#[test]
fn finds_the_section_among_the_connections_of_others() {
    let mut section = Vec::new();
    sample().section.encode(&mut section);
    let mut bytes = document("gen-1", &[("UCX", b"address"), ("BATON", &section), ("GDS", b"")]);
    bytes.extend_from_slice(b"memory sections and whatever comes after");
    assert_eq!(Blob::decode(&bytes), Ok(sample()));
}

#[test]
fn errors_name_the_agent_and_the_way_out() {
    let text = |bytes: &[u8]| Blob::decode(bytes).unwrap_err().to_string();
    let stock = |backends: &str| {
        format!(
            "agent \"ctx-0\" is a stock NIXL agent (TensorRT-LLM without Baton) with {backends}: {}",
            stock::CURE
        )
    };
    let both = document("ctx-0", &[("UCX", b"x"), ("LIBFABRIC", b"y")]);
    assert_eq!(text(&both), stock("backends UCX, LIBFABRIC"));
    assert_eq!(text(&document("ctx-0", &[("UCX", b"x")])), stock("backend UCX"));
    assert_eq!(text(&document("ctx-0", &[])), stock("no backend at all"));
    assert_eq!(
        text(&document("ctx-0", &[("BATON", b"BATN\x02\0\x01\0")])),
        "blob of agent \"ctx-0\": it speaks version 2.1 of Baton's format and this library 1.0: install the same \
         release on both sides"
    );
    assert_eq!(text(&document("", &[])), "an agent name of 0 bytes: it must have 1 to 1024");
    let long = "n".repeat(1025);
    assert_eq!(text(&document(&long, &[])), "an agent name of 1025 bytes: it must have 1 to 1024");
    assert_eq!(Blob { name: long, ..sample() }.check(), Err(BlobError::NameLength { len: 1025 }));
    assert_eq!(text(b"hello"), "not a NIXL metadata document: it does not begin with \"nixlSerDes|\"");
}

proptest! {
    #[test]
    fn comes_back_as_it_was(name in "\\PC{1,40}", section in section::tests::section()) {
        let blob = Blob { name, section };
        prop_assert_eq!(blob.check(), Ok(()));
        prop_assert_eq!(Blob::decode(&blob.encode()), Ok(blob));
    }

    #[test]
    fn damage_never_panics(hits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = sample().encode();
        for (at, value) in hits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(blob) = Blob::decode(&bytes) {
            prop_assert_eq!(blob.check(), Ok(()));
        }
    }
}
