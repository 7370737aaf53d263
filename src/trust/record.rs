//! Records: what carries bytes once two sides have keys. AES-256-GCM, sealed and opened in place.
//!
//! ```text
//!   0         2                          n
//!   +---------+--------------------------+----------+
//!   | n + 16  | n bytes, sealed          | tag (16) |        n from 1 to PLAIN_MAX_BYTES; u16 little-endian
//!   +---------+--------------------------+----------+
//! ```
//! One direction of one connection has one key. Records are numbered from 0 and the number is the nonce, so a record
//! that is altered, repeated, left out, reordered or of another connection does not open. After `REKEY_RECORDS` the
//! key is replaced by one made from it, on both sides at once: no key seals more than 64 GiB, and an old one cannot
//! be had from a newer one.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::error::TrustError;
use super::secret::KEY_BYTES;

/// Bytes of a record's head.
pub const RECORD_HEAD_BYTES: usize = 2;
/// Bytes of the tag that ends a record.
pub const TAG_BYTES: usize = 16;
/// Most bytes that one record carries: whole blocks of the cipher, and a length that 16 bits hold.
pub const PLAIN_MAX_BYTES: usize = 65_504;
/// The longest record.
pub const RECORD_MAX_BYTES: usize = RECORD_HEAD_BYTES + PLAIN_MAX_BYTES + TAG_BYTES;

/// Records that one key seals.
const REKEY_RECORDS: u64 = 1 << 20;

/// Seals the records of one direction.
#[derive(Debug)]
pub struct Sealer(Numbered);

/// Opens the records of one direction.
#[derive(Debug)]
pub struct Opener {
    numbered: Numbered,
    /// Set by the first record that does not open: none after it does.
    failed: bool,
}

/// A key, and the number of the record that comes next.
struct Numbered {
    key: LessSafeKey,
    raw: Zeroizing<[u8; KEY_BYTES]>,
    next: u64,
}

impl Sealer {
    /// Seals from record 0 on. A key is for one sealer only.
    pub(super) fn new(key: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, TrustError> {
        Numbered::new(key).map(Self)
    }

    /// Makes a record of `record`: room for the head, then what is to be sealed, then room for the tag.
    pub fn seal(&mut self, record: &mut [u8]) -> Result<(), TrustError> {
        let plain = record.len().checked_sub(RECORD_HEAD_BYTES + TAG_BYTES).ok_or(TrustError::Internal)?;
        if plain == 0 || plain > PLAIN_MAX_BYTES {
            return Err(TrustError::Internal);
        }
        let (head, body) = record.split_at_mut(RECORD_HEAD_BYTES);
        head.copy_from_slice(&(body.len() as u16).to_le_bytes());
        let (text, tag) = body.split_at_mut(plain);
        let nonce = self.0.nonce()?;
        let made = self.0.key.seal_in_place_separate_tag(nonce, Aad::empty(), text);
        tag.copy_from_slice(made.map_err(|_| TrustError::Internal)?.as_ref());
        Ok(())
    }

    /// Seals `plain` in as many records as it takes, and appends them.
    pub fn seal_all(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TrustError> {
        for piece in plain.chunks(PLAIN_MAX_BYTES) {
            let start = out.len();
            out.extend_from_slice(&[0; RECORD_HEAD_BYTES]);
            out.extend_from_slice(piece);
            out.extend_from_slice(&[0; TAG_BYTES]);
            self.seal(&mut out[start..])?;
        }
        Ok(())
    }
}

impl Opener {
    /// Opens from record 0 on.
    pub(super) fn new(key: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, TrustError> {
        Ok(Self { numbered: Numbered::new(key)?, failed: false })
    }

    /// Opens the body of a record, without its head, in place. After an error nothing of this direction is to be
    /// believed any more: nothing opens.
    pub fn open<'a>(&mut self, body: &'a mut [u8]) -> Result<&'a [u8], TrustError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(TrustError::BadRecord);
        }
        let nonce = self.numbered.nonce()?;
        let plain = self.numbered.key.open_in_place(nonce, Aad::empty(), body);
        let plain = plain.map_err(|_| TrustError::BadRecord)?;
        self.failed = false;
        Ok(plain)
    }

