//! What UCX calls back with, as values in a queue.
//!
//! A callback sees no Rust object: it appends to a queue of the thread that runs it, and
//! [`Engine`](super::engine::Engine) empties that queue before the call into UCX returns to its own caller.
//! UCX runs callbacks only inside calls made by the thread that drives the worker, so no event is left on
//! another thread.
#![allow(unsafe_code)] // `extern "C"` callbacks with raw pointers in their signatures

use std::cell::RefCell;
use std::ffi::c_void;
use std::mem::ManuallyDrop;

use ucx_sys::bindings::{ucp_ep_h, ucs_status_t};

use super::slab::Ticket;
use crate::desc::PeerKey;

/// UCX's name for something it is doing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request(pub *mut c_void);

// SAFETY: a handle that is only ever given back to the worker it came from, whose use the engine serialises.
unsafe impl Send for Request {}

/// Something UCX said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// One put, get or flush of an operation is over.
    Done {
        /// The operation.
        ticket: Ticket,
        /// How it ended.
        status: ucs_status_t,
        /// To be freed by whoever empties the queue.
        request: Request,
    },
    /// An endpoint broke.
    Broken {
        /// Whose it is.
        peer: PeerKey,
        /// Why.
        status: ucs_status_t,
    },
}

thread_local! {
    /// Without a destructor: agents in static objects are shut down by a thread whose other storage is gone already, and
    /// an event that is lost then is an operation that never ends. Between calls it is empty and has no memory.
    static QUEUE: RefCell<ManuallyDrop<Vec<Event>>> = const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// Moves what has been called back on this thread to the end of `out`.
pub(super) fn take(out: &mut Vec<Event>) {
    QUEUE.with(|queue| out.append(&mut std::mem::take(&mut **queue.borrow_mut())));
}

/// A ticket as the pointer-sized value that UCX carries.
pub(super) fn user_data(value: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(value as usize)
}

/// For puts, gets and flushes; `user_data` is the ticket.
pub(super) unsafe extern "C" fn done(request: *mut c_void, status: ucs_status_t, user_data: *mut c_void) {
    push(Event::Done { ticket: Ticket(user_data.addr() as u64), status, request: Request(request) });
}

/// For endpoints; `argument` is the peer's key.
pub(super) unsafe extern "C" fn broken(argument: *mut c_void, _endpoint: ucp_ep_h, status: ucs_status_t) {
    push(Event::Broken { peer: PeerKey(argument.addr() as u32), status });
}

fn push(event: Event) {
    QUEUE.with(|queue| queue.borrow_mut().push(event));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_outlives_what_else_a_thread_has() {
        assert!(!std::mem::needs_drop::<RefCell<ManuallyDrop<Vec<Event>>>>());
        for peer in [1, 2] {
            push(Event::Broken { peer: PeerKey(peer), status: 0 });
        }
        let mut seen = Vec::new();
        take(&mut seen);
        assert!(matches!(seen[..], [Event::Broken { peer: PeerKey(1), .. }, Event::Broken { .. }]));
        take(&mut seen);
        assert_eq!(seen.len(), 2, "each is taken once");
        QUEUE
            .with(|queue| assert_eq!(queue.borrow().capacity(), 0, "nothing is left behind with the thread"));
    }
}
