//! This fabric's decoders, for fuzz targets alone: no part of the interface. The functions that only decode say
//! whether the bytes were taken.

use super::wire::{Address, decode_key, encode_key, seal};

/// Reads an address; what is taken comes back as it came.
pub fn address(bytes: &[u8]) -> bool {
    let Ok(address) = Address::decode(bytes) else { return false };
    assert_eq!(address.encode(), bytes);
    true
}

/// Reads a key; what is taken comes back as it came.
pub fn key(bytes: &[u8]) -> bool {
    let Ok(packed) = decode_key(bytes) else { return false };
    assert_eq!(encode_key(&packed), bytes);
    true
}

/// The bytes with the sum behind them that makes them whole: random bytes alone never have the right one.
pub fn sealed(bytes: &[u8]) -> Vec<u8> {
    seal(bytes.to_vec())
}
