//! One descriptor that is readable while the fabric has something to do: work is queued, a connect is due to
//! be tried again, or a peer's process has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
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

/// An epoll of one timer and the pidfds of all peers.
pub(super) struct Wake {
    epoll: OwnedFd,
    timer: OwnedFd,
    due: Due,
}

impl Wake {
    /// A descriptor that is not readable.
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
        Ok(Self { epoll, timer, due: Due::Never })
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
        let value = match due {
            Due::Never => Timespec { tv_sec: 0, tv_nsec: 0 },
            Due::Now => Timespec { tv_sec: 0, tv_nsec: 1 },
            Due::After(delay) => {
                Timespec { tv_sec: delay.as_secs() as i64, tv_nsec: i64::from(delay.subsec_nanos().max(1)) }
            }
        };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            Ok(_) => self.due = due,
            Err(error) => tracing::error!(%error, "timerfd_settime failed on a timer of our own"),
        }
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
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(TIMER) };
        let mut events = [nothing; EVENTS_MAX];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = epoll::wait(&self.epoll, &mut events, Some(&at_once)).ok()?;
        let peers = events[..count].iter().map(|event| event.data.u64()).filter(|data| *data != TIMER);
        peers.filter_map(|data| u32::try_from(data).ok()).map(PeerKey).next()
    }
}

/// Names the timer among the events; no peer has it.
const TIMER: u64 = u64::MAX;
/// Events looked at in one go: the timer and one peer are enough, the rest stays readable.
const EVENTS_MAX: usize = 2;
