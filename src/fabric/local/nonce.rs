//! The 32 bytes by which a process's memory is recognised: a pid says which process, the nonce that it is this one.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{FabricError, FabricErrorKind};

/// Length of a nonce.
pub(super) const NONCE_BYTES: usize = 32;
/// Length of an address: where the nonce is, and what it is.
pub(super) const ADDRESS_BYTES: usize = 8 + NONCE_BYTES;

/// Our own nonce, in memory that peers read. Gone with the fabric.
pub(super) struct Nonce {
    // Atomics, because other processes look at them: the erasure in `drop` is not for the optimiser to leave out.
    words: Box<[AtomicU64; NONCE_BYTES / 8]>,
}

impl Nonce {
    /// Random bytes from the kernel.
    pub fn new() -> Result<Self, FabricError> {
        let mut words = [0; NONCE_BYTES / 8];
        for word in &mut words {
            *word = getrandom::u64().map_err(|error| {
                FabricError::new("local", "getrandom", FabricErrorKind::NoResource, 0, error.to_string())
            })?;
        }
        Ok(Self { words: Box::new(words.map(AtomicU64::new)) })
    }

    /// What a peer needs to recognise this process.
    pub fn address(&self) -> Vec<u8> {
        let mut address = (self.words.as_ptr() as u64).to_le_bytes().to_vec();
        self.words.iter().for_each(|word| address.extend(word.load(Ordering::Relaxed).to_ne_bytes()));
        address
    }
}

impl Drop for Nonce {
    fn drop(&mut self) {
        self.words.iter().for_each(|word| word.store(0, Ordering::SeqCst));
    }
}

/// A peer's nonce and where it is in the peer's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NonceAt {
    pub addr: u64,
    pub value: [u8; NONCE_BYTES],
}

impl NonceAt {
    /// Reads an address that [`Nonce::address`] wrote.
    pub fn parse(address: &[u8]) -> Result<Self, FabricError> {
        let exact: Result<&[u8; ADDRESS_BYTES], _> = address.try_into();
        let parts = exact.ok().and_then(|exact| {
            let (addr, value) = exact.split_first_chunk()?;
            Some(Self { addr: u64::from_le_bytes(*addr), value: value.try_into().ok()? })
        });
        parts.ok_or_else(|| {
            let detail = format!("the peer's address has {} bytes, not {ADDRESS_BYTES}", address.len());
            FabricError::new("local", "connect", FabricErrorKind::Unreachable, 0, detail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_round_trips() {
        let nonce = Nonce::new().expect("random bytes");
        let at = NonceAt::parse(&nonce.address()).expect("our own address");
        assert_eq!(at.addr, nonce.words.as_ptr() as u64);
        assert_ne!(at.value, [0; NONCE_BYTES]);
        assert_ne!(at.value, NonceAt::parse(&Nonce::new().expect("random").address()).expect("ours").value);
    }

    #[test]
    fn other_lengths_are_refused() {
        for len in [0, 1, ADDRESS_BYTES - 1, ADDRESS_BYTES + 1] {
            assert!(NonceAt::parse(&vec![1; len]).is_err(), "{len} bytes");
        }
    }
}
