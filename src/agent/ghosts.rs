//! Peers that were let go of and are not known to have let go of us.
//!
//! Over a lane on which a peer moves bytes by itself, what it had begun goes on after its stream is closed here: the
//! operation that it was in, or those that it had posted. Nothing on this side stops that, whether the peer is stopped,
//! slow or has been replaced by a newer one. As long as it is not proven to have ended, what it could touch is not free
//! (D9): deregistering quarantines its regions, and `release()` of a transfer that it was pulling says no.
//!
//! A ghost is laid by proof, of which there are three:
//! * its stream ends: whoever closes one has let its fabrics go before, and the kernel closes those of the dead. The
//!   half on which it speaks is therefore kept, and heard until then;
//! * its process has ended;
//! * the same session is up with us again, which it is once it has let go of its old stream.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::desc::{PeerKey, RegionKey, SessionId};

use super::control::{ControlStream, Ending};
use super::watch::{Interest, Source, Watch};

/// A peer that may come back.
#[derive(Debug)]
pub(super) struct Ghost {
    /// What its stream was called.
    pub key: PeerKey,
    pub name: String,
    pub session: SessionId,
    /// Its end is the proof; none once that cannot come any more.
    pub stream: Option<ControlStream>,
    /// Its process, where it is another one on this host.
    pub process: Option<OwnedFd>,
    /// It takes what we write to it out of our memory.
    pub pulls: bool,
    /// The last region that it can know.
    pub last: RegionKey,
    /// It was heard of lately, so that its proof is worth waiting for until then.
    pub awaited_until: Instant,
}

/// All that are about.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    about: Vec<Ghost>,
    /// Those that there was no room for: the last region that they can know, and whether any pulls.
    crowd: Option<(RegionKey, bool)>,
}

/// Ghosts that are told apart. Each holds two descriptors.
const GHOSTS_MAX: usize = 256;
/// How long a peer that hears us takes at the most to let its fabrics go and to close its stream.
pub(super) const PROOF_WITHIN: Duration = Duration::from_secs(2);

