//! A timer that is set as seldom as possible: setting one costs some 15 us in a virtual machine.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// Its descriptor is readable once it has gone off, until it is set anew.
#[derive(Debug)]
pub(in crate::fabric) struct Alarm {
    timer: OwnedFd,
    /// What it was set for last, be that past or to come.
    due: Option<Instant>,
}

impl Alarm {
    /// One that is not set.
    pub fn new() -> Result<Self, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self { timer: timerfd_create(TimerfdClockId::Monotonic, flags)?, due: None })
    }

    /// Sees to it that it goes off at `when` or before: one that is set for earlier, or has gone off, stays as it is.
    pub fn set_by(&mut self, when: Instant) {
        if self.due.is_none_or(|due| when < due) {
            self.set(Some(when));
        }
    }

    /// Sees to it that it goes off within `delay`, for whoever says so again and again for as long as that is wanted. What
    /// is on its way stays, even if nobody wants it any more: it goes off once for nothing, which is cheaper than to take
    /// it back and set it for the next one. One that has gone off is set anew, or to never.
    pub fn keep_within(&mut self, delay: Option<Duration>) {
        if delay.is_none() && self.due.is_none() {
            return;
        }
        let now = Instant::now();
        if self.due.is_some_and(|due| due <= now) {
            self.set(delay.map(|delay| now + delay));
        } else if let Some(delay) = delay {
            self.set_by(now + delay);
        }
    }

    /// Sets it for `when`, or for never. That it has gone off is forgotten.
    pub fn set(&mut self, when: Option<Instant>) {
        let wait = match when {
            None => Duration::ZERO, // disarms
            Some(when) => when.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)),
        };
        let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        // Cannot fail: the descriptor is a timer and both fields are in range.
        let set = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once);
        debug_assert!(set.is_ok(), "{set:?}");
        self.due = when;
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};

    const SOON: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(1000);

    fn alarm() -> Alarm {
        Alarm::new().expect("a descriptor")
    }

    fn has_gone_off(alarm: &Alarm) -> bool {
        goes_off_within(alarm, 0)
    }

    fn goes_off_within(alarm: &Alarm, seconds: i64) -> bool {
        let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::new(alarm, PollFlags::IN)], Some(&patience)).expect("poll") > 0
    }

    #[test]
    fn what_is_on_its_way_is_not_set_again() {
        let mut alarm = alarm();
        alarm.keep_within(Some(LONG));
        let due = alarm.due.expect("it is set");
        for wish in [Some(LONG), None, Some(2 * LONG), None] {
            alarm.keep_within(wish);
            assert_eq!(alarm.due, Some(due), "{wish:?}");
        }
        alarm.set_by(due + SOON);
        assert_eq!(alarm.due, Some(due));
        alarm.keep_within(Some(SOON));
        assert!(alarm.due < Some(due) && goes_off_within(&alarm, 20), "somebody wants it earlier");
    }

    #[test]
    fn what_has_gone_off_is_set_anew_where_it_is_wanted() {
        let mut alarm = alarm();
        alarm.keep_within(None);
        for again in [Some(LONG), None] {
            alarm.set(None);
            assert!(!has_gone_off(&alarm));
            alarm.keep_within(Some(SOON));
            assert!(goes_off_within(&alarm, 20));
            alarm.keep_within(again);
            assert!(!has_gone_off(&alarm), "{again:?}");
            assert_eq!(alarm.due.is_some(), again.is_some());
        }
    }

    #[test]
    fn a_time_that_has_passed_is_now() {
        let mut alarm = alarm();
        let now = Instant::now();
        alarm.set_by(now);
        assert!(goes_off_within(&alarm, 20));
        alarm.set_by(now + SOON);
        assert!(has_gone_off(&alarm), "nobody has looked yet");
        alarm.set(None);
        assert!(!has_gone_off(&alarm));
    }
}
