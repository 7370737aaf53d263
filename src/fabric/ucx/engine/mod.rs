//! UCX itself: one context, two workers, and every call into the library.
//!
//! The *active* worker owns the endpoints and is progressed. The *passive* worker is the one whose address
//! peers get; it is never progressed, so a put or get that UCX would emulate (which needs this side's CPU, and
//! writes wherever the sender says) can not be carried out here. See the [fabric](super) for what was measured.
//!
//! Invariants: what UCX called back is in [`Engine::take_events`] when a method returns. An [`Endpoint`], key
//! or mapping goes back to the engine it came from. Threads: `&mut self` serialises, as the workers demand.
#![allow(unsafe_code)]

mod endpoint;
mod keys;
mod request;

use std::ffi::CString;
use std::ptr::{self, NonNull};

use ucx_sys::Library;
use ucx_sys::bindings::*;

pub(super) use self::endpoint::Endpoint;
pub(super) use self::keys::{Mapping, RemoteKey};
pub(super) use self::request::Started;
use super::events::{self, Event};
use super::status;
use crate::error::{FabricError, FabricErrorKind};

/// See the [module](self).
pub(super) struct Engine {
    ucx: Library,
    context: ucp_context_h,
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
        let context = create_context(&ucx, tls)?;
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
        if status >= UCS_OK { Ok(()) } else { Err(status::error(&self.ucx, call, status)) }
    }

    fn present<T>(&self, call: &'static str, handle: *mut T) -> Result<NonNull<T>, FabricError> {
        let nothing =
            || FabricError::new(super::NAME, call, FabricErrorKind::Internal, 0, "UCX returned nothing");
        NonNull::new(handle).ok_or_else(nothing)
    }

    fn create_worker(&self) -> Result<ucp_worker_h, FabricError> {
        // SAFETY: all fields are plain data for which zero is valid; the mask says which count.
        let mut params: ucp_worker_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = u64::from(UCP_WORKER_PARAM_FIELD_THREAD_MODE);
        params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
        let mut worker = ptr::null_mut();
        // SAFETY: the context lives; both pointers are valid.
        let status = unsafe { (self.ucx.ucp_worker_create)(self.context, &params, &mut worker) };
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
        // SAFETY: the context is ours, its workers are gone and its mappings undone.
        unsafe { (self.ucx.ucp_cleanup)(self.context) };
    }
}

fn create_context(ucx: &Library, tls: &str) -> Result<ucp_context_h, FabricError> {
    let check = |call, status| if status == UCS_OK { Ok(()) } else { Err(status::error(ucx, call, status)) };
    let mut config = ptr::null_mut();
    // SAFETY: null prefix and file mean the defaults; the out-pointer is valid.
    let status = unsafe { (ucx.ucp_config_read)(ptr::null(), ptr::null(), &mut config) };
    check("ucp_config_read", status)?;
    let value = CString::new(tls).unwrap_or_default(); // made of fixed names, never holds a NUL
    // SAFETY: the config lives; both strings are valid C strings that UCX copies.
    let modified = unsafe { (ucx.ucp_config_modify)(config, c"TLS".as_ptr(), value.as_ptr()) };
    // SAFETY: all fields are plain data for which zero is valid; the mask says which count.
    let mut params: ucp_params_t = unsafe { std::mem::zeroed() };
    params.field_mask = u64::from(UCP_PARAM_FIELD_FEATURES);
    params.features = u64::from(UCP_FEATURE_RMA);
    let mut context = ptr::null_mut();
    let mut created = UCS_OK;
    if modified == UCS_OK {
        // SAFETY: params and config live through the call; the version is that of the structs passed.
        created =
            unsafe { (ucx.ucp_init_version)(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &mut context) };
    }
    // SAFETY: the config came from ucp_config_read and is not used after.
    unsafe { (ucx.ucp_config_release)(config) };
    check("ucp_config_modify(TLS)", modified)?;
    check("ucp_init", created)?;
    Ok(context)
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
