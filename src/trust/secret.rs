//! The shared key: parsed once, never shown, wiped when it goes.

use std::fmt;

use ring::hmac;
use thiserror::Error;
use zeroize::Zeroizing;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;

/// The key that the agents of one deployment share. It has no `Clone`, and `Debug` does not show it.
pub struct Secret(Zeroizing<[u8; KEY_BYTES]>);

/// Why a text is no key. Never holds any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadKey {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// Too few digits, or too many.
    #[error("it holds {found} characters, a key is {DIGITS} hex digits")]
    Length {
        /// Characters that there are, without the line's end.
        found: usize,
    },
    /// Something that is no hex digit.
    #[error("character {at} is no hex digit")]
    NoDigit {
        /// Which character, from 1.
        at: usize,
    },
    /// A text that somebody typed to have one.
    #[error("all of its bytes are the same, which is no key")]
    Placeholder,
}

impl Secret {
    /// Reads a key: 64 hex digits, and one line's end if any.
    pub fn parse(text: &[u8]) -> Result<Self, BadKey> {
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            return Err(BadKey::Empty);
        }
        if text.len() != DIGITS {
            return Err(BadKey::Length { found: text.len() });
        }
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        for (at, digit) in text.iter().enumerate() {
            let value = char::from(*digit).to_digit(16).ok_or(BadKey::NoDigit { at: at + 1 })?;
            key[at / 2] = key[at / 2] << 4 | value as u8;
        }
        if key.iter().all(|byte| *byte == key[0]) {
            return Err(BadKey::Placeholder);
        }
        Ok(Self(key))
    }

    /// A short name of the key, for comparing two sides. Nothing can be learned from it about a random key.
    pub fn fingerprint(&self) -> String {
        self.derive(b"fingerprint")[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key for one use.
    pub(super) fn derive(&self, use_of_it: &[u8]) -> Zeroizing<[u8; KEY_BYTES]> {
        derive(&self.0, &[b"baton 1 ", use_of_it])
    }
}

/// A key made of another one and of what it is for.
pub(super) fn derive(key: &[u8; KEY_BYTES], parts: &[&[u8]]) -> Zeroizing<[u8; KEY_BYTES]> {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    let mut derived = Zeroizing::new([0; KEY_BYTES]);
    derived.copy_from_slice(context.sign().as_ref());
    derived
}

/// Whether both are the same, in a time that does not depend on where they differ.
pub(super) fn is_same<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

impl PartialEq for Secret {
    /// In a time that does not depend on where they differ.
    fn eq(&self, other: &Self) -> bool {
        is_same(&self.0, &other.0)
    }
}

impl Eq for Secret {}

const DIGITS: usize = 2 * KEY_BYTES;

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00112233445566778899aabbccddeeffFFEEDDCCBBAA99887766554433221100";

    #[test]
    fn hex_with_or_without_a_line_end_is_a_key() {
        let key = Secret::parse(TEXT.as_bytes()).expect("a key");
        for end in ["\n", "\r\n"] {
            assert_eq!(Secret::parse(format!("{TEXT}{end}").as_bytes()).as_ref(), Ok(&key));
        }
        assert_eq!(key.0[..3], [0x00, 0x11, 0x22]);
        assert_eq!(key.0[16..18], [0xff, 0xee]);
    }

    #[test]
    fn what_is_no_key_is_refused_without_showing_it() {
        let table: [(&[u8], BadKey); 6] = [
            (b"", BadKey::Empty),
            (b"\n", BadKey::Empty),
            (&TEXT.as_bytes()[..63], BadKey::Length { found: 63 }),
            (&[TEXT.as_bytes(), b"\n\n"].concat(), BadKey::Length { found: 65 }),
            (&[&TEXT.as_bytes()[..63], b"g"].concat(), BadKey::NoDigit { at: 64 }),
            (&[b'0'; 64], BadKey::Placeholder),
        ];
        for (text, expected) in table {
            assert_eq!(Secret::parse(text).expect_err("no key"), expected);
        }
    }

    #[test]
    fn a_key_does_not_show_and_its_fingerprint_tells_keys_apart() {
        let key = Secret::parse(TEXT.as_bytes()).expect("a key");
        assert_eq!(format!("{key:?} {:?}", Some(&key)), "Secret(not shown) Some(Secret(not shown))");
        let other = Secret::parse(TEXT.replace("00", "01").as_bytes()).expect("a key");
        assert_ne!(key, other);
        assert_ne!(key.fingerprint(), other.fingerprint());
        assert_eq!(key.fingerprint().len(), 8);
        assert!(!TEXT.to_lowercase().contains(&key.fingerprint()));
    }

    #[test]
    fn each_use_has_a_key_of_its_own() {
        let key = Secret::parse(TEXT.as_bytes()).expect("a key");
        assert_ne!(*key.derive(b"a"), *key.derive(b"b"));
        assert_ne!(*key.derive(b"a"), *key.0);
    }
}
