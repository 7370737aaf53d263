//! A sealed stream: what a finished handshake leaves behind. Bytes in, records out, and back.

use zeroize::Zeroizing;

use super::error::TrustError;
use super::link::{LinkKeys, Role};
use super::record::{Opener, Sealer};
use super::secret::{KEY_BYTES, derive};

/// A sealed stream, once its handshake is over.
#[derive(Debug)]
pub struct Channel {
    sealer: Sealer,
    opener: Opener,
    role: Role,
    exporter: Exporter,
}

struct Exporter(Zeroizing<[u8; KEY_BYTES]>);

impl Channel {
    /// A channel under the two keys that a handshake ends with: the initiator's, then the responder's.
    pub(super) fn new(
        role: Role,
        initiators: &[u8; KEY_BYTES],
        responders: &[u8; KEY_BYTES],
    ) -> Result<Self, TrustError> {
        let (initiators, responders) = (Zeroizing::new(*initiators), Zeroizing::new(*responders));
        // The records use both keys as Noise does; what is exported depends on both and gives neither away.
        let exporter = Exporter(derive(&initiators, &[b"export", &*responders]));
        let (ours, theirs) = match role {
            Role::Initiator => (initiators, responders),
            Role::Responder => (responders, initiators),
        };
        Ok(Self { sealer: Sealer::new(ours)?, opener: Opener::new(theirs)?, role, exporter })
    }

    /// Seals `plain` and appends the records.
    pub fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TrustError> {
        self.sealer.seal_all(plain, out)
    }

    /// Opens the whole records at the front of `sealed` and appends what they carry. Says how many bytes they were.
    /// An error ends the stream.
    pub fn open(&mut self, sealed: &mut [u8], out: &mut Vec<u8>) -> Result<usize, TrustError> {
        self.opener.open_all(sealed, out)
    }

    /// The keys of a fabric's data link with this id. The same on both sides, and never those of another link or of
    /// another fabric, so that each key has one sealer though several fabrics link the same two agents.
    pub fn link_keys(&self, fabric: &str, link_id: &[u8; 16]) -> LinkKeys {
        LinkKeys::new(&self.exporter.0, self.role, fabric, link_id)
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exporter(not shown)")
    }
}
