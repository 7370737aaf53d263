//! The decoders of a rendezvous, for fuzz targets alone: no part of the interface.

use std::io;
use std::time::Duration;

use super::deadline::Deadline;
use super::frame::{HEADER_BYTES, Hello, Kind, Refusal, decode_parts, encode_parts, header, may_be_header};
use super::tcp_store::TcpStore;

pub use super::tcp_store::Patient;

/// Reads a frame as rank 0 and as the others do, for an instance of this size: whether it was taken. What is comes
/// back from its own bytes.
pub fn frame(bytes: &[u8], size: u32) -> bool {
    let Some((head, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        may_be_header(bytes);
        return false;
    };
    let Ok((kind, len)) = header(head) else { return false };
    let Some(body) = body.get(..len) else { return false };
    match kind {
        Kind::Hello => Hello::decode(body).is_some_and(|hello| same(&hello.encode(), head, body)),
        Kind::Parts => decode_parts(body, size).is_some_and(|parts| same(&encode_parts(&parts), head, body)),
        Kind::Refusal => Refusal::decode(body).is_some_and(|refusal| {
            let again = refusal.encode();
            // A text that was not UTF-8 is not the same text any more, and may be longer.
            assert_eq!(Refusal::decode(&again[HEADER_BYTES..]), Some(refusal));
            true
        }),
    }
}

fn same(again: &[u8], head: &[u8], body: &[u8]) -> bool {
    assert_eq!(again, [head, body].concat());
    true
}

/// Asks a store that answers with whatever `stream` has, each kind of question once; whether it answered all.
pub fn store(stream: impl Patient, nonce: u32) -> io::Result<()> {
    let mut store = TcpStore::greet(stream, nonce, Deadline::after(Duration::from_secs(60)))?;
    store.set("key", b"value")?;
    store.get("key")?;
    store.add("key", 1)?;
    store.has("key")?;
    store.wait("key", Duration::from_secs(60))?;
    store.delete("key")
}
