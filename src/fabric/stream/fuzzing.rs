//! This fabric's decoders, for fuzz targets alone: no part of the interface.

use super::frame::{HEAD_BYTES, Head, PREFACE_BYTES, decode_preface, encode_preface};

/// The link id of a preface, and the preface that says it.
pub fn preface(bytes: &[u8; PREFACE_BYTES]) -> Option<([u8; 16], [u8; PREFACE_BYTES])> {
    decode_preface(bytes).ok().map(|link| (link, encode_preface(link)))
}

/// The lengths of header and payload in a frame's head, and the head that says them.
pub fn head(bytes: &[u8; HEAD_BYTES]) -> Option<(usize, u64, [u8; HEAD_BYTES])> {
    Head::decode(bytes).ok().map(|head| (head.header_bytes, head.payload_bytes, head.encode()))
}
