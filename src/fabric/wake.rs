//! One descriptor that is readable while the fabric has something to do: work is queued, a connect is due to
//! be tried again, or a peer's process has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::desc::PeerKey;
use crate::fabric::Bell;

/// An epoll of a bell, a timer and the pidfds of all peers. (A timer alone would do, were it not that arming one costs
/// some 15 us in a virtual machine.)
pub(crate) struct Wake {
    epoll: OwnedFd,
    bell: Arc<Bell>,
    timer: OwnedFd,
    is_armed: bool,
}

fn complain(outcome: Result<(), Errno>) {
    if let Err(error) = outcome {
        tracing::error!(%error, "a wake handle of our own does not work");
    }
}

impl Wake {
    /// A descriptor that is not readable.
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let bell = Arc::new(Bell::new()?);
        for own in [bell.as_fd(), timer.as_fd()] {
            epoll::add(&epoll, own, epoll::EventData::new_u64(NO_PEER), epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, bell, timer, is_armed: false })
    }

    /// What the agent waits on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// What makes it readable.
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.bell)
    }

    /// Makes it readable after a while, whatever the bell does; never, where none is given.
    pub fn set_alarm(&mut self, delay: Option<Duration>) {
        if delay.is_some() || self.is_armed {
            complain(self.arm(delay.unwrap_or_default()));
            self.is_armed = delay.is_some();
        }
    }

    /// Lets the timer expire after `delay`, or never where that is zero. An expiry so far is forgotten.
    fn arm(&self, delay: Duration) -> Result<(), Errno> {
        let value = Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).map(drop)
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

/// Names the eventfd and the timer among the events; no peer has it.
const NO_PEER: u64 = u64::MAX;
/// Events looked at in one go: the eventfd, the timer and one peer are enough, the rest stays readable.
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
            wake.set_alarm(alarm);
            assert_eq!(readable(&wake, patience), wanted, "{alarm:?}");
        }
    }
}
