//! The locks, condition variables and atomics with which threads hand things to each other outside the engine's one
//! lock. Built with `--cfg loom` they are loom's, so that a model tries every order in which the threads can run
//! (`make loom`); otherwise they are parking_lot's and std's.
//!
//! Not for what is behind one lock anyway: that needs no model.

#[cfg(not(loom))]
pub use parking_lot::{Condvar, Mutex};
#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(loom)]
pub use modelled::{Condvar, Mutex};

/// loom's lock and condition variable in parking_lot's shape. No wait ends by its deadline: what is modelled has
/// to be woken.
#[cfg(loom)]
mod modelled {
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    /// A lock.
    #[derive(Debug, Default)]
    pub struct Mutex<T>(loom::sync::Mutex<T>);

    /// The lock, held. Empty only while a condition variable has it.
    #[derive(Debug)]
    pub struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

    /// Where threads wait.
    #[derive(Debug, Default)]
    pub struct Condvar(loom::sync::Condvar);

    /// How a wait ended.
    #[derive(Debug)]
    pub struct WaitTimeoutResult;

    impl<T> Mutex<T> {
        /// A lock that nobody holds.
        pub fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        /// Waits for the lock.
        pub fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(self.0.lock().ok())
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("invariant: held")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("invariant: held")
        }
    }

    impl Condvar {
        /// Wakes everybody who waits.
        pub fn notify_all(&self) {
            self.0.notify_all();
        }

        /// Wakes one who waits.
        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        /// Waits to be woken.
        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            if let Some(held) = guard.0.take() {
                guard.0 = self.0.wait(held).ok();
            }
        }

        /// Waits to be woken, the deadline notwithstanding.
        pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) -> WaitTimeoutResult {
            self.wait(guard);
            WaitTimeoutResult
        }
    }

    impl WaitTimeoutResult {
        /// Never, here.
        pub fn timed_out(&self) -> bool {
            false
        }
    }
}