    /// Opens the whole records at the front of `sealed` and appends what they carry. Says how many bytes they were.
    pub fn open_all(&mut self, sealed: &mut [u8], out: &mut Vec<u8>) -> Result<usize, TrustError> {
        let mut at = 0;
        while let Some(head) = sealed[at..].first_chunk() {
            let len = body_len(*head).inspect_err(|_| self.failed = true)?;
            let start = at + RECORD_HEAD_BYTES;
            let Some(body) = sealed.get_mut(start..start + len) else { break };
            out.extend_from_slice(self.open(body)?);
            at = start + len;
        }
        Ok(at)
    }
}

/// The length of the body that a head announces.
pub fn body_len(head: [u8; RECORD_HEAD_BYTES]) -> Result<usize, TrustError> {
    let len = usize::from(u16::from_le_bytes(head));
    if len <= TAG_BYTES || len > PLAIN_MAX_BYTES + TAG_BYTES {
        return Err(TrustError::BadRecord);
    }
    Ok(len)
}

impl Numbered {
    fn new(raw: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, TrustError> {
        Ok(Self { key: aead_key(&raw)?, raw, next: 0 })
    }

    /// The nonce of the next record; replaces the key when its time has come.
    fn nonce(&mut self) -> Result<Nonce, TrustError> {
        let number = self.next;
        self.next = number.checked_add(1).filter(|next| *next < REKEY_NUMBER).ok_or(TrustError::UsedUp)?;
        if number > 0 && number.is_multiple_of(REKEY_RECORDS) {
            self.rekey()?;
        }
        Ok(nonce(number))
    }

    /// As Noise does it: the new key is what the old one makes of 32 zeroes under a number that no record has.
    fn rekey(&mut self) -> Result<(), TrustError> {
        let mut raw = Zeroizing::new([0; KEY_BYTES]);
        let sealed = self.key.seal_in_place_separate_tag(nonce(REKEY_NUMBER), Aad::empty(), &mut *raw);
        let _tag = sealed.map_err(|_| TrustError::Internal)?;
        (self.key, self.raw) = (aead_key(&raw)?, raw);
        Ok(())
    }
}

impl std::fmt::Debug for Numbered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Numbered").field("next", &self.next).finish_non_exhaustive()
    }
}

fn aead_key(raw: &[u8; KEY_BYTES]) -> Result<LessSafeKey, TrustError> {
    UnboundKey::new(&AES_256_GCM, raw).map(LessSafeKey::new).map_err(|_| TrustError::Internal)
}

