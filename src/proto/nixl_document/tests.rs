use super::*;

/// A field by the rule of the format, spelled out apart from the code under test.
fn field(tag: &str, value: &[u8]) -> Vec<u8> {
    [tag.as_bytes(), &(value.len() as u64).to_le_bytes(), value, b"|"].concat()
}

fn number(tag: &str, value: u64) -> Vec<u8> {
    field(tag, &value.to_le_bytes())
}

/// What a stock agent with two backends and one registered region writes.
fn stock() -> Vec<u8> {
    let region = [0x1000_u64.to_le_bytes(), 64_u64.to_le_bytes(), 0_u64.to_le_bytes()].concat();
    [
        b"nixlSerDes|".to_vec(),
        field("Agent", b"prefill-0"),
        number("Conns", 2),
        field("t", b"UCX"),
        field("c", b"worker|address\0with anything in it"),
        field("t", b"GDS_MT"),
        field("c", b""),
        field("", b"MemSection"),
        number("nixlSecElms", 1),
        field("bknd", b"UCX"),
        field("nixlDList", b"nixlSDList"),
        field("t", &0_u32.to_le_bytes()),
        number("n", 1),
        field("", &[region, b"rkey".to_vec()].concat()),
        field("AgentUUID", b"0198c9a4-0000-7000-8000-000000000000"),
    ]
    .concat()
}

fn ours() -> Document<'static> {
    Document { agent: "gen-1", connections: vec![Connection { backend: "BATON", blob: b"any|bytes" }] }
}

#[test]
fn reads_what_a_stock_agent_writes() {
    let bytes = stock();
    let document = Document::decode(&bytes).unwrap();
    assert_eq!(document.agent, "prefill-0");
    let listed: Vec<_> = document.connections.iter().map(|entry| (entry.backend, entry.blob.len())).collect();
    assert_eq!(listed, [("UCX", 34), ("GDS_MT", 0)]);
}

#[test]
fn writes_the_form_that_stock_agents_read() {
    let expected = [
        b"nixlSerDes|".to_vec(),
        field("Agent", b"gen-1"),
        number("Conns", 1),
        field("t", b"BATON"),
        field("c", b"any|bytes"),
        field("", b"MemSection"),
        number("nixlSecElms", 0),
    ]
    .concat();
    assert_eq!(ours().encode(), expected);
    assert_eq!(Document::decode(&expected), Ok(ours()));
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = ours().encode();
    for len in 0..bytes.len() {
        assert!(Document::decode(&bytes[..len]).is_err(), "{len} of {} bytes were taken", bytes.len());
    }
}

#[test]
fn errors_say_where() {
    let text = |bytes: &[u8]| Document::decode(bytes).unwrap_err().to_string();
    let bytes = ours().encode();
    assert_eq!(text(b"\x7fELF"), "not a NIXL metadata document: it does not begin with \"nixlSerDes|\"");
    assert_eq!(
        text(&bytes[..40]),
        "NIXL metadata document truncated in its field Conns: 40 bytes are not all of it"
    );
    let mut damaged = bytes.clone();
    damaged[11] = b'X';
    assert_eq!(
        text(&damaged),
        "NIXL metadata document damaged at byte 16: its field Agent should stand there"
    );
    let mut endless = bytes.clone();
    endless[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(text(&endless).contains("truncated in its field Agent"));
    let many = [b"nixlSerDes|".to_vec(), field("Agent", b"a"), number("Conns", u64::MAX)].concat();
    assert_eq!(text(&many), format!("NIXL metadata document lists {} connections, more than 64", u64::MAX));
    let binary = [b"nixlSerDes|".to_vec(), field("Agent", b"\xff")].concat();
    assert_eq!(text(&binary), "NIXL metadata document: its field Agent is not valid UTF-8");
}

#[test]
fn a_document_inside_a_serialised_agent_desc_is_recognised() {
    let wrapped = [&(stock().len() as u64).to_le_bytes()[..], &stock(), &0_u64.to_le_bytes()].concat();
    assert_eq!(Document::decode(&wrapped), Err(DocumentError::Wrapped));
    assert_eq!(Document::decode(&wrapped[1..]), Err(DocumentError::NotADocument));
}
