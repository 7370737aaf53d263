//! What a peer gets to reach an allocation: a handle of the driver's, and what it is a handle to.
//!
//! ```text
//!   0        version, 1
//!   1        kind: 1 legacy handle, 2 file descriptor, 3 fabric handle
//!   2..18    uuid of the device
//!   18..26   address of the allocation in its owner's process, little-endian
//!   26..34   its length in bytes, little-endian
//!   34..     64 bytes of handle, or 4 bytes: the descriptor's number in its owner's process, little-endian
//! ```
//!
//! It comes from a peer: decoding is total, and refuses what no encoder writes.

use thiserror::Error;

use crate::desc::Span;

/// How the driver names an allocation to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleKind {
    /// A legacy handle (`cuIpcGetMemHandle`): memory of `cuMemAlloc`.
    Ipc([u8; 64]),
    /// A file descriptor, by its number in the owner's process: VMM memory on one host.
    Fd(i32),
    /// A fabric handle: VMM memory within one NVLink domain, across hosts too.
    Fabric([u8; 64]),
}

/// An allocation as its owner offers it to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedHandle {
    /// The driver's handle.
    pub kind: HandleKind,
    /// The device that the memory lies on.
    pub uuid: [u8; 16],
    /// The allocation or VMM chunk, in the address space of its owner. What a peer maps is all of it.
    pub whole: Span,
}

/// Why bytes are no handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandleError {
    /// Neither of the two lengths that there are.
    #[error("a handle of GPU memory has {0} bytes, which no version writes")]
    Length(usize),
    /// An unknown version or kind.
    #[error("a handle of GPU memory of version {version} and kind {kind}, which this side does not know")]
    Unknown {
        /// Its first byte.
        version: u8,
        /// Its second byte.
        kind: u8,
    },
    /// The allocation is empty, or wraps.
    #[error("a handle of GPU memory of {len} bytes at {addr:#x}, which cannot be")]
    Span {
        /// The address it gives.
        addr: u64,
        /// The length it gives.
        len: u64,
    },
    /// The descriptor's number is negative.
    #[error("a handle of GPU memory with the file descriptor {0}")]
    Descriptor(i32),
}

impl HandleKind {
    /// What log lines call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ipc(_) => "CUDA IPC",
            Self::Fd(_) => "VMM file descriptor",
            Self::Fabric(_) => "VMM fabric handle",
        }
    }
}

impl SharedHandle {
    /// Longest encoding, in bytes.
    pub const ENCODED_MAX_BYTES: usize = HEAD_BYTES + 64;

    /// The bytes that a peer decodes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, 0];
        bytes.extend(self.uuid);
        bytes.extend(self.whole.addr.to_le_bytes());
        bytes.extend(self.whole.len.to_le_bytes());
        bytes[1] = match self.kind {
            HandleKind::Ipc(handle) => {
                bytes.extend(handle);
                IPC
            }
            HandleKind::Fd(number) => {
                bytes.extend(number.to_le_bytes());
                FD
            }
            HandleKind::Fabric(handle) => {
                bytes.extend(handle);
                FABRIC
            }
        };
        bytes
    }

    /// What a peer has encoded. The bytes are all of it: nothing may follow.
    pub fn decode(bytes: &[u8]) -> Result<Self, HandleError> {
        let length = HandleError::Length(bytes.len());
        let (&[version, kind], rest) = bytes.split_first_chunk().ok_or(length)?;
        let (uuid, rest) = rest.split_first_chunk().ok_or(length)?;
        let (addr, rest) = rest.split_first_chunk().ok_or(length)?;
        let (len, handle) = rest.split_first_chunk().ok_or(length)?;
        let kind = match (version, kind) {
            (VERSION, IPC) => HandleKind::Ipc(handle.try_into().map_err(|_| length)?),
            (VERSION, FD) => HandleKind::Fd(i32::from_le_bytes(handle.try_into().map_err(|_| length)?)),
            (VERSION, FABRIC) => HandleKind::Fabric(handle.try_into().map_err(|_| length)?),
            _ => return Err(HandleError::Unknown { version, kind }),
        };
        if let HandleKind::Fd(number @ ..0) = kind {
            return Err(HandleError::Descriptor(number));
        }
        let whole = Span { addr: u64::from_le_bytes(*addr), len: u64::from_le_bytes(*len) };
        if whole.len == 0 || whole.end().is_none() {
            return Err(HandleError::Span { addr: whole.addr, len: whole.len });
        }
        Ok(Self { kind, uuid: *uuid, whole })
    }
}

const VERSION: u8 = 1;
const IPC: u8 = 1;
const FD: u8 = 2;
const FABRIC: u8 = 3;
const HEAD_BYTES: usize = 2 + 16 + 8 + 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn handle(kind: HandleKind) -> SharedHandle {
        let uuid = std::array::from_fn(|at| at as u8);
        SharedHandle { kind, uuid, whole: Span { addr: 0x7f00_0020_0000, len: 2 << 20 } }
    }

    fn all() -> [SharedHandle; 3] {
        [HandleKind::Ipc([0x5a; 64]), HandleKind::Fd(17), HandleKind::Fabric([0xa5; 64])].map(handle)
    }

    #[test]
    fn round_trips() {
        for handle in all() {
            let bytes = handle.encode();
            assert!(bytes.len() <= SharedHandle::ENCODED_MAX_BYTES);
            assert_eq!(SharedHandle::decode(&bytes), Ok(handle));
        }
    }

    #[test]
    fn every_byte_has_its_place() {
        let bytes = handle(HandleKind::Fd(0x0102_0304)).encode();
        let mut expected = vec![1, 2];
        expected.extend(0..16);
        expected.extend([0, 0, 0x20, 0, 0, 0x7f, 0, 0]);
        expected.extend([0, 0, 0x20, 0, 0, 0, 0, 0]);
        expected.extend([4, 3, 2, 1]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn other_lengths_are_refused() {
        for handle in all() {
            let mut bytes = handle.encode();
            bytes.push(0);
            while !bytes.is_empty() {
                if bytes.len() != handle.encode().len() {
                    assert_eq!(SharedHandle::decode(&bytes), Err(HandleError::Length(bytes.len())));
                }
                bytes.pop();
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut unknown = all()[0].encode();
        unknown[1] = 4;
        assert_eq!(SharedHandle::decode(&unknown), Err(HandleError::Unknown { version: 1, kind: 4 }));
        let empty = SharedHandle { whole: Span { addr: 1, len: 0 }, ..all()[0] };
        assert_eq!(SharedHandle::decode(&empty.encode()), Err(HandleError::Span { addr: 1, len: 0 }));
        let wraps = SharedHandle { whole: Span { addr: 2, len: u64::MAX }, ..all()[0] };
        assert_eq!(SharedHandle::decode(&wraps.encode()), Err(HandleError::Span { addr: 2, len: u64::MAX }));
        assert_eq!(
            SharedHandle::decode(&handle(HandleKind::Fd(-1)).encode()),
            Err(HandleError::Descriptor(-1))
        );
    }

    proptest! {
        #[test]
        fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(handle) = SharedHandle::decode(&bytes) {
                prop_assert_eq!(handle.encode(), bytes);
            }
        }
    }
}
