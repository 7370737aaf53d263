//! The handshake of a sealed stream: Noise_NNpsk0_25519_AESGCM_SHA256, one message each way, in a frame of ours.
//!
//! ```text
//!   opening   0        4         6         8              40        56
//!             +--------+---------+---------+--------------+---------+
//!             | "BTNK" | version | purpose | e (32)       | tag (16)|      from the initiator
//!             +--------+---------+---------+--------------+---------+
//!   answer    | "BTNK" | version | status  | e (32)       | tag (16)|      status 0; any other ends here
//!             +--------+---------+---------+--------------+---------+
//! ```
//! Everything ahead of `e` in the opening is the prologue of the handshake, so it cannot be altered either. Who the
//! two sides are, and which sessions mean each other, is said in the first frames inside.
//!
//! * A first message under another key is told by its tag, before anything is computed or said about us.
//! * A *replayed* first message is answered (both `e` are new to each other), and leads nowhere: the one who replays
//!   it does not know its secret half, so no record of its opens. The responder says nothing of its own before a first
//!   record has opened.
//! * An answer from somebody without the key does not verify.
//! * A status is not authenticated: it can only end a stream, as a cut wire can.

use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver, RingResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::channel::Channel;
use super::error::TrustError;
use super::link::Role;
use super::secret::Secret;

/// Random bytes that a side of a handshake needs.
pub const SEED_BYTES: usize = 32;
/// Bytes of an opening.
pub const OPENING_BYTES: usize = HEAD_BYTES + MESSAGE_BYTES;
/// Bytes of the longest answer.
pub const ANSWER_MAX_BYTES: usize = HEAD_BYTES + MESSAGE_BYTES;

/// What a stream is for. A stream of one purpose cannot be passed off as one of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Purpose {
    /// The control stream of two agents, or a request for a blob.
    Control = 1,
    /// Two ranks of one instance that meet.
    Rendezvous = 2,
}

/// The side that dialed.
#[derive(Debug)]
pub struct Initiator(Box<HandshakeState>);

/// What the answer so far comes to.
#[derive(Debug)]
pub enum Answered {
    /// More of it has to come.
    Unclear,
    /// The stream is sealed from here on; the answer took so many bytes.
    Sealed(Box<Channel>, usize),
}

/// The side that accepted.
#[derive(Debug)]
pub struct Responder;

/// What the opening so far comes to.
#[derive(Debug)]
pub enum Asked {
    /// More of it has to come.
    Unclear,
    /// To be sent; the stream is sealed from here on. The opening took [`OPENING_BYTES`].
    Answer(Box<Channel>, Vec<u8>),
}

impl Initiator {
    /// Begins; the opening is to be sent. `seed` is fresh random bytes.
    pub fn new(
        secret: &Secret,
        purpose: Purpose,
        seed: [u8; SEED_BYTES],
    ) -> Result<(Self, Vec<u8>), TrustError> {
        let head = head(purpose as u16);
        let mut state = Box::new(state(secret, &head, seed, Role::Initiator)?);
        let mut opening = [0; OPENING_BYTES];
        opening[..HEAD_BYTES].copy_from_slice(&head);
        write(&mut state, &mut opening[HEAD_BYTES..])?;
        Ok((Self(state), opening.to_vec()))
    }

    /// Takes all that has come so far, from the first byte on.
    pub fn handle(&mut self, bytes: &[u8]) -> Result<Answered, TrustError> {
        let Some(status) = field_after_head(bytes)? else { return Ok(Answered::Unclear) };
        match Status::of(status) {
            Some(Status::Sealed) => {}
            Some(Status::NoKeyHere) => return Err(TrustError::KeyMissing),
            Some(Status::OtherKey) => return Err(TrustError::OtherKey),
            None => return Err(TrustError::NotOurs),
        }
        let Some(message) = bytes.get(HEAD_BYTES..HEAD_BYTES + MESSAGE_BYTES) else {
            return Ok(Answered::Unclear);
        };
        // An answer that does not verify comes from somebody who has not our key, whatever its status says.
        self.0.read_message(message, &mut []).map_err(|_| TrustError::OtherKey)?;
        Ok(Answered::Sealed(split(&mut self.0, Role::Initiator)?, HEAD_BYTES + MESSAGE_BYTES))
    }
}

