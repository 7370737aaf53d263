//! Who copies bytes for an agent: threads of its own, and everybody who waits.
//!
//! What a fabric has queued for copying ([`Hand`]) is taken piece by piece, without the lock of the core: by the progress
//! thread between two drives, by threads of the host that wait, and by the crew's threads, which park until they are
//! called. How many copy at a time the fabric decides.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::fabric::Hand;
use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering, fence};

use super::pollers::Pollers;
use super::process;

/// See the [module](self).
pub(super) struct Crew {
    hands: Vec<Arc<dyn Hand>>,
    guests: Arc<Pollers>,
    /// Threads that may copy at a time, guests included.
    copiers: usize,
    /// Threads of the agent's that copy, or look whether they may.
    at_work: AtomicUsize,
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Debug, Default)]
struct State {
    threads: Vec<JoinHandle<()>>,
    parked: usize,
    is_over: bool,
}

impl Crew {
    /// Nobody yet, for what these hands have to copy.
    pub fn new(hands: Vec<Arc<dyn Hand>>, guests: Arc<Pollers>, copiers: usize) -> Self {
        let (at_work, state, called) = (AtomicUsize::new(0), Mutex::default(), Condvar::default());
        Self { hands, guests, copiers, at_work, state, called }
    }

    /// Starts so many threads, each of which runs `body`, if there is anything to copy at all. The body calls
    /// [`Crew::work`].
    pub fn hire(&self, count: usize, body: impl Fn() + Clone + Send + 'static) -> io::Result<()> {
        let count = if self.hands.is_empty() { 0 } else { count };
        for _ in 0..count {
            let thread = process::spawn("baton-copy", body.clone())?;
            self.state.lock().threads.push(thread);
        }
        Ok(())
    }

    /// Copies a piece for a thread of the host that waits, if there is one that nobody has taken. It would burn its core
    /// otherwise, so the threads of the agent leave it room.
    pub fn lend_as_guest(&self) -> bool {
        self.hands.iter().any(|hand| hand.lend())
    }

    /// Copies a piece for a thread of the agent's, if there is one that nobody has taken and enough room for guests.
    pub fn lend(&self) -> bool {
        let Some(_at_work) = AtWork::within(&self.at_work, self.places()) else { return false };
        self.hands.iter().any(|hand| hand.lend())
    }

    /// How many threads of the agent's may copy.
    fn places(&self) -> usize {
        self.copiers.saturating_sub(usize::from(self.guests.are_there()))
    }

    /// Whether another thread of the agent's has something to do.
    fn has_work(&self) -> bool {
        if !self.hands.iter().any(|hand| hand.has_work()) {
            return false;
        }
        fence(Ordering::SeqCst); // and one where a place is left: who finds it taken still is seen by the one that leaves
        self.at_work.load(Ordering::Acquire) < self.places()
    }

    /// Whether anything is queued or being copied.
    pub fn is_busy(&self) -> bool {
        self.hands.iter().any(|hand| hand.is_busy())
    }

    /// Calls a thread of the crew, if there is a piece to copy and one is parked.
    pub fn call(&self) {
        if self.has_work() && self.state.lock().parked > 0 {
            self.called.notify_one();
        }
    }

    /// What a thread of the crew does, until all are dismissed.
    pub fn work(&self) {
        loop {
            while self.lend() {
                self.call(); // one calls the next, as long as there is something to do
            }
            let mut state = self.state.lock();
            if state.is_over {
                return;
            }
            if !self.has_work() {
                state.parked += 1;
                self.called.wait(&mut state);
                state.parked -= 1;
            }
        }
    }

    /// Ends the threads. What is queued is no longer copied by them.
    pub fn dismiss(&self) {
        let mut state = self.state.lock();
        state.is_over = true;
        self.called.notify_all();
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that copies has panicked");
            }
        }
    }
}

/// A thread at work, until it is not, one way or another.
struct AtWork<'a>(&'a AtomicUsize);

