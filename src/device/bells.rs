//! Who is to be woken when a batch has ended: the driver calls back with a number, never with a pointer.
//!
//! A callback may come late, from a thread of the driver's, or never, after an error. A number that nobody answers to any
//! more is harmless, and what a callback wakes is freed exactly once, when its queue is.

use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use crate::error::panic_text;

/// What is called when a batch has ended. It runs on a thread of the driver's: short, without CUDA, waiting for nothing.
pub type Bell = Arc<dyn Fn() + Send + Sync>;

static BELLS: LazyLock<Mutex<HashMap<u64, Bell>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A bell that callbacks find by its number, until this is dropped.
pub(super) struct Hung {
    number: u64,
}

impl Hung {
    pub fn new(bell: Bell) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        BELLS.lock().insert(number, bell);
        Self { number }
    }

    /// What [`ring()`] is to be called with.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        // Dropped after the lock: what the bell holds may take locks of its own.
        let bell = BELLS.lock().remove(&self.number);
        drop(bell);
    }
}

/// Rings the bell with this number, if it still hangs. Called by the driver: a panic ends here.
pub(super) extern "C" fn ring(number: *mut c_void) {
    let bell = BELLS.lock().get(&(number.addr() as u64)).cloned();
    let rung = catch_unwind(AssertUnwindSafe(move || bell.map(|bell| bell())));
    if let Err(payload) = rung {
        tracing::error!("a bell panicked: {}", panic_text(payload));
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::without_provenance_mut;

    use super::*;

    fn counted() -> (Bell, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let counting = Arc::clone(&count);
        (Arc::new(move || _ = counting.fetch_add(1, Ordering::Relaxed)), count)
    }

    fn call(number: u64) {
        ring(without_provenance_mut(number as usize));
    }

    #[test]
    fn the_bell_with_the_number_rings_until_it_is_taken_down() {
        let ((one, rung), (other, silent)) = (counted(), counted());
        let (hung, _other) = (Hung::new(one), Hung::new(other));
        let number = hung.number();
        call(number);
        call(number);
        drop(hung);
        call(number);
        assert_eq!((rung.load(Ordering::Relaxed), silent.load(Ordering::Relaxed)), (2, 0));
        assert_eq!(Arc::strong_count(&rung), 1, "what the bell held is free");
    }

    #[test]
    fn a_panic_stays_within() {
        let hung = Hung::new(Arc::new(|| panic!("on purpose")));
        call(hung.number());
        call(hung.number());
    }
}
