//! UCX itself: one context, two workers, and every call into the library.
//!
//! ```text
//!   mod      workers          endpoint  connections      request  copies and flushes
//!   context  our memory, shared with registering threads   keys     the peer's memory
//! ```
//!
//! The *active* worker owns the endpoints and is progressed. The *passive* worker is the one whose address
//! peers get; it is never progressed, so a put or get that UCX would emulate (which needs this side's CPU, and
//! writes wherever the sender says) can not be carried out here. See the [fabric](super) for what was measured.
//!
//! Invariants: what UCX called back is in [`Engine::take_events`] when a method returns. An [`Endpoint`] or key
//! goes back to the engine it came from. Threads: `&mut self` serialises, as the workers demand; the context alone is shared.
#![allow(unsafe_code)]

mod context;
mod endpoint;
mod keys;
mod request;

use std::ptr;
use std::sync::Arc;

use ucx_sys::Library;
use ucx_sys::bindings::*;

pub(super) use self::context::{Context, Mapping};
pub(super) use self::endpoint::Endpoint;
pub(super) use self::keys::RemoteKey;
pub(super) use self::request::Started;
use super::events::{self, Event};
use crate::error::FabricError;

/// See the [module](self).
pub(super) struct Engine {
    ucx: Arc<Library>,
    context: Arc<Context>,
    active: ucp_worker_h,
    passive: ucp_worker_h,
    events: Vec<Event>,
    abandoned: bool,
}

// SAFETY: the workers are created SERIALIZED and every use is through `&mut self` or before sharing; request
// pointers in `events` are plain handles of the active worker.
unsafe impl Send for Engine {}

impl Engine {
    /// A context that has only the transports in `tls`, and its two workers.
    pub fn open(ucx: Library, tls: &str) -> Result<Self, FabricError> {
        let ucx = Arc::new(ucx);
        let context = Context::new(Arc::clone(&ucx), tls)?;
        let none = ptr::null_mut();
        // From here on Drop undoes what is done.
        let mut engine =
            Self { ucx, context, active: none, passive: none, events: Vec::new(), abandoned: false };
        engine.active = engine.create_worker()?;
        engine.passive = engine.create_worker()?;
        Ok(engine)
    }

    pub fn library(&self) -> &Library {
        &self.ucx
    }

    /// The context, for those who map memory.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The passive worker's address.
    pub fn address(&self) -> Result<Vec<u8>, FabricError> {
        let mut address = ptr::null_mut();
        let mut len = 0;
        // SAFETY: the worker lives; both out-pointers are valid.
        let status = unsafe { (self.ucx.ucp_worker_get_address)(self.passive, &mut address, &mut len) };
        self.check("ucp_worker_get_address", status)?;
        // SAFETY: on success UCX gives `len` readable bytes, ours until released.
        let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), len) }.to_vec();
        // SAFETY: the address came from this worker and is not used after.
        unsafe { (self.ucx.ucp_worker_release_address)(self.passive, address) };
        Ok(bytes)
    }

    /// Lets UCX work a bounded step; whether it did anything.
    pub fn progress(&mut self) -> bool {
        // SAFETY: the worker lives, and `&mut self` is the only way to it.
        let did = unsafe { (self.ucx.ucp_worker_progress)(self.active) };
        self.collect();
        did != 0 || !self.events.is_empty()
    }

    /// Carries out what is emulated towards our own passive worker: only to clean up after a failed proof,
    /// before anybody has our address.
    pub fn progress_passive(&mut self) {
        // SAFETY: as in `progress`.
        unsafe { (self.ucx.ucp_worker_progress)(self.passive) };
        self.collect();
    }

    /// Whether anything called back since [`Engine::take_events`] is a failure. Some versions abort the
    /// process when a get is started on an endpoint that has failed.
    pub fn has_failure(&self) -> bool {
        self.events.iter().any(|event| match *event {
            Event::Done { status, .. } => status < UCS_OK,
            Event::Broken { .. } => true,
        })
    }

    /// Moves what was called back to the end of `out`; requests among them are freed.
    pub fn take_events(&mut self, out: &mut Vec<Event>) {
        for event in &self.events {
            if let Event::Done { request, .. } = *event {
                // SAFETY: a completed request of ours; this is the only place that frees it.
                unsafe { (self.ucx.ucp_request_free)(request.0) };
            }
        }
        out.append(&mut self.events);
    }

    /// From now on dropping leaves UCX's objects behind: some operation could not be ended, and some versions
    /// abort the process when its worker is destroyed.
    pub fn abandon(&mut self) {
        self.abandoned = true;
    }

    /// An error of one of UCX's calls, unless it went well.
    pub fn check(&self, call: &'static str, status: ucs_status_t) -> Result<(), FabricError> {
        context::check(&self.ucx, call, status)
    }

    fn create_worker(&self) -> Result<ucp_worker_h, FabricError> {
        // SAFETY: all fields are plain data for which zero is valid; the mask says which count.
        let mut params: ucp_worker_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = u64::from(UCP_WORKER_PARAM_FIELD_THREAD_MODE);
        params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
        let mut worker = ptr::null_mut();
        // SAFETY: the context lives; both pointers are valid.
        let status = unsafe { (self.ucx.ucp_worker_create)(self.context.handle, &params, &mut worker) };
        self.check("ucp_worker_create", status)?;
        Ok(worker)
    }

    fn collect(&mut self) {
        events::take(&mut self.events);
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.take_events(&mut Vec::new());
        if self.abandoned {
            self.context.leave_behind();
            tracing::error!("ucx: an operation could not be ended; its worker is left behind, unused");
            return;
        }
        for worker in [self.active, self.passive] {
            if !worker.is_null() {
                // SAFETY: a worker of ours, not used after; its endpoints are closed and operations over.
                unsafe { (self.ucx.ucp_worker_destroy)(worker) };
            }
        }
        events::take(&mut self.events);
    }
}

/// Zero bytes behind every blob that UCX parses without knowing its length, so that one which lies about
/// itself is read as zeros and not as our heap.
const PADDING_BYTES: usize = 16 * 1024;

fn padded(blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blob.len() + PADDING_BYTES);
    out.extend_from_slice(blob);
    out.resize(blob.len() + PADDING_BYTES, 0);
    out
}