impl<'a> AtWork<'a> {
    /// Takes one of so many places, if one is free.
    fn within(count: &'a AtomicUsize, places: usize) -> Option<Self> {
        let another = |taken| (taken < places).then_some(taken + 1);
        count.fetch_update(Ordering::AcqRel, Ordering::Acquire, another).ok().map(|_| Self(count))
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
        fence(Ordering::SeqCst); // ahead of a look whether there is more, see `Crew::has_work`
    }
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew")
            .field("hands", &self.hands.len())
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// So many pieces.
    struct Heap(AtomicUsize);

    impl Hand for Heap {
        fn lend(&self) -> bool {
            self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok()
        }

        fn has_work(&self) -> bool {
            self.0.load(Ordering::Acquire) > 0
        }

        fn is_busy(&self) -> bool {
            self.has_work()
        }
    }

    fn until(done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "it does not come");
            std::thread::yield_now();
        }
    }

    #[test]
    fn who_is_called_does_all_there_is_and_parks_again() {
        let heap = Arc::new(Heap(AtomicUsize::new(0)));
        let crew = Arc::new(Crew::new(vec![Arc::<Heap>::clone(&heap)], Arc::default(), 3));
        let body = Arc::clone(&crew);
        crew.hire(3, move || body.work()).expect("threads");
        for _ in 0..3 {
            until(|| crew.state.lock().parked == 3);
            heap.0.store(1000, Ordering::Release);
            crew.call();
            until(|| !heap.has_work());
        }
        crew.dismiss();
        heap.0.store(1, Ordering::Release);
        crew.call();
        assert!(crew.lend() && !crew.lend(), "those who wait still may");
    }

    #[test]
    fn where_nothing_is_copied_nobody_is_hired() {
        let crew = Crew::new(Vec::new(), Arc::default(), 3);
        crew.hire(3, || unreachable!("nobody")).expect("no threads");
        assert!(crew.state.lock().threads.is_empty() && !crew.lend());
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::thread;

    use super::*;

    /// Pieces to copy, and who waits for the last one.
    #[derive(Default)]
    struct Heap {
        left: AtomicUsize,
        done: Mutex<usize>,
        was_done: Condvar,
    }

    impl Heap {
        fn wait_for(&self, count: usize) {
            let mut done = self.done.lock();
            while *done < count {
                self.was_done.wait(&mut done);
            }
        }
    }

    impl Hand for Heap {
        fn lend(&self) -> bool {
            let taken =
                self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
            if taken.is_ok() {
                *self.done.lock() += 1;
                self.was_done.notify_all();
            }
            taken.is_ok()
        }

        fn has_work(&self) -> bool {
            self.left.load(Ordering::Acquire) > 0
        }

        fn is_busy(&self) -> bool {
            self.has_work()
        }
    }

    /// Posts so many pieces, and calls once after each; so many of the crew are at it, who are dismissed at the end.
    fn all_is_copied_once(pieces: usize, copiers: usize, preemptions: usize) {
        let mut orders = loom::model::Builder::new();
        orders.preemption_bound = Some(preemptions);
        orders.check(move || {
            let heap = Arc::new(Heap::default());
            let crew = Arc::new(Crew::new(vec![Arc::<Heap>::clone(&heap)], Arc::default(), copiers));
            let threads: Vec<_> = (0..copiers)
                .map(|_| {
                    let crew = Arc::clone(&crew);
                    thread::spawn(move || crew.work())
                })
                .collect();
            for _ in 0..pieces {
                heap.left.fetch_add(1, Ordering::AcqRel);
                crew.call();
            }
            heap.wait_for(pieces);
            crew.dismiss();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!((*heap.done.lock(), crew.state.lock().parked), (pieces, 0));
        });
    }

    #[test]
    fn a_call_is_not_lost_on_one_that_parks() {
        all_is_copied_once(2, 1, 3);
    }

    #[test]
    fn a_call_is_not_lost_where_all_places_seem_taken() {
        all_is_copied_once(1, 2, 2); // with three it takes minutes
    }
}
