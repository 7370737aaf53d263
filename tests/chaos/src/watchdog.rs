//! The last bound of a run: when its time is over, the hosts that it has started are ended, and with them every wait.
//!
//! Runs bound their own waits; this is for what they did not think of. Only processes that this program has started are
//! ended, through handles that can mean no other process.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

thread_local! {
    /// The hosts of the run on this thread.
    static HOSTS: RefCell<Option<Arc<Mutex<Vec<OwnedFd>>>>> = const { RefCell::new(None) };
}

/// Does `run`, which may start hosts on this thread, within `limit`. Whether it had to be ended.
pub fn guard<T>(limit: Duration, run: impl FnOnce() -> T) -> (T, bool) {
    let hosts = Arc::new(Mutex::new(Vec::new()));
    HOSTS.set(Some(Arc::clone(&hosts)));
    let (done, over) = channel::<()>();
    let dog = thread::spawn(move || {
        let barks = over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        while barks && over.recv_timeout(AGAIN) == Err(RecvTimeoutError::Timeout) {
            for host in hosts.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = pidfd_send_signal(host, Signal::KILL); // one that has ended by now needs none
            }
        }
        barks
    });
    let result = run();
    HOSTS.set(None);
    drop(done);
    (result, dog.join().unwrap_or(true))
}

/// A host of the run on this thread.
pub fn watch(pid: Pid) {
    let Ok(host) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    HOSTS.with_borrow(|hosts| {
        if let Some(hosts) = hosts {
            hosts.lock().unwrap_or_else(PoisonError::into_inner).push(host);
        }
    });
}

/// A run may start further hosts after the first were ended: those are ended too.
const AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_run_that_does_not_end_is_ended() {
        let sleep = || {
            let mut child = Command::new("sleep").arg("60").spawn().expect("a child");
            watch(Pid::from_child(&child));
            child.wait().expect("ended").success()
        };
        assert_eq!(guard(Duration::from_millis(50), sleep), (false, true));
        assert_eq!(guard(Duration::from_secs(60), || 7), (7, false));
    }
}
