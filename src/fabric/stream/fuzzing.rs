//! This fabric's decoders, for fuzz targets alone: no part of the interface.

use super::frame::{HEAD_BYTES, Head, decode_preface, encode_preface, encode_sealed_preface};

/// The link id of the preface at the front of `bytes`, and the preface that says it.
pub fn preface(bytes: &[u8]) -> Option<([u8; 16], Vec<u8>)> {
    let preface = decode_preface(bytes).ok()?.ok()?;
    let again = match preface.proof {
        None => encode_preface(preface.link_id).to_vec(),
        Some(proof) => encode_sealed_preface(preface.link_id, proof).to_vec(),
    };
    Some((preface.link_id, again))
}

/// The lengths of header and payload in a frame's head, and the head that says them.
pub fn head(bytes: &[u8; HEAD_BYTES]) -> Option<(usize, u64, [u8; HEAD_BYTES])> {
    Head::decode(bytes).ok().map(|head| (head.header_bytes, head.payload_bytes, head.encode()))
}
