//! A frame of the control stream, without its length.

use baton::proto::wire::{Frame, LENGTH_BYTES};

/// A frame that is taken comes back from its own bytes.
pub fn run(data: &[u8]) -> bool {
    let Ok((link, frame)) = Frame::decode(data) else { return false };
    let mut bytes = Vec::new();
    frame.encode(link, &mut bytes);
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().expect("a length");
    assert_eq!(u32::from_le_bytes(*length) as usize, rest.len());
    assert_eq!(Frame::decode(rest), Ok((link, frame)));
    true
}
