//! What stands on a data connection besides headers and payload, and the address that leads to one.

use baton::fabric::HEADER_MAX_BYTES;
use baton::fabric::stream::{StreamAddress, fuzzing};

/// Preface and head have one form each; lengths are within their bounds; an address comes back from its own bytes.
pub fn run(data: &[u8]) -> bool {
    let preface = fuzzing::preface(data);
    if let Some((_, again)) = &preface {
        // Two bytes are kept for later versions.
        assert!(again[..6] == data[..6] && again[8..] == data[8..again.len()]);
    }
    let head = data.first_chunk().and_then(|bytes| Some((fuzzing::head(bytes)?, bytes)));
    if let Some(((header, payload, again), bytes)) = head {
        assert!(header <= HEADER_MAX_BYTES && payload <= 64 << 20);
        assert_eq!(&again, bytes);
    }
    let address = StreamAddress::decode(data);
    if let Ok(address) = &address {
        assert_eq!(StreamAddress::decode(&address.encode()).as_ref(), Ok(address));
    }
    preface.is_some() || head.is_some() || address.is_ok()
}
