//! The code that authenticates a blob: HMAC-SHA256 over the agent's name and all of its section but the code.

use ring::hmac;

use super::error::TrustError;
use super::secret::{Secret, is_same};

/// Bytes of a code.
pub const MAC_BYTES: usize = 32;

/// The code of a blob: of the agent's name and the parts that make up its section.
pub fn blob_mac(secret: &Secret, name: &str, section: &[&[u8]]) -> [u8; MAC_BYTES] {
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(context(secret, name, section).sign().as_ref());
    mac
}

/// Whether a blob may be used: the code that it bears, against our key.
pub fn check_blob(
    secret: Option<&Secret>,
    mac: Option<&[u8; MAC_BYTES]>,
    name: &str,
    section: &[&[u8]],
) -> Result<(), TrustError> {
    match (secret, mac) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(TrustError::KeyWanted),
        (Some(_), None) => Err(TrustError::KeyMissing),
        (Some(secret), Some(mac)) => {
            let expected = blob_mac(secret, name, section);
            if is_same(&expected, mac) { Ok(()) } else { Err(TrustError::AlteredBlob) }
        }
    }
}

fn context(secret: &Secret, name: &str, section: &[&[u8]]) -> hmac::Context {
    let key = secret.derive(b"blob");
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*key));
    context.update(&(name.len() as u64).to_le_bytes());
    context.update(name.as_bytes());
    section.iter().for_each(|part| context.update(part));
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Secret {
        let text: String = (0..32).map(|at| format!("{:02x}", byte ^ at)).collect();
        Secret::parse(text.as_bytes()).expect("a key")
    }

    #[test]
    fn every_part_counts() {
        let (ours, theirs) = (key(1), key(2));
        let mac = blob_mac(&ours, "gen", &[b"head", b"tail"]);
        assert_eq!(check_blob(Some(&ours), Some(&mac), "gen", &[b"head", b"tail"]), Ok(()));
        assert_eq!(
            check_blob(Some(&ours), Some(&mac), "gen", &[b"headtail"]),
            Ok(()),
            "where it is cut is nothing"
        );
        let altered = Err(TrustError::AlteredBlob);
        assert_eq!(check_blob(Some(&ours), Some(&mac), "gex", &[b"head", b"tail"]), altered);
        assert_eq!(check_blob(Some(&ours), Some(&mac), "genh", &[b"ead", b"tail"]), altered);
        assert_eq!(check_blob(Some(&ours), Some(&mac), "gen", &[b"head", b"tall"]), altered);
        assert_eq!(check_blob(Some(&theirs), Some(&mac), "gen", &[b"head", b"tail"]), altered);
        for at in 0..MAC_BYTES {
            let mut bent = mac;
            bent[at] ^= 1;
            assert_eq!(
                check_blob(Some(&ours), Some(&bent), "gen", &[b"head", b"tail"]),
                altered,
                "byte {at}"
            );
        }
    }

    #[test]
    fn one_key_alone_is_refused_either_way() {
        let (ours, mac) = (key(1), [0; MAC_BYTES]);
        assert_eq!(check_blob(None, None, "gen", &[]), Ok(()));
        assert_eq!(check_blob(None, Some(&mac), "gen", &[]), Err(TrustError::KeyWanted));
        assert_eq!(check_blob(Some(&ours), None, "gen", &[]), Err(TrustError::KeyMissing));
    }
}