impl Ghosts {
    /// Remembers a peer that is let go of without proof. Its stream and its process stay watched.
    pub fn remember(&mut self, mut ghost: Ghost, watch: &Watch) {
        self.forget_the_dead(watch);
        // It has shaken hands anew since: so it had let go of the older stream.
        while let Some(at) = self.about.iter().position(|old| old.session == ghost.session) {
            let older = self.about.swap_remove(at);
            (ghost.pulls, ghost.last) = (ghost.pulls | older.pulls, ghost.last.max(older.last));
            older.leave(watch);
        }
        if self.about.len() >= GHOSTS_MAX {
            self.lose_the_oldest(watch);
        }
        if let Some(stream) = &ghost.stream {
            // Our half ends: the peer hears that nothing of ours moves any more.
            let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Write);
            if let Err(error) = watch.change(stream, Source::Ghost(ghost.key), Interest::Read) {
                tracing::warn!(peer = ghost.name, %error, "the end of a peer's stream cannot be watched");
            }
        }
        self.about.push(ghost);
    }

    /// Something has come on the stream of one: what it says is dropped, its end lays it.
    pub fn hear(&mut self, key: PeerKey, watch: &Watch) {
        let Some(at) = self.about.iter().position(|ghost| ghost.key == key) else { return };
        let Some(stream) = &mut self.about[at].stream else { return };
        match stream.await_end() {
            Ending::NotYet => {}
            Ending::Ended => self.lay_at(at, watch),
            Ending::Unknown => {
                // Another than the peer may have broken it. Its process or its session has to tell.
                let ghost = &mut self.about[at];
                let name = &ghost.name;
                tracing::warn!(peer = name, "the stream of a peer that was given up broke before it ended");
                if let Some(stream) = ghost.stream.take() {
                    watch.forget(&stream);
                }
            }
        }
    }

    /// The process of one has ended, perhaps. Whether one was about under this key.
    pub fn bury(&mut self, key: PeerKey, watch: &Watch) -> bool {
        let found = self.about.iter().position(|ghost| ghost.key == key);
        found.map(|at| self.lay_at(at, watch)).is_some()
    }

    /// A session is up: its ghost has let go.
    pub fn lay(&mut self, session: SessionId, watch: &Watch) {
        while let Some(at) = self.about.iter().position(|ghost| ghost.session == session) {
            self.lay_at(at, watch);
        }
        self.forget_the_dead(watch);
    }

    /// Whether one of this session is about, who has not proved that it has let go.
    pub fn is_about(&self, session: SessionId) -> bool {
        self.about.iter().any(|ghost| ghost.session == session)
    }

    /// Whether an agent of this session may still be writing what it had begun: it is about, or may be one of those that are
    /// not told apart any more.
    pub fn may_be_about(&self, session: SessionId) -> bool {
        self.crowd.is_some() || self.is_about(session)
    }

    /// The name of one that may still touch a region.
    pub fn haunting(&self, region: RegionKey) -> Option<&str> {
        let ghost = self.about.iter().find(|ghost| ghost.haunts(region));
        let crowd = self.crowd.filter(|(last, _)| region <= *last).map(|_| CROWD);
        ghost.map(|ghost| ghost.name.as_str()).or(crowd)
    }

    /// Whether one that may still touch a region is about to prove that it does not.
    pub fn is_awaited(&self, region: RegionKey, now: Instant) -> bool {
        self.about.iter().any(|ghost| ghost.haunts(region) && ghost.is_awaited(now))
    }

    /// Whether a peer of this name may still pull what we wrote to it.
    pub fn pulls(&self, name: &str) -> bool {
        let crowd = self.crowd.is_some_and(|(_, pulls)| pulls);
        crowd || self.about.iter().any(|ghost| ghost.pulls_as(name))
    }

    /// Whether such a peer is about to prove that it does not.
    pub fn pull_is_awaited(&self, name: &str, now: Instant) -> bool {
        self.about.iter().any(|ghost| ghost.pulls_as(name) && ghost.is_awaited(now))
    }

    /// Says who is still about, for the end of the agent. They stay: whoever asks about a transfer later is told the truth.
    pub fn complain(&mut self, agent: &str, has_regions: bool, watch: &Watch) {
        self.forget_the_dead(watch);
        for ghost in self.about.iter().filter(|ghost| has_regions || ghost.pulls) {
            tracing::error!(
                agent,
                peer = ghost.name,
                "a peer that was given up has not been heard to let go of our memory at shutdown: what it could touch must \
                 not be reused while its process lives"
            );
        }
    }

    fn forget_the_dead(&mut self, watch: &Watch) {
        while let Some(at) = self.about.iter().position(Ghost::is_dead) {
            self.lay_at(at, watch);
        }
    }

    fn lay_at(&mut self, at: usize, watch: &Watch) {
        let ghost = self.about.remove(at);
        tracing::info!(peer = ghost.name, "a peer that was given up has let go of our memory");
        ghost.leave(watch);
    }

    /// Makes room. What the oldest one could touch stays quarantined.
    fn lose_the_oldest(&mut self, watch: &Watch) {
        let oldest = self.about.remove(0);
        let (last, pulls) = self.crowd.unwrap_or((oldest.last, false));
        self.crowd = Some((last.max(oldest.last), pulls | oldest.pulls));
        tracing::error!(
            peer = oldest.name,
            "more than {GHOSTS_MAX} peers were given up and may still touch our memory; what this one could touch is \
             not given back any more"
        );
        oldest.leave(watch);
    }
}

/// What those are called that are not told apart.
const CROWD: &str = "(one of many)";

impl Ghost {
    fn haunts(&self, region: RegionKey) -> bool {
        region <= self.last && !self.is_dead()
    }

    fn pulls_as(&self, name: &str) -> bool {
        self.pulls && self.name == name && !self.is_dead()
    }

    fn is_awaited(&self, now: Instant) -> bool {
        now < self.awaited_until
    }

    fn is_dead(&self) -> bool {
        self.process.as_ref().is_some_and(has_ended)
    }

    /// Closes what it holds.
    fn leave(self, watch: &Watch) {
        if let Some(stream) = &self.stream {
            watch.forget(stream);
            stream.shut();
        }
        if let Some(process) = &self.process {
            watch.forget(process);
        }
    }
}

/// Whether the process of a pidfd has ended.
pub(super) fn has_ended(process: impl AsFd) -> bool {
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&at_once)), Ok(1..))
}

#[cfg(test)]
mod tests;
