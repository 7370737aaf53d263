//! Why a side is not trusted. Each text goes behind the name of the peer, and says what to do about it; none
//! shows a key or anything that was sealed.

use thiserror::Error;

/// Why a peer, its blob or its bytes are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TrustError {
    /// The other side has a key, this one has none.
    #[error(
        "it takes part only with a key and this side has none: set BATON_PSK_FILE here to a copy of its key file"
    )]
    KeyWanted,
    /// This side has a key, the other has none.
    #[error(
        "it has no key and this side has one: set BATON_PSK_FILE there to a copy of this side's key file, or unset it \
         on both sides"
    )]
    KeyMissing,
    /// Both have one, and not the same.
    #[error("its key is not ours: give both sides the same file in BATON_PSK_FILE")]
    OtherKey,
    /// A blob whose code does not match.
    #[error(
        "its blob is not sealed with our key: either BATON_PSK_FILE names another key there, or the blob was altered on \
         its way"
    )]
    AlteredBlob,
    /// Another version of what is in this folder.
    #[error(
        "it seals its streams by version {theirs}, this side by version {ours}: install the same release on both sides"
    )]
    Version {
        /// The other side's.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// Not the bytes of a handshake.
    #[error(
        "it does not answer as a Baton agent with a key does: something else listens there, or sits between"
    )]
    NotOurs,
    /// A record that was not made by the other side, or not now.
    #[error("what came from it does not authenticate: it was altered, replayed or cut on its way")]
    BadRecord,
    /// More was sealed under one key than any key may seal.
    #[error("its keys are used up: load it again")]
    UsedUp,
    /// The cryptographic library refused what cannot be refused.
    #[error("the key agreement failed inside: this is a bug of Baton")]
    Internal,
}
