//! The key at work on the agent's first contacts: blobs that carry a code, and streams that begin with a handshake.
//!
//! The cryptography is [`trust`](crate::trust)'s. Blocks only in [`shake_hands`], on the caller's thread and up to a
//! deadline.

use std::io;
use std::time::Instant;

use rustix::event::PollFlags;

use crate::proto::blob::{Blob, BlobError};
use crate::proto::section::authenticated_parts;
use crate::trust::{
    Answered, Initiator, MAC_BYTES, Purpose, SEED_BYTES, Secret, TrustError, blob_mac, check_blob,
};

use super::control::{ControlStream, Intake};
use super::foreign::{Foreign, Opener, opener};
use super::sockets::{FetchError, wait_for};

/// The blob's bytes, with the code that our key makes of it, if we have one.
pub(super) fn sealed_blob(mut blob: Blob, secret: Option<&Secret>) -> Vec<u8> {
    if let Some(secret) = secret {
        let mut section = Vec::new();
        blob.section.encode(&mut section);
        let parts = authenticated_parts(&section).unwrap_or_default(); // invariant: we have just encoded it
        blob.section.mac = Some(blob_mac(secret, &blob.name, &parts));
    }
    blob.encode()
}

/// Reads a blob, and checks its code; whether there must be one depends on whether we have a key.
pub(super) fn open_blob(bytes: &[u8], secret: Option<&Secret>) -> Result<(Blob, Verdict), BlobError> {
    let (blob, section) = Blob::decode_with_section(bytes)?;
    let parts = authenticated_parts(section).unwrap_or_default(); // invariant: it has been decoded
    let mac: Option<&[u8; MAC_BYTES]> = blob.section.mac.as_ref();
    let verdict = check_blob(secret, mac, &blob.name, &parts);
    Ok((blob, verdict))
}

/// Whether a blob is to be trusted.
pub(super) type Verdict = Result<(), TrustError>;

/// Fresh random bytes for a handshake.
pub(super) fn seed() -> io::Result<[u8; SEED_BYTES]> {
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(seed)
}

/// Shows the other side of a fresh stream that we have the key, and has it show the same. `greeting` goes ahead.
pub(super) fn shake_hands(
    stream: &mut ControlStream,
    greeting: &[u8],
    secret: &Secret,
    deadline: Instant,
) -> Result<(), FetchError> {
    let (mut initiator, opening) = Initiator::new(secret, Purpose::Control, seed()?)?;
    stream.send(&[greeting, &opening].concat())?;
    loop {
        match opener(stream.unparsed()) {
            Opener::Unclear => {}
            Opener::Foreign(foreign) => return Err(FetchError::Foreign(foreign)),
            Opener::Fetcher { .. } => return Err(FetchError::Foreign(Foreign::Nixl)),
            Opener::Frame => return Err(TrustError::NotOurs.into()),
            Opener::Sealed => {
                if let Answered::Sealed(channel, taken) = initiator.handle(stream.unparsed())? {
                    stream.skip(taken);
                    return Ok(stream.secure(channel)?);
                }
            }
        }
        match stream.fill()? {
            Intake::Some => {}
            Intake::Nothing => wait_for(stream, PollFlags::IN, deadline)?,
            Intake::Closed => {
                let text = "it closed the connection over our key's first message";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text).into());
            }
        }
    }
}
