//! One descriptor that is readable while the fabric has something to do: work is queued, a connect is due to
//! be tried again, or a peer's process has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::desc::PeerKey;

/// When the descriptor shall be readable, peers' ends apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Not by itself.
    Never,
    /// From now until told otherwise.
    Now,
    /// From then until told otherwise.
    After(Duration),
}

/// An epoll of an eventfd, a timer and the pidfds of all peers. (A timer alone would do, were it not that arming one
/// costs some 15 us in a virtual machine.)
pub(super) struct Wake {
    epoll: OwnedFd,
    now: OwnedFd,
    timer: OwnedFd,
    due: Due,
}

impl Wake {
    /// A descriptor that is not readable.
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let now = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        for own in [&now, &timer] {
            epoll::add(&epoll, own, epoll::EventData::new_u64(NO_PEER), epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, now, timer, due: Due::Never })
    }

    /// What the agent waits on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Sets when the descriptor is readable. Costs a system call only where that changes.
    pub fn set(&mut self, due: Due) {
        if due == self.due && !matches!(due, Due::After(_)) {
            return;
        }
        let changed = match (self.due, due) {
            (Due::After(_), Due::Now) => self.arm(Duration::ZERO).and_then(|()| self.raise()),
            (_, Due::Now) => self.raise(),
            (Due::Now, Due::Never) => self.lower(),
            (Due::Now, Due::After(delay)) => self.lower().and_then(|()| self.arm(delay)),
            (_, Due::After(delay)) => self.arm(delay),
            (_, Due::Never) => self.arm(Duration::ZERO),
        };
        match changed {
            Ok(()) => self.due = due,
            Err(error) => tracing::error!(%error, "a wake handle of our own does not work"),
        }
    }

    fn raise(&self) -> Result<(), Errno> {
        rustix::io::write(&self.now, &1u64.to_ne_bytes()).map(drop)
    }

    fn lower(&self) -> Result<(), Errno> {
        rustix::io::read(&self.now, &mut [0; 8]).map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    fn readable(wake: &Wake, patience: Duration) -> bool {
        let fd = wake.fd();
        let limit = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).expect("poll") > 0
    }

    #[test]
    fn readable_exactly_while_due() {
        let mut wake = Wake::new().expect("descriptors");
        let soon = Due::After(Duration::from_millis(1));
        let long = Duration::from_secs(20);
        assert!(!readable(&wake, Duration::ZERO));
        for (due, patience, wanted) in [
            (Due::Now, Duration::ZERO, true),
            (Due::Never, Duration::ZERO, false),
            (soon, long, true),
            (Due::Never, Duration::ZERO, false),
            (Due::Now, Duration::ZERO, true),
            (soon, long, true),
            (soon, long, true),
            (Due::Now, Duration::ZERO, true),
            (Due::After(long), Duration::ZERO, false),
            (Due::Never, Duration::ZERO, false),
        ] {
            wake.set(due);
            assert_eq!(readable(&wake, patience), wanted, "{due:?}");
        }
        assert_eq!(wake.ended(), None);
    }
}
