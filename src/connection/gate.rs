//! Lets operations in until it is closed, and knows whether any is still inside.
//!
//! Both are one word, so that every look at it has its place in one order: after [`Gate::close`], once
//! [`Gate::is_empty`], nobody is inside and nobody comes.

use crate::sync::{AtomicUsize, Ordering};

/// See the [module](self). The highest bit says that it is closed, the others count who is inside.
#[derive(Debug, Default)]
pub(super) struct Gate(AtomicUsize);

const CLOSED: usize = 1 << (usize::BITS - 1);

impl Gate {
    /// Goes in; false where the gate is closed. Who was let in leaves by [`Gate::leave`].
    #[must_use]
    pub fn enter(&self) -> bool {
        let is_open = self.0.fetch_add(1, Ordering::AcqRel) & CLOSED == 0;
        if !is_open {
            self.leave();
        }
        is_open
    }

    /// Leaves.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    /// Lets nobody in from now on.
    pub fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether nobody is inside.
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & !CLOSED == 0
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::sync::AtomicBool;

    #[test]
    fn nobody_is_inside_once_a_closed_gate_is_empty() {
        loom::model(|| {
            let (gate, gone) = (Arc::new(Gate::default()), Arc::new(AtomicBool::new(false)));
            let guests: Vec<_> = (0..2)
                .map(|_| {
                    let (gate, gone) = (Arc::clone(&gate), Arc::clone(&gone));
                    thread::spawn(move || {
                        if gate.enter() {
                            assert!(!gone.load(Ordering::SeqCst), "inside after everything was gone");
                            gate.leave();
                        }
                    })
                })
                .collect();
            gate.close();
            while !gate.is_empty() {
                thread::yield_now();
            }
            gone.store(true, Ordering::SeqCst);
            guests.into_iter().for_each(|guest| guest.join().unwrap());
        });
    }
}
