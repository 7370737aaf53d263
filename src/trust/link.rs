//! The keys of one data link: a direction each, made from what the control stream's handshake agreed on.
//!
//! They are bound to that handshake, to the fabric and to the link's id, so they are fresh for every link, and nobody who learns the
//! shared key later can open what was recorded. A data connection begins with the link's id in the clear and the
//! proof that its dialer has the key.

use zeroize::Zeroizing;

use super::error::TrustError;
use super::record::{Opener, Sealer};
use super::secret::{KEY_BYTES, derive, is_same};

/// Bytes of a [proof](LinkKey::proof).
pub const PROOF_BYTES: usize = 16;

/// The keys of one link, seen from one of its sides.
#[derive(Debug)]
pub struct LinkKeys {
    /// For what this side writes.
    pub send: LinkKey,
    /// For what the other side writes.
    pub receive: LinkKey,
}

/// The key of one direction of a link: for one connection.
pub struct LinkKey(Zeroizing<[u8; KEY_BYTES]>);

/// Who dialed the control stream of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// This side.
    Initiator,
    /// The other one.
    Responder,
}

impl LinkKeys {
    pub(super) fn new(exporter: &[u8; KEY_BYTES], role: Role, fabric: &str, link_id: &[u8; 16]) -> Self {
        let name = fabric.as_bytes();
        let key =
            |direction: &[u8]| LinkKey(derive(exporter, &[b"data ", direction, link_id.as_slice(), name]));
        let (forth, back) = (key(b"forth"), key(b"back "));
        match role {
            Role::Initiator => Self { send: forth, receive: back },
            Role::Responder => Self { send: back, receive: forth },
        }
    }
}

impl LinkKey {
    /// What a connection shows to be let in.
    pub fn proof(&self) -> [u8; PROOF_BYTES] {
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(&derive(&self.0, &[b"proof"])[..PROOF_BYTES]);
        proof
    }

    /// Whether a connection may come in that shows this.
    pub fn is_proved_by(&self, shown: &[u8; PROOF_BYTES]) -> bool {
        is_same(&self.proof(), shown)
    }

    /// Seals the records of the connection: once for each key.
    pub fn sealer(&self) -> Result<Sealer, TrustError> {
        Sealer::new(derive(&self.0, &[b"records"]))
    }

    /// Opens the records of the connection.
    pub fn opener(&self) -> Result<Opener, TrustError> {
        Opener::new(derive(&self.0, &[b"records"]))
    }
}

impl std::fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LinkKey(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sides_agree_and_two_links_do_not() {
        let exporter = [9; KEY_BYTES];
        let (near, far) = (
            LinkKeys::new(&exporter, Role::Initiator, "stream", &[1; 16]),
            LinkKeys::new(&exporter, Role::Responder, "stream", &[1; 16]),
        );
        assert!(far.receive.is_proved_by(&near.send.proof()) && near.receive.is_proved_by(&far.send.proof()));
        assert!(!far.receive.is_proved_by(&far.send.proof()), "the directions differ");
        let other = LinkKeys::new(&exporter, Role::Initiator, "stream", &[2; 16]);
        assert!(!far.receive.is_proved_by(&other.send.proof()), "the links differ");
        let other = LinkKeys::new(&exporter, Role::Initiator, "other", &[1; 16]);
        assert!(!far.receive.is_proved_by(&other.send.proof()), "the fabrics differ");
        assert_ne!(*other.send.0, *near.send.0, "two fabrics never seal under one key");
        let (mut sealer, mut opener) =
            (near.send.sealer().expect("a key"), far.receive.opener().expect("a key"));
        let (mut sealed, mut out) = (Vec::new(), Vec::new());
        sealer.seal_all(b"bytes", &mut sealed).expect("seals");
        opener.open_all(&mut sealed, &mut out).expect("opens");
        assert_eq!(out, b"bytes");
        assert_eq!(format!("{near:?}"), "LinkKeys { send: LinkKey(not shown), receive: LinkKey(not shown) }");
    }
}
