//! What stands on the wire besides headers and payload: the preface that opens a data connection and the
//! head before each frame. All little-endian; decoding is total.
//!
//! ```text
//!  preface   0        4         6         8                       24
//!            +--------+---------+---------+-----------------------+
//!            | "BTNS" | version | zero    | link id               |
//!            +--------+---------+---------+-----------------------+
//!  frame     0        4            8              16
//!            +--------+------------+--------------+----------------+---------+
//!            | "BTNF" | header len | payload len  | header         | payload |
//!            +--------+------------+--------------+----------------+---------+
//! ```
//! A data connection carries one preface and then frames, in one direction only.

use thiserror::Error;

use crate::fabric::HEADER_MAX_BYTES;

/// What is wrong with bytes that should open a connection or a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    /// Not a Baton data stream.
    #[error("the connection does not begin as a Baton data stream does (got {0:02x?})")]
    NotOurs([u8; 4]),
    /// A version that this build does not speak.
    #[error("the peer speaks data stream version {0}, this build version {VERSION}: update the older side")]
    Version(u16),
    /// The stream holds something else where a frame should begin.
    #[error("the stream is out of step: no frame begins where one should (got {0:02x?})")]
    OutOfStep([u8; 4]),
    /// A frame longer than any peer may send.
    #[error(
        "a frame announces a header of {header} and a payload of {payload} bytes; the most are \
         {HEADER_MAX_BYTES} and {PAYLOAD_MAX_BYTES}"
    )]
    TooLong {
        /// Announced header bytes.
        header: u32,
        /// Announced payload bytes.
        payload: u64,
    },
}

/// Bytes of a preface.
pub(super) const PREFACE_BYTES: usize = 24;
/// Bytes of a frame's head.
pub(super) const HEAD_BYTES: usize = 16;
/// Most payload bytes in one frame: far above what [`super::StreamFabric`] sends, so that a later version
/// may send more, and far below what could keep a stream busy for long.
pub(super) const PAYLOAD_MAX_BYTES: u64 = 64 << 20;

/// The bytes that open a connection for `link_id`.
pub(super) fn encode_preface(link_id: [u8; 16]) -> [u8; PREFACE_BYTES] {
    let mut out = [0; PREFACE_BYTES];
    out[..4].copy_from_slice(PREFACE_MAGIC);
    out[4..6].copy_from_slice(&VERSION.to_le_bytes());
    out[8..].copy_from_slice(&link_id);
    out
}

/// The link id of a preface.
pub(super) fn decode_preface(bytes: &[u8; PREFACE_BYTES]) -> Result<[u8; 16], FrameError> {
    let magic = part::<4>(bytes, 0);
    if &magic != PREFACE_MAGIC {
        return Err(FrameError::NotOurs(magic));
    }
    match u16::from_le_bytes(part(bytes, 4)) {
        VERSION => Ok(part(bytes, 8)),
        other => Err(FrameError::Version(other)),
    }
}

/// What a frame's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Bytes of the header that follows; at most [`HEADER_MAX_BYTES`].
    pub(super) header_bytes: usize,
    /// Bytes of the payload after it; at most [`PAYLOAD_MAX_BYTES`].
    pub(super) payload_bytes: u64,
}

impl Head {
    /// The head's bytes. The caller has kept both lengths within their bounds.
    pub(super) fn encode(self) -> [u8; HEAD_BYTES] {
        let mut out = [0; HEAD_BYTES];
        out[..4].copy_from_slice(FRAME_MAGIC);
        out[4..8].copy_from_slice(&(self.header_bytes as u32).to_le_bytes());
        out[8..].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out
    }

    /// Reads and checks a head.
    pub(super) fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, FrameError> {
        let magic = part::<4>(bytes, 0);
        if &magic != FRAME_MAGIC {
            return Err(FrameError::OutOfStep(magic));
        }
        let header = u32::from_le_bytes(part(bytes, 4));
        let payload = u64::from_le_bytes(part(bytes, 8));
        if header as usize > HEADER_MAX_BYTES || payload > PAYLOAD_MAX_BYTES {
            return Err(FrameError::TooLong { header, payload });
        }
        Ok(Self { header_bytes: header as usize, payload_bytes: payload })
    }
}

/// `N` bytes at `at`, which the callers' constants keep inside `bytes`.
fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

const PREFACE_MAGIC: &[u8; 4] = b"BTNS";
const FRAME_MAGIC: &[u8; 4] = b"BTNF";
const VERSION: u16 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preface_and_head_survive_the_wire() {
        assert_eq!(decode_preface(&encode_preface([7; 16])), Ok([7; 16]));
        let head = Head { header_bytes: HEADER_MAX_BYTES, payload_bytes: PAYLOAD_MAX_BYTES };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn strangers_and_other_versions_are_told_apart() {
        assert_eq!(decode_preface(&[b'G'; PREFACE_BYTES]), Err(FrameError::NotOurs(*b"GGGG")));
        let mut preface = encode_preface([0; 16]);
        preface[4] = 2;
        assert_eq!(decode_preface(&preface), Err(FrameError::Version(2)));
    }

    #[test]
    fn lengths_are_bounded() {
        let long_header = Head { header_bytes: HEADER_MAX_BYTES + 1, payload_bytes: 0 };
        let long_payload = Head { header_bytes: 0, payload_bytes: PAYLOAD_MAX_BYTES + 1 };
        for head in [long_header, long_payload] {
            assert!(matches!(Head::decode(&head.encode()), Err(FrameError::TooLong { .. })), "{head:?}");
        }
        assert_eq!(Head::decode(&[0; HEAD_BYTES]), Err(FrameError::OutOfStep([0; 4])));
    }
}
