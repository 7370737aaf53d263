//! The bytes that UCX fabrics hand each other through their agents: the address and the region keys.
//!
//! ```text
//! address  "BUXA" | version u8 | worker address (u16 length, bytes) | probe key (u16 length, bytes)
//!                 | probe address u64 | nonce 32 bytes | FNV-1a of all before, u32        little-endian
//! key      "BUXK" | version u8 | remote key (u16 length, bytes) | FNV-1a of all before, u32
//! ```
//!
//! UCX takes both blobs without a length and trusts what is in them. So they travel in an envelope that a
//! truncated, foreign or damaged one does not pass. It is no protection against forgery: that is the agents'
//! handshake.

use crate::error::{FabricError, FabricErrorKind};

const ADDRESS_MAGIC: &[u8; 4] = b"BUXA";
const KEY_MAGIC: &[u8; 4] = b"BUXK";
const VERSION: u8 = 1;

/// Longest worker address or key that is taken; UCX's are some tens to hundreds of bytes.
const BLOB_MAX_BYTES: usize = 8 * 1024;

/// Random bytes at the start of a fabric's probe area, by which a peer sees that it reads the right memory.
pub(super) const NONCE_BYTES: usize = 32;

/// What a peer needs to reach a fabric and to prove that it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// UCX's address of the worker that peers connect to.
    pub worker: Vec<u8>,
    /// Packed key of the probe area.
    pub probe_key: Vec<u8>,
    /// Where the probe area is.
    pub probe_addr: u64,
    /// What it starts with.
    pub nonce: [u8; NONCE_BYTES],
}

impl Address {
    /// The bytes for [`Fabric::address`](crate::fabric::Fabric::address).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = head(ADDRESS_MAGIC);
        put_blob(&mut out, &self.worker);
        put_blob(&mut out, &self.probe_key);
        out.extend_from_slice(&self.probe_addr.to_le_bytes());
        out.extend_from_slice(&self.nonce);
        seal(out)
    }

    /// What the bytes say, or `Unreachable` naming the fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, FabricError> {
        let refuse = |what: &str| {
            let detail = format!("the peer's UCX address is {what}");
            FabricError::new(super::NAME, "connect", FabricErrorKind::Unreachable, 0, detail)
        };
        let mut rest = open(ADDRESS_MAGIC, bytes).map_err(refuse)?;
        let worker = take_blob(&mut rest).ok_or_else(|| refuse("truncated"))?;
        let probe_key = take_blob(&mut rest).ok_or_else(|| refuse("truncated"))?;
        let probe_addr = take_array(&mut rest).ok_or_else(|| refuse("truncated"))?;
        let nonce = take_array(&mut rest).ok_or_else(|| refuse("truncated"))?;
        if !rest.is_empty() {
            return Err(refuse("too long"));
        }
        Ok(Self { worker, probe_key, probe_addr: u64::from_le_bytes(probe_addr), nonce })
    }
}

/// The bytes for a region's packed key.
pub(super) fn encode_key(packed: &[u8]) -> Vec<u8> {
    let mut out = head(KEY_MAGIC);
    put_blob(&mut out, packed);
    seal(out)
}

/// The packed key again, or `InvalidRegion` naming the fault.
pub(super) fn decode_key(bytes: &[u8]) -> Result<Vec<u8>, FabricError> {
    let refuse = |what: &str| {
        let detail = format!("the peer's region key is {what}");
        FabricError::new(super::NAME, "import", FabricErrorKind::InvalidRegion, 0, detail)
    };
    let mut rest = open(KEY_MAGIC, bytes).map_err(refuse)?;
    let packed = take_blob(&mut rest).ok_or_else(|| refuse("truncated"))?;
    if rest.is_empty() { Ok(packed) } else { Err(refuse("too long")) }
}

fn head(magic: &[u8; 4]) -> Vec<u8> {
    let mut out = magic.to_vec();
    out.push(VERSION);
    out
}

fn put_blob(out: &mut Vec<u8>, blob: &[u8]) {
    debug_assert!(blob.len() <= BLOB_MAX_BYTES);
    out.extend_from_slice(&(blob.len() as u16).to_le_bytes());
    out.extend_from_slice(blob);
}

pub(super) fn seal(mut out: Vec<u8>) -> Vec<u8> {
    let sum = fnv1a(&out);
    out.extend_from_slice(&sum.to_le_bytes());
    out
}

/// The fields between head and checksum.
fn open<'a>(magic: &[u8; 4], bytes: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let (body, sum) = bytes.split_last_chunk::<4>().ok_or("truncated")?;
    let rest = body.strip_prefix(magic).ok_or("not one of Baton's")?;
    if fnv1a(body) != u32::from_le_bytes(*sum) {
        return Err("damaged");
    }
    match rest.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some(_) => Err("of another version"),
        None => Err("truncated"),
    }
}

fn take_blob(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let len = usize::from(u16::from_le_bytes(take_array(rest)?));
    if len == 0 || len > BLOB_MAX_BYTES {
        return None;
    }
    let (blob, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(blob.to_vec())
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*array)
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        Address { worker: vec![7; 81], probe_key: vec![9; 10], probe_addr: 0x7f00_1234_5000, nonce: [3; 32] }
    }

    #[test]
    fn addresses_and_keys_come_back() {
        assert_eq!(Address::decode(&address().encode()), Ok(address()));
        assert_eq!(decode_key(&encode_key(&[1, 2, 3])), Ok(vec![1, 2, 3]));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_refused() {
        for good in [address().encode(), encode_key(&[1; 10])] {
            for len in 0..good.len() {
                assert!(Address::decode(&good[..len]).is_err() && decode_key(&good[..len]).is_err());
            }
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(Address::decode(&bad).is_err() && decode_key(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn one_is_not_taken_for_the_other() {
        assert_eq!(decode_key(&address().encode()).unwrap_err().kind, FabricErrorKind::InvalidRegion);
        assert_eq!(Address::decode(&encode_key(&[1; 80])).unwrap_err().kind, FabricErrorKind::Unreachable);
    }
}
