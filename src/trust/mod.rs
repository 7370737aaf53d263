//! Who may take part: a key that the agents of a deployment share, and what is proved and hidden with it.
//!
//! ```text
//!   [`Secret`] ---- [`Initiator`], [`Responder`] ----> [`Channel`]      control streams: Noise NNpsk0, then records
//!      |              (Noise, `handshake`)                |
//!      |                                               [`LinkKeys`]     data links: records under keys of their own
//!      +----------- [`blob_mac`], [`check_blob`]                        blobs: HMAC-SHA256
//! ```
//!
//! Sans-IO, like `proto`: bytes in, bytes out, and random bytes are arguments, so that all of it can be fuzzed and
//! simulated. It opens no socket, reads no file and logs nothing. Who is let in, and what is said to those who are
//! not, is for the callers; the words are [`TrustError`]'s.
//!
//! Invariants: nothing is handed out that did not authenticate; no key has `Clone` or shows in `Debug`. The shared
//! key and every key that is kept here as bytes are wiped when they go; the libraries' own copies (the state of a
//! handshake in snow, the ciphers' key schedules in ring) are freed, not wiped. The shared key itself is only ever an input of HMAC, never a key of anything else. What this
//! does and does not protect from is in `SECURITY.md`, the bytes are in `docs/wire-format.md`.

mod blob;
mod channel;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod link;
mod record;
mod secret;

pub use blob::{MAC_BYTES, blob_mac, check_blob};
pub use channel::Channel;
pub use error::TrustError;
pub use handshake::{
    ANSWER_MAX_BYTES, Answered, Asked, Initiator, OPENING_BYTES, Purpose, Responder, SEED_BYTES, refusal,
    starts_like_opening,
};
pub use link::{LinkKey, LinkKeys, PROOF_BYTES};
pub use record::{Opener, PLAIN_MAX_BYTES, RECORD_HEAD_BYTES, RECORD_MAX_BYTES, Sealer, TAG_BYTES, body_len};
pub use secret::{BadKey, KEY_BYTES, Secret};
