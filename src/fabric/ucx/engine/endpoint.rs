//! Endpoints: made, described, closed.
#![allow(unsafe_code)]

use std::ffi::c_char;
use std::ptr::{self, NonNull};

use ucx_sys::bindings::*;

use super::context::present;
use super::request::{Started, request_params, started};
use super::{Engine, padded};
use crate::desc::PeerKey;
use crate::error::FabricError;
use crate::fabric::ucx::events;

/// A connection to one peer's passive worker.
pub(in crate::fabric::ucx) struct Endpoint(pub(super) NonNull<ucp_ep>);

// SAFETY: UCX's objects are not tied to threads; the engine that it goes back to serialises its use.
unsafe impl Send for Endpoint {}

impl Engine {
    /// Starts an endpoint to the worker with this address; its breaking comes back as `peer`'s.
    pub fn connect(&mut self, worker_address: &[u8], peer: PeerKey) -> Result<Endpoint, FabricError> {
        let padded = padded(worker_address);
        // SAFETY: all fields are plain data for which zero is valid; the mask says which count.
        let mut params: ucp_ep_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = u64::from(
            UCP_EP_PARAM_FIELD_REMOTE_ADDRESS
                | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE
                | UCP_EP_PARAM_FIELD_ERR_HANDLER,
        );
        params.address = padded.as_ptr().cast();
        params.err_mode = UCP_ERR_HANDLING_MODE_NONE;
        params.err_handler.cb = Some(events::broken);
        params.err_handler.arg = events::user_data(u64::from(peer.0));
        let mut endpoint = ptr::null_mut();
        // SAFETY: the worker lives; the address is readable far beyond its own length and copied by UCX.
        let status = unsafe { (self.ucx.ucp_ep_create)(self.active, &params, &mut endpoint) };
        self.collect();
        self.check("ucp_ep_create", status)?;
        present("ucp_ep_create", endpoint).map(Endpoint)
    }

    /// UCX's own description of an endpoint and its lanes; empty where it cannot be had.
    pub fn describe(&self, endpoint: &Endpoint) -> String {
        let mut text: *mut c_char = ptr::null_mut();
        let mut len = 0;
        // SAFETY: both out-pointers are valid and outlive the stream, which is closed below.
        let stream = unsafe { libc::open_memstream(&mut text, &mut len) };
        if stream.is_null() {
            return String::new();
        }
        // SAFETY: the endpoint lives; the stream is open and is C's FILE under two names.
        unsafe { (self.ucx.ucp_ep_print_info)(endpoint.0.as_ptr(), stream.cast()) };
        // SAFETY: the stream is open and not used after.
        let closed = unsafe { libc::fclose(stream) };
        if closed != 0 || text.is_null() {
            return String::new();
        }
        // SAFETY: fclose has put `len` bytes at `text`.
        let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), len) };
        let out = String::from_utf8_lossy(bytes).into_owned();
        // SAFETY: open_memstream's buffer is ours to free, and `out` is a copy.
        unsafe { libc::free(text.cast()) };
        out
    }

    /// Ends an endpoint whose operations are over, in at most `steps` steps. `false`: it did not end.
    pub fn close(&mut self, endpoint: Endpoint, steps: u32) -> bool {
        let params = request_params(None);
        // SAFETY: the endpoint lives and is given up here.
        let request = unsafe { (self.ucx.ucp_ep_close_nbx)(endpoint.0.as_ptr(), &params) };
        let mut ended = started(request) != Started::Pending;
        if !ended {
            for _ in 0..steps {
                self.progress();
                // SAFETY: the request is live until freed below.
                ended = unsafe { (self.ucx.ucp_request_check_status)(request) } != UCS_INPROGRESS;
                if ended {
                    break;
                }
            }
            // SAFETY: a live request; UCX finishes it by itself if it is still going.
            unsafe { (self.ucx.ucp_request_free)(request) };
        }
        self.collect();
        ended
    }
}