/// As Noise has it for this cipher: four zeroes, then the number, big-endian.
fn nonce(number: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

const REKEY_NUMBER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> (Sealer, Opener) {
        let key = || Zeroizing::new([7; KEY_BYTES]);
        (Sealer::new(key()).expect("a key"), Opener::new(key()).expect("a key"))
    }

    fn sealed(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        sealer.seal_all(plain, &mut out).expect("seals");
        out
    }

    #[test]
    fn long_texts_take_several_records() {
        let (mut sealer, mut opener) = pair();
        let plain: Vec<u8> = (0..PLAIN_MAX_BYTES * 2 + 1).map(|at| at as u8).collect();
        let mut records = sealed(&mut sealer, &plain);
        assert_eq!(records.len(), plain.len() + 3 * (RECORD_HEAD_BYTES + TAG_BYTES));
        let (mut out, whole) = (Vec::new(), 2 * RECORD_MAX_BYTES);
        assert_eq!(opener.open_all(&mut records[..whole + 5], &mut out), Ok(whole), "a part of one is left");
        assert_eq!(opener.open_all(&mut records[whole..], &mut out), Ok(records.len() - whole));
        assert!(out == plain);
    }

    #[test]
    fn nothing_opens_after_a_record_that_did_not() {
        let (mut sealer, mut opener) = pair();
        let (mut first, mut second) = (sealed(&mut sealer, b"one"), sealed(&mut sealer, b"two"));
        first[RECORD_HEAD_BYTES] ^= 1;
        let mut out = Vec::new();
        assert_eq!(opener.open_all(&mut first, &mut out), Err(TrustError::BadRecord));
        assert_eq!(opener.open_all(&mut second, &mut out), Err(TrustError::BadRecord), "its number is right");
        assert_eq!(opener.open_all(&mut sealed(&mut sealer, b"three"), &mut out), Err(TrustError::BadRecord));
        assert!(out.is_empty());
    }

    #[test]
    fn no_record_opens_twice_or_out_of_turn() {
        let (mut sealer, _) = pair();
        let records: Vec<_> = (0..3).map(|number| sealed(&mut sealer, &[number])).collect();
        let open = |order: &[usize]| {
            let (_, mut opener) = pair();
            let mut bytes: Vec<u8> = order.iter().flat_map(|at| records[*at].clone()).collect();
            let mut out = Vec::new();
            opener.open_all(&mut bytes, &mut out).map(|_| out)
        };
        assert_eq!(open(&[0, 1, 2]), Ok(vec![0, 1, 2]));
        for order in [&[0, 0][..], &[1], &[0, 2], &[0, 1, 0]] {
            assert_eq!(open(order), Err(TrustError::BadRecord), "{order:?}");
        }
    }

    #[test]
    fn lengths_are_bounded_both_ways() {
        for len in [0, TAG_BYTES, PLAIN_MAX_BYTES + TAG_BYTES + 1, usize::from(u16::MAX)] {
            assert_eq!(body_len((len as u16).to_le_bytes()), Err(TrustError::BadRecord), "{len}");
        }
        for len in [TAG_BYTES + 1, PLAIN_MAX_BYTES + TAG_BYTES] {
            assert_eq!(body_len((len as u16).to_le_bytes()), Ok(len));
        }
        let (mut sealer, _) = pair();
        for len in [0, RECORD_HEAD_BYTES + TAG_BYTES, RECORD_MAX_BYTES + 1] {
            assert_eq!(sealer.seal(&mut vec![0; len]), Err(TrustError::Internal), "{len}");
        }
    }

    #[test]
    fn both_sides_replace_the_key_at_the_same_record() {
        let (mut sealer, mut opener) = pair();
        (sealer.0.next, opener.numbered.next) = (REKEY_RECORDS - 1, REKEY_RECORDS - 1);
        let old = *sealer.0.raw;
        for number in 0..3 {
            let mut bytes = sealed(&mut sealer, &[number]);
            let mut out = Vec::new();
            opener.open_all(&mut bytes, &mut out).expect("opens");
            assert_eq!(out, [number]);
            assert_eq!(*sealer.0.raw == old, number == 0, "record {number}");
        }
        sealer.0.next = u64::MAX - 1;
        assert_eq!(sealer.seal(&mut [0; 40]), Err(TrustError::UsedUp));
    }

    proptest! {
        #[test]
        fn a_bent_bit_never_opens(plain in proptest::collection::vec(any::<u8>(), 1..80), bit: usize) {
            let (mut sealer, mut opener) = pair();
            let mut bytes = sealed(&mut sealer, &plain);
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut out = Vec::new();
            // A bent length may also make it a longer record, which never comes whole.
            prop_assert!(matches!(opener.open_all(&mut bytes, &mut out), Err(TrustError::BadRecord) | Ok(0)));
            prop_assert!(out.is_empty());
        }

        #[test]
        fn garbage_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (_, mut opener) = pair();
            let _ = opener.open_all(&mut bytes, &mut Vec::new());
        }
    }
}
