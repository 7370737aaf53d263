//! Peers that were given up because they had fallen silent, and may yet come back: a stopped process does.
//!
//! Over a lane on which a peer moves bytes by itself, what it had begun goes on when it does: the operation that it was
//! in, or those that it had posted. Nothing on this side stops that, so as long as such a peer is not known to be dead,
//! what it could touch is not free (D9): deregistering quarantines its regions, and `release()` of a transfer that it was
//! pulling says no.
//!
//! A ghost is laid by proof: its process has ended, or the same process has shaken hands with us again, which it does
//! once it has let go of its old stream.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::desc::RegionKey;
use crate::fabric::Credentials;

/// A peer that may come back.
#[derive(Debug)]
struct Ghost {
    name: String,
    /// Its process, where it is on this host.
    process: Option<OwnedFd>,
    /// The same, as peers show it when they connect.
    pid: Option<i32>,
    /// It takes what we write to it out of our memory.
    pulls: bool,
    /// The last region that it can know.
    last: RegionKey,
}

impl Ghost {
    fn is_dead(&self) -> bool {
        let Some(process) = &self.process else { return false };
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&at_once)), Ok(1..))
    }
}

/// All that are about.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    about: Vec<Ghost>,
}

impl Ghosts {
    /// Remembers a peer that is let go of without proof: the stream to it, its process, whether it pulls, and the last
    /// region that there was.
    pub fn remember(
        &mut self,
        name: &str,
        stream: Option<BorrowedFd<'_>>,
        process: Option<&OwnedFd>,
        pulls: bool,
        last: RegionKey,
    ) {
        self.forget_the_dead();
        let process = process.and_then(|process| process.try_clone().ok());
        self.about.push(Ghost { name: name.to_owned(), process, pid: stream.and_then(pid_of), pulls, last });
    }

    /// A peer is up: the ghost of the same process has let go.
    pub fn lay(&mut self, name: &str, stream: BorrowedFd<'_>) {
        let pid = pid_of(stream);
        self.about.retain(|ghost| pid.is_none() || ghost.name != name || ghost.pid != pid || ghost.is_dead());
        self.forget_the_dead();
    }

    /// The name of one that may still touch a region.
    pub fn haunting(&self, region: RegionKey) -> Option<&str> {
        let ghost = self.about.iter().find(|ghost| region.0 <= ghost.last.0 && !ghost.is_dead());
        ghost.map(|ghost| ghost.name.as_str())
    }

    /// Whether a peer of this name may still pull what we wrote to it.
    pub fn pulls(&self, name: &str) -> bool {
        self.about.iter().any(|ghost| ghost.pulls && ghost.name == name && !ghost.is_dead())
    }

    fn forget_the_dead(&mut self) {
        self.about.retain(|ghost| !ghost.is_dead());
    }
}

fn pid_of(stream: BorrowedFd<'_>) -> Option<i32> {
    Credentials::of_peer(stream.as_fd()).ok().flatten().map(|peer| peer.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;
    use std::process::Command;

    const OLD: RegionKey = RegionKey(3);

    #[test]
    fn a_ghost_haunts_what_it_knew_until_its_process_is_dead() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("a child");
        let pid = rustix::process::Pid::from_child(&child);
        let process =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a pidfd");
        let mut ghosts = Ghosts::default();
        ghosts.remember("gen0", None, Some(&process), true, OLD);
        assert_eq!((ghosts.haunting(OLD), ghosts.haunting(RegionKey(4))), (Some("gen0"), None));
        assert!(ghosts.pulls("gen0") && !ghosts.pulls("gen1"));
        child.kill().expect("killed");
        child.wait().expect("ended");
        assert_eq!((ghosts.haunting(OLD), ghosts.pulls("gen0")), (None, false));
    }

    #[test]
    fn the_same_process_lays_its_ghost_and_no_other_does() {
        let (stream, _other) = UnixStream::pair().expect("a pair");
        let mut ghosts = Ghosts::default();
        ghosts.remember("gen0", Some(stream.as_fd()), None, false, OLD);
        ghosts.remember("gen1", None, None, false, OLD);
        ghosts.lay("gen0", stream.as_fd());
        ghosts.lay("gen1", stream.as_fd());
        assert_eq!(ghosts.haunting(OLD), Some("gen1"), "nobody knows whose process that was");
    }
}