impl Responder {
    /// Takes all that has come so far, from the first byte on. `seed` is fresh random bytes.
    pub fn handle(
        secret: &Secret,
        purpose: Purpose,
        seed: [u8; SEED_BYTES],
        bytes: &[u8],
    ) -> Result<Asked, TrustError> {
        let Some(asked) = field_after_head(bytes)? else { return Ok(Asked::Unclear) };
        if asked != purpose as u16 {
            return Err(TrustError::NotOurs);
        }
        let Some(message) = bytes.get(HEAD_BYTES..OPENING_BYTES) else { return Ok(Asked::Unclear) };
        let mut state = state(secret, &head(asked), seed, Role::Responder)?;
        state.read_message(message, &mut []).map_err(|_| TrustError::OtherKey)?;
        let mut answer = [0; ANSWER_MAX_BYTES];
        answer[..HEAD_BYTES].copy_from_slice(&head(Status::Sealed as u16));
        write(&mut state, &mut answer[HEAD_BYTES..])?;
        Ok(Asked::Answer(split(&mut state, Role::Responder)?, answer.to_vec()))
    }
}

/// What one is told whose opening is refused with `error`; says nothing about who we are.
pub fn refusal(error: TrustError) -> Vec<u8> {
    let status = match error {
        TrustError::KeyMissing | TrustError::KeyWanted => Status::NoKeyHere,
        _ => Status::OtherKey,
    };
    head(status as u16).to_vec()
}

/// Whether these first bytes of a connection are an opening, or `None` while they could become one.
pub fn starts_like_opening(bytes: &[u8]) -> Option<bool> {
    let known = bytes.len().min(MAGIC.len());
    match bytes[..known] == MAGIC[..known] {
        true if known < MAGIC.len() => None,
        starts => Some(starts),
    }
}

/// What the answer to an opening says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Status {
    Sealed = 0,
    NoKeyHere = 1,
    OtherKey = 2,
}

impl Status {
    fn of(value: u16) -> Option<Self> {
        [Self::Sealed, Self::NoKeyHere, Self::OtherKey].into_iter().find(|status| *status as u16 == value)
    }
}

fn head(field: u16) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(MAGIC);
    head[4..6].copy_from_slice(&VERSION.to_le_bytes());
    head[6..].copy_from_slice(&field.to_le_bytes());
    head
}

/// Checks the head, and returns its last field once it is there.
fn field_after_head(bytes: &[u8]) -> Result<Option<u16>, TrustError> {
    if starts_like_opening(bytes) == Some(false) {
        return Err(TrustError::NotOurs);
    }
    let Some(&[_, _, _, _, v0, v1, f0, f1]) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let theirs = u16::from_le_bytes([v0, v1]);
    if theirs != VERSION {
        return Err(TrustError::Version { theirs, ours: VERSION });
    }
    Ok(Some(u16::from_le_bytes([f0, f1])))
}

fn state(
    secret: &Secret,
    prologue: &[u8; HEAD_BYTES],
    seed: [u8; SEED_BYTES],
    role: Role,
) -> Result<HandshakeState, TrustError> {
    let psk = secret.derive(b"noise");
    let build = || {
        let builder = Builder::with_resolver(PATTERN.parse()?, Box::new(Given(Zeroizing::new(seed))));
        let builder = builder.psk(0, &psk)?.prologue(prologue)?;
        match role {
            Role::Initiator => builder.build_initiator(),
            Role::Responder => builder.build_responder(),
        }
    };
    build().map_err(|_: snow::Error| TrustError::Internal)
}

/// Our side's one message, which carries nothing but itself.
fn write(state: &mut HandshakeState, out: &mut [u8]) -> Result<(), TrustError> {
    match state.write_message(&[], out) {
        Ok(MESSAGE_BYTES) => Ok(()),
        _ => Err(TrustError::Internal),
    }
}

fn split(state: &mut HandshakeState, role: Role) -> Result<Box<Channel>, TrustError> {
    let (initiators, responders) = state.dangerously_get_raw_split();
    let (initiators, responders) = (Zeroizing::new(initiators), Zeroizing::new(responders));
    Channel::new(role, &initiators, &responders).map(Box::new)
}

/// The algorithms, and randomness that was handed in.
struct Given(Zeroizing<[u8; SEED_BYTES]>);

/// Gives its bytes out once.
struct Once(Option<Zeroizing<[u8; SEED_BYTES]>>);

impl CryptoResolver for Given {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        let seed = self.0.take().filter(|seed| seed.len() == dest.len()).ok_or(snow::Error::Rng)?;
        dest.copy_from_slice(&*seed);
        Ok(())
    }
}

const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
const MAGIC: &[u8; 4] = b"BTNK";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 8;
/// A public key and a tag.
const MESSAGE_BYTES: usize = 48;

#[cfg(test)]
mod tests;
