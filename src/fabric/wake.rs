//! One descriptor that is readable while the fabric has something to do: work is queued, a connect is due to
//! be tried again, or a peer's process has ended.

mod alarm;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::desc::PeerKey;
use crate::fabric::Bell;

pub(super) use self::alarm::Alarm;

/// An epoll of a bell, an alarm and the pidfds of all peers. (An alarm alone would do, were it not for what it costs.)
pub(crate) struct Wake {
    epoll: OwnedFd,
    bell: Arc<Bell>,
    alarm: Alarm,
}

impl Wake {
    /// A descriptor that is not readable.
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let (bell, alarm) = (Arc::new(Bell::new()?), Alarm::new()?);
        for own in [bell.as_fd(), alarm.as_fd()] {
            epoll::add(&epoll, own, epoll::EventData::new_u64(NO_PEER), epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, bell, alarm })
    }

    /// What the agent waits on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// What makes it readable.
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Makes it readable within `delay`, whatever the bell does. To be said at each poll: [`Alarm::keep_within`].
    pub fn wake_within(&mut self, delay: Option<Duration>) {
        self.alarm.keep_within(delay);
    }

    /// Also readable once the process behind `pidfd` has ended.
    pub fn watch(&self, pidfd: impl AsFd, peer: PeerKey) -> Result<(), Errno> {
        epoll::add(&self.epoll, pidfd, epoll::EventData::new_u64(peer.0.into()), epoll::EventFlags::IN)
    }

    /// No longer.
    pub fn forget(&self, pidfd: impl AsFd) {
        // It may never have been watched: the link was refused first.
        let _ = epoll::delete(&self.epoll, pidfd);
    }

    /// A peer whose process has ended and is still watched, if there is one.
    pub fn ended(&self) -> Option<PeerKey> {
        let nothing =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(NO_PEER) };
        let mut events = [nothing; EVENTS_MAX];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = epoll::wait(&self.epoll, &mut events, Some(&at_once)).ok()?;
        let peers = events[..count].iter().map(|event| event.data.u64()).filter(|data| *data != NO_PEER);
        peers.filter_map(|data| u32::try_from(data).ok()).map(PeerKey).next()
    }
}

/// Names the bell and the alarm among the events; no peer has it.
const NO_PEER: u64 = u64::MAX;
/// Events looked at in one go: the bell, the alarm and one peer are enough, the rest stays readable.
const EVENTS_MAX: usize = 3;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn readable(wake: &Wake, patience: Duration) -> bool {
        let fd = wake.fd();
        let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).expect("poll") > 0
    }

    #[test]
    fn readable_from_the_ring_to_the_hush() {
        let wake = Wake::new().expect("descriptors");
        let bell = wake.bell();
        for _ in 0..3 {
            assert!(!readable(&wake, Duration::ZERO));
            bell.ring();
            bell.ring();
            assert!(readable(&wake, Duration::ZERO));
            bell.hush(|| false);
            bell.hush(|| false);
        }
        assert!(!readable(&wake, Duration::ZERO));
        bell.hush(|| true);
        assert!(readable(&wake, Duration::ZERO), "there is more");
        assert_eq!(wake.ended(), None);
    }

    #[test]
    fn readable_when_the_alarm_goes() {
        let mut wake = Wake::new().expect("descriptors");
        let (soon, long) = (Duration::from_millis(1), Duration::from_secs(20));
        for (alarm, patience, wanted) in [
            (Some(soon), long, true),
            (None, Duration::ZERO, false),
            (Some(soon), long, true),
            (Some(long), Duration::ZERO, false),
            (None, Duration::ZERO, false),
        ] {
            wake.wake_within(alarm);
            assert_eq!(readable(&wake, patience), wanted, "{alarm:?}");
        }
    }
}
