//! How the core lets go of a peer: its fabrics first, then the stream; what the peer may still do is the ghosts' matter.

use std::time::{Duration, Instant};

use crate::desc::PeerKey;
use crate::proto::endpoint::CROSSED;

use super::super::ghosts::{Ghost, PROOF_WITHIN, has_ended};
use super::Core;

/// A peer that was heard of so lately hears us, too, and closes its stream when we do.
const HEARS_US: Duration = Duration::from_secs(1);

impl Core {
    /// Lets every fabric go of the peer, then tells the endpoint.
    pub(in crate::agent) fn let_go(&mut self, key: PeerKey, reason: &str) {
        let Some(peer) = self.endpoint.peer(key) else { return };
        let (name, loaded) = (peer.name(), peer.is_loaded() && peer.has_been_up());
        match loaded {
            _ if reason == CROSSED => tracing::debug!(peer = name, "stream gave way to the peer's"),
            true => {
                self.mishaps.peers_lost += 1;
                tracing::warn!(peer = name, reason, "peer lost");
            }
            false => tracing::info!(peer = name, reason, "stream closed"),
        }
        let unconfirmed = peer.unconfirmed_notifications();
        if unconfirmed > 0 {
            self.mishaps.notifications_unconfirmed += unconfirmed as u64;
            tracing::warn!(
                peer = name,
                unconfirmed,
                reason,
                "notifications may not have come to the peer's host"
            );
        }
        let (session, now) = (peer.session(), Instant::now());
        self.unlink(key);
        self.part(key, now);
        self.endpoint.handle_closed(key, reason);
        if let Some(session) = session.filter(|session| !self.ghosts.is_about(*session)) {
            self.endpoint.handle_let_go(session, now); // it has ended, or never moved a byte by itself
        }
        if let Some(farewell) = self.farewells.get_mut(&key) {
            *farewell = Some(reason.into());
        }
        self.signal.raise();
    }

    /// Lets every fabric go of the peer. Whatever ends our stream comes after this: it tells the peer that nothing of ours
    /// moves any more.
    pub(super) fn unlink(&mut self, key: PeerKey) {
        self.fabrics.iter_mut().for_each(|fabric| fabric.disconnect(key));
        self.handed_back.retain(|(_, peer, _)| *peer != key);
        self.marks.parted(key);
    }

    /// Gives the stream up, after [`Core::unlink`]. A peer that may be moving bytes by itself, and that is not proven to
    /// have ended, is a ghost from here on.
    pub(super) fn part(&mut self, key: PeerKey, now: Instant) {
        let process = self.processes.remove(&key);
        let Some(stream) = self.streams.remove(&key) else { return };
        let ended = stream.has_ended() || process.as_ref().is_some_and(has_ended);
        let peer = self.endpoint.peer(key).filter(|_| !ended);
        if let Some((peer, pulls)) = peer.zip(self.endpoint.moves_by_itself(key))
            && let Some(session) = peer.session()
        {
            let awaited_until = if peer.silence(now) < HEARS_US { now + PROOF_WITHIN } else { now };
            let (name, last) = (peer.name().to_owned(), self.registered.last_key());
            let stream = Some(stream);
            let ghost = Ghost { key, name, session, stream, process, pulls, last, awaited_until };
            return self.ghosts.remember(ghost, &self.watch);
        }
        self.watch.forget(&stream);
        stream.shut();
        if let Some(pidfd) = process {
            self.watch.forget(pidfd);
        }
    }

    /// The process at the other end has ended, whoever else holds its sockets.
    pub(super) fn bury(&mut self, key: PeerKey) {
        if self.ghosts.bury(key, &self.watch) {
            return self.signal.raise();
        }
        if let Some(pidfd) = self.processes.get(&key) {
            self.watch.forget(pidfd); // it stays readable
        }
        self.broken.push((key, "its process has ended".into()));
    }
}
