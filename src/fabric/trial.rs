//! Tries a link and nothing else: what tells whether a fabric works between two processes, for a person who asks.
//!
//! No region is registered and no byte of anybody's is moved; a fabric's own proof of its peer is all that happens.
//! It drives any fabric and knows none. The caller's thread drives it, and blocks up to the deadline.

use std::time::{Duration, Instant};

use super::{Fabric, Landing, Link, Sink};
use crate::desc::{OpToken, PeerKey};
use crate::error::{FabricError, FabricErrorKind};

/// Links `fabric` to one peer and waits for the outcome. The peer's side has to be driven at the same time. The link is
/// left as it is: a peer may still be proving us.
///
/// # Errors
/// Why the link cannot be; a timeout where there is no outcome at the deadline.
pub fn link(fabric: &mut dyn Fabric, link: Link, deadline: Instant) -> Result<(), FabricError> {
    let mut verdict = Verdict(None);
    fabric.connect(PEER, link);
    while verdict.0.is_none() {
        if Instant::now() >= deadline {
            let detail = "the other side did not answer";
            return Err(FabricError::new(fabric.name(), "connect", FabricErrorKind::Timeout, 0, detail));
        }
        if !fabric.poll(u64::MAX, &mut verdict) {
            std::thread::sleep(IDLE);
        }
    }
    verdict.0.unwrap_or(Ok(()))
}

/// Keeps the outcome of the one link that is tried.
pub(super) struct Verdict(pub Option<Result<(), FabricError>>);

impl Sink for Verdict {
    fn connected(&mut self, _: PeerKey, outcome: Result<(), FabricError>) {
        self.0.get_or_insert(outcome);
    }

    fn completed(&mut self, _: OpToken, _: Result<(), FabricError>) {}

    fn arrived(&mut self, _: PeerKey, _: &[u8], _: u64) -> Landing {
        Landing::Discard
    }

    fn landed(&mut self, _: PeerKey, _: u64, _: Result<(), FabricError>) {}

    fn lost(&mut self, _: PeerKey, error: FabricError) {
        self.0.get_or_insert(Err(error));
    }
}

const PEER: PeerKey = PeerKey(1);
/// Between two polls that had nothing to do.
const IDLE: Duration = Duration::from_micros(200);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::registry::{RegistryConfig, open};

    fn local() -> Box<dyn Fabric> {
        let config = RegistryConfig { local: Some(Default::default()), ..RegistryConfig::default() };
        open(config).remove(0).outcome.expect("always there")
    }

    #[test]
    fn a_fabric_is_linked_to_itself_and_to_no_stranger() {
        let mut fabric = local();
        let credentials = crate::fabric::Credentials {
            pid: rustix::process::getpid().as_raw_pid(),
            uid: rustix::process::geteuid().as_raw(),
        };
        let deadline = || Instant::now() + Duration::from_secs(20);
        let to = |address| Link { address, link_id: [0; 16], credentials: Some(credentials), keys: None };
        let own = fabric.address();
        assert_eq!(link(&mut *fabric, to(own.clone()), deadline()), Ok(()));
        let mut stranger = own;
        *stranger.last_mut().expect("an address") ^= 1;
        let error = link(&mut *local(), to(stranger), deadline()).expect_err("another nonce");
        assert_eq!(error.kind, FabricErrorKind::Unreachable, "{error}");
    }
}
