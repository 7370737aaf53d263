//! The handshake of a sealed stream, from both sides, and the file that holds the key.

use baton::trust::{ANSWER_MAX_BYTES, Answered, Asked, Initiator, Purpose, Responder, SEED_BYTES, Secret};

/// Nobody without the key is answered with more than the handshake has, and an opening that is cut is waited for. The
/// first byte says who reads the bytes: 0 the side that was dialed, 1 the one that dialed, 2 the reader of keys.
pub fn run(data: &[u8]) -> bool {
    let Some((mode, bytes)) = data.split_first() else { return false };
    match mode % 3 {
        0 => match Responder::handle(&secret(), Purpose::Control, SEED, bytes) {
            Ok(Asked::Answer(_, answer)) => {
                assert!(answer.len() <= ANSWER_MAX_BYTES);
                true
            }
            Ok(Asked::Unclear) | Err(_) => false,
        },
        1 => {
            let (mut initiator, _) = Initiator::new(&secret(), Purpose::Control, SEED).expect("an opening");
            match initiator.handle(bytes) {
                Ok(Answered::Sealed(_, taken)) => {
                    assert!(taken <= bytes.len());
                    true
                }
                Ok(Answered::Unclear) | Err(_) => false,
            }
        }
        _ => {
            let key = Secret::parse(bytes);
            assert!(format!("{key:?}").len() < 200, "no key is shown");
            key.is_ok()
        }
    }
}

/// A key that everybody knows.
pub fn secret() -> Secret {
    Secret::parse(&b"0123456789abcdef".repeat(4)).expect("a key")
}

/// What should be random.
pub const SEED: [u8; SEED_BYTES] = [3; SEED_BYTES];
