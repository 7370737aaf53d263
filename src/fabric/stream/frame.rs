//! What stands on the wire besides headers and payload: the preface that opens a data connection and the
//! head before each frame. All little-endian; decoding is total.
//!
//! ```text
//!  preface   0        4         6         8                       24                40
//!            +--------+---------+---------+-----------------------+ - - - - - - - - +
//!            | "BTNS" | version | zero    | link id               | proof           |
//!            +--------+---------+---------+-----------------------+ - - - - - - - - +
//!  frame     0        4            8              16
//!            +--------+------------+--------------+----------------+---------+
//!            | "BTNF" | header len | payload len  | header         | payload |
//!            +--------+------------+--------------+----------------+---------+
//! ```
//! A data connection carries one preface and then frames, in one direction only. Version 1 carries them in the clear
//! and its preface ends at 24; version 2 carries them in records under the link's keys, which the proof shows that the
//! dialer has.

use thiserror::Error;

use crate::fabric::HEADER_MAX_BYTES;
use crate::trust::PROOF_BYTES;

/// What is wrong with bytes that should open a connection or a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum FrameError {
    /// Not a Baton data stream.
    #[error("the connection does not begin as a Baton data stream does (got {0:02x?})")]
    NotOurs([u8; 4]),
    /// A version that this build does not speak.
    #[error(
        "the peer speaks data stream version {0}, this build versions {VERSION} and {SEALED_VERSION}: update the older side"
    )]
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

/// Bytes of a preface, without a proof.
pub(super) const PREFACE_BYTES: usize = 24;
/// Bytes of a preface with a proof.
pub(super) const SEALED_PREFACE_BYTES: usize = PREFACE_BYTES + PROOF_BYTES;
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

/// The bytes that open a connection for `link_id` whose frames are sealed.
pub(super) fn encode_sealed_preface(
    link_id: [u8; 16],
    proof: [u8; PROOF_BYTES],
) -> [u8; SEALED_PREFACE_BYTES] {
    let mut out = [0; SEALED_PREFACE_BYTES];
    out[..PREFACE_BYTES].copy_from_slice(&encode_preface(link_id));
    out[4..6].copy_from_slice(&SEALED_VERSION.to_le_bytes());
    out[PREFACE_BYTES..].copy_from_slice(&proof);
    out
}

/// What opens a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preface {
    /// The link that it is for.
    pub(super) link_id: [u8; 16],
    /// Shows that the dialer has the link's keys; without one, frames follow in the clear.
    pub(super) proof: Option<[u8; PROOF_BYTES]>,
}

/// Reads the preface at the front of `bytes`; otherwise, how many bytes it has at least.
pub(super) fn decode_preface(bytes: &[u8]) -> Result<Result<Preface, usize>, FrameError> {
    let Some(head) = bytes.first_chunk::<PREFACE_BYTES>() else { return Ok(Err(PREFACE_BYTES)) };
    let magic = part::<4>(head, 0);
    if &magic != PREFACE_MAGIC {
        return Err(FrameError::NotOurs(magic));
    }
    let link_id = part(head, 8);
    match u16::from_le_bytes(part(head, 4)) {
        VERSION => Ok(Ok(Preface { link_id, proof: None })),
        SEALED_VERSION if bytes.len() < SEALED_PREFACE_BYTES => Ok(Err(SEALED_PREFACE_BYTES)),
        SEALED_VERSION => Ok(Ok(Preface { link_id, proof: Some(part(bytes, PREFACE_BYTES)) })),
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
const SEALED_VERSION: u16 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preface_and_head_survive_the_wire() {
        let plain = Preface { link_id: [7; 16], proof: None };
        assert_eq!(decode_preface(&encode_preface([7; 16])), Ok(Ok(plain)));
        let sealed = encode_sealed_preface([7; 16], [8; PROOF_BYTES]);
        assert_eq!(decode_preface(&sealed), Ok(Ok(Preface { proof: Some([8; PROOF_BYTES]), ..plain })));
        assert_eq!(decode_preface(&sealed[..PREFACE_BYTES - 1]), Ok(Err(PREFACE_BYTES)));
        assert_eq!(decode_preface(&sealed[..PREFACE_BYTES]), Ok(Err(SEALED_PREFACE_BYTES)));
        let head = Head { header_bytes: HEADER_MAX_BYTES, payload_bytes: PAYLOAD_MAX_BYTES };
        assert_eq!(Head::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn strangers_and_other_versions_are_told_apart() {
        assert_eq!(decode_preface(&[b'G'; PREFACE_BYTES]), Err(FrameError::NotOurs(*b"GGGG")));
        let mut preface = encode_preface([0; 16]);
        preface[4] = 9;
        assert_eq!(decode_preface(&preface), Err(FrameError::Version(9)));
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
