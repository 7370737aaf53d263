//! What a peer has to know ahead: which GPUs this process sees.
//!
//! ```text
//!   0        version, 1
//!   1        number of devices, at least 1
//!   2..      a uuid of 16 bytes each
//! ```

use crate::device::Cuda;
use crate::error::{FabricError, FabricErrorKind};

use super::error;

/// See the [module](self).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    uuids: Vec<[u8; 16]>,
}

impl Address {
    /// Ours.
    pub fn of(cuda: &Cuda) -> Self {
        Self { uuids: (0..cuda.device_count()).take(DEVICES_MAX).filter_map(|n| cuda.uuid(n)).collect() }
    }

    pub fn encode(&self) -> Vec<u8> {
        let head = [VERSION, self.uuids.len() as u8]; // at most DEVICES_MAX
        head.into_iter().chain(self.uuids.iter().copied().flatten()).collect()
    }

    /// What a peer has encoded. Total.
    pub fn decode(bytes: &[u8]) -> Result<Self, FabricError> {
        let unreadable = || {
            let detail = format!("an address of {} bytes that no version of this fabric writes", bytes.len());
            error("connect", FabricErrorKind::Unreachable, detail)
        };
        let ([VERSION, count], uuids) = bytes.split_at_checked(2).ok_or_else(unreadable)? else {
            return Err(unreadable());
        };
        let (uuids, rest) = uuids.as_chunks::<16>();
        match uuids.len() == usize::from(*count) && rest.is_empty() && *count > 0 {
            true => Ok(Self { uuids: uuids.to_vec() }),
            false => Err(unreadable()),
        }
    }

    /// Whether this process sees a GPU of the peer's.
    pub fn check(&self, cuda: &Cuda) -> Result<(), FabricError> {
        if self.uuids.iter().any(|uuid| cuda.ordinal_of(uuid).is_some()) {
            return Ok(());
        }
        let detail = format!(
            "none of the peer's {} GPUs is visible in this process, so none of its memory can be mapped: let both \
             processes see each other's GPUs (CUDA_VISIBLE_DEVICES)",
            self.uuids.len()
        );
        Err(error("connect", FabricErrorKind::Unsupported, detail))
    }
}

const VERSION: u8 = 1;
/// More GPUs than a host has.
const DEVICES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_was_and_nothing_else_is_one() {
        let address = Address { uuids: vec![[1; 16], [2; 16]] };
        let bytes = address.encode();
        assert_eq!(Address::decode(&bytes).ok(), Some(address));
        for len in 0..bytes.len() {
            assert!(Address::decode(&bytes[..len]).is_err(), "{len}");
        }
        assert!(Address::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
        assert!(Address::decode(&[2, 1]).is_err() && Address::decode(&[1, 0]).is_err());
    }
}
