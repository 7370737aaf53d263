//! What wakes those who wait for the engine: a count of noteworthy events, and a condition variable.
//!
//! A waiter reads the count, looks for what it waits for, and parks only if the count is still the same: what is
//! raised between its look and its park is not lost.

use std::time::Instant;

use crate::sync::{Condvar, Mutex};

/// Tells waiters that something noteworthy has happened.
#[derive(Debug, Default)]
pub(super) struct Signal {
    epoch: Mutex<u64>,
    raised: Condvar,
}

impl Signal {
    /// Wakes everybody who waits.
    pub fn raise(&self) {
        *self.epoch.lock() += 1;
        self.raised.notify_all();
    }

    /// Waits until `done`, looking again whenever something is raised, or until `deadline`.
    pub fn park_until(&self, deadline: Instant, done: impl Fn() -> bool) {
        loop {
            let epoch = self.epoch();
            if done() || Instant::now() >= deadline {
                return;
            }
            self.wait(epoch, deadline);
        }
    }

    /// What has been raised so far.
    pub fn epoch(&self) -> u64 {
        *self.epoch.lock()
    }

    /// Waits until something is raised that `seen` does not include, or until `deadline`.
    pub fn wait(&self, seen: u64, deadline: Instant) {
        let mut epoch = self.epoch.lock();
        while *epoch == seen {
            if self.raised.wait_until(&mut epoch, deadline).timed_out() {
                return;
            }
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use std::time::Duration;

    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::agent::inbox::Inbox;
    use crate::sync::{AtomicBool, Ordering};

    fn never() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_message_always_wakes_its_reader() {
        loom::model(|| {
            let (inbox, signal) = (Arc::new(Inbox::default()), Arc::new(Signal::default()));
            let (box_, bell) = (Arc::clone(&inbox), Arc::clone(&signal));
            let writer = thread::spawn(move || {
                assert!(box_.put("ctx".into(), vec![1]));
                bell.raise();
            });
            signal.park_until(never(), || !inbox.is_empty());
            assert_eq!(inbox.take(), vec![("ctx".to_owned(), vec![vec![1]])]);
            writer.join().unwrap();
        });
    }

    #[test]
    fn no_message_is_lost_or_read_twice_between_readers_and_a_writer() {
        loom::model(|| {
            let inbox = Arc::new(Inbox::default());
            let (source, other) = (Arc::clone(&inbox), Arc::clone(&inbox));
            let writer = thread::spawn(move || {
                assert!(source.put("ctx".into(), vec![1]));
                assert!(source.put("ctx".into(), vec![2]));
            });
            let count = |taken: Vec<(String, Vec<Vec<u8>>)>| -> usize {
                taken.iter().map(|(_, messages)| messages.len()).sum()
            };
            let reader = thread::spawn(move || count(other.take()));
            let mut read = count(inbox.take());
            writer.join().unwrap();
            read += reader.join().unwrap();
            assert_eq!(inbox.is_empty(), read == 2);
            assert_eq!(read + count(inbox.take()), 2);
        });
    }

    #[test]
    fn a_stop_ends_every_wait() {
        loom::model(|| {
            let (stopped, signal) = (Arc::new(AtomicBool::new(false)), Arc::new(Signal::default()));
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let (stopped, signal) = (Arc::clone(&stopped), Arc::clone(&signal));
                    thread::spawn(move || signal.park_until(never(), || stopped.load(Ordering::Acquire)))
                })
                .collect();
            stopped.store(true, Ordering::Release);
            signal.raise();
            waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        });
    }
}
