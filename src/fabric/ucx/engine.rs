//! UCX itself: one context, two workers, and every call into the library.
//!
//! The *active* worker owns the endpoints and is progressed. The *passive* worker is the one whose address
//! peers get; it is never progressed, so a put or get that UCX would emulate (which needs this side's CPU, and
//! writes wherever the sender says) can not be carried out here. See the [fabric](super) for what was measured.
//!
//! Invariants: what UCX called back is in [`Engine::take_events`] when a method returns. An [`Endpoint`], key
//! or mapping goes back to the engine it came from. Threads: `&mut self` serialises, as the workers demand.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_void};
use std::ptr::{self, NonNull};

use ucx_sys::Library;
use ucx_sys::bindings::*;

use super::events::{self, Event};
use super::memory::Vouched;
use super::slab::Ticket;
use super::status;
use crate::desc::{PeerKey, Span, TransferOp};
use crate::error::{FabricError, FabricErrorKind};

/// Zero bytes behind every blob that UCX parses without knowing its length, so that one which lies about
/// itself is read as zeros and not as our heap.
const PADDING_BYTES: usize = 16 * 1024;

/// A connection to one peer's passive worker.
pub(super) struct Endpoint(NonNull<ucp_ep>);

/// The right to reach one region of one peer through one endpoint.
pub(super) struct RemoteKey(NonNull<ucp_rkey>);

/// A region that UCX knows.
pub(super) struct Mapping(NonNull<ucp_mem>);

// SAFETY: UCX's objects are not tied to threads; the engine that they go back to serialises their use.
unsafe impl Send for Endpoint {}
// SAFETY: as above.
unsafe impl Send for RemoteKey {}
// SAFETY: as above.
unsafe impl Send for Mapping {}

/// What became of a call that starts something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    /// It is over already.
    Done,
    /// An [`Event::Done`] with the ticket will follow.
    Pending,
    /// It could not start.
    Failed(ucs_status_t),
}

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

    /// Tells UCX of a span; nothing is read or written.
    pub fn map(&mut self, span: Span) -> Result<Mapping, FabricError> {
        // SAFETY: all fields are plain data for which zero is valid; the mask says which count.
        let mut params: ucp_mem_map_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = u64::from(UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH);
        params.address = ptr::with_exposed_provenance_mut(span.addr as usize);
        params.length = span.len as usize;
        let mut mapping = ptr::null_mut();
        // SAFETY: the context lives; both pointers are valid. UCX may pin the pages: an unmapped span is an
        // error status, not a fault.
        let status = unsafe { (self.ucx.ucp_mem_map)(self.context, &params, &mut mapping) };
        self.check("ucp_mem_map", status)?;
        self.present("ucp_mem_map", mapping).map(Mapping)
    }

    /// What a peer needs to reach a mapped region.
    pub fn pack(&self, mapping: &Mapping) -> Result<Vec<u8>, FabricError> {
        let mut buffer = ptr::null_mut();
        let mut len = 0;
        // SAFETY: context and mapping live; both out-pointers are valid.
        let status =
            unsafe { (self.ucx.ucp_rkey_pack)(self.context, mapping.0.as_ptr(), &mut buffer, &mut len) };
        self.check("ucp_rkey_pack", status)?;
        // SAFETY: on success UCX gives `len` readable bytes, ours until released.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), len) }.to_vec();
        // SAFETY: the buffer came from ucp_rkey_pack and is not used after.
        unsafe { (self.ucx.ucp_rkey_buffer_release)(buffer) };
        Ok(bytes)
    }

    /// Undoes [`Engine::map`].
    pub fn unmap(&mut self, mapping: Mapping) {
        // SAFETY: the mapping came from this context and is given up here.
        let status = unsafe { (self.ucx.ucp_mem_unmap)(self.context, mapping.0.as_ptr()) };
        if let Err(error) = self.check("ucp_mem_unmap", status) {
            tracing::warn!("{error}");
        }
    }

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
        self.present("ucp_ep_create", endpoint).map(Endpoint)
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

    /// A packed key, made usable on this endpoint.
    pub fn unpack(&mut self, endpoint: &Endpoint, packed: &[u8]) -> Result<RemoteKey, FabricError> {
        let padded = padded(packed);
        let mut key = ptr::null_mut();
        // SAFETY: the endpoint lives; the bytes are readable far beyond their own length.
        let status =
            unsafe { (self.ucx.ucp_ep_rkey_unpack)(endpoint.0.as_ptr(), padded.as_ptr().cast(), &mut key) };
        self.check("ucp_ep_rkey_unpack", status)?;
        self.present("ucp_ep_rkey_unpack", key).map(RemoteKey)
    }

    /// Gives a key back, before its endpoint is closed.
    pub fn destroy_key(&mut self, key: RemoteKey) {
        // SAFETY: the key came from unpack and is given up here.
        unsafe { (self.ucx.ucp_rkey_destroy)(key.0.as_ptr()) };
    }

    /// Starts one copy between local memory and the peer's memory at `remote`.
    pub fn copy(
        &mut self,
        endpoint: &Endpoint,
        key: &RemoteKey,
        op: TransferOp,
        local: Vouched,
        remote: u64,
        ticket: Ticket,
    ) -> Started {
        let params = request_params(Some(ticket));
        let (ep, rkey, len) = (endpoint.0.as_ptr(), key.0.as_ptr(), local.len() as usize);
        let buffer: *mut c_void = ptr::with_exposed_provenance_mut(local.addr() as usize);
        // SAFETY: endpoint and key live and belong together; `Vouched` says that the local bytes may be read
        // and written until the operation is over; the callback takes any ticket.
        let request = unsafe {
            match op {
                TransferOp::Write => (self.ucx.ucp_put_nbx)(ep, buffer, len, remote, rkey, &params),
                TransferOp::Read => (self.ucx.ucp_get_nbx)(ep, buffer, len, remote, rkey, &params),
            }
        };
        self.collect();
        started(request)
    }

    /// Starts the flush that proves the arrival of all that was started on the endpoint before.
    pub fn flush(&mut self, endpoint: &Endpoint, ticket: Ticket) -> Started {
        let params = request_params(Some(ticket));
        // SAFETY: the endpoint lives; the callback takes any ticket.
        let request = unsafe { (self.ucx.ucp_ep_flush_nbx)(endpoint.0.as_ptr(), &params) };
        self.collect();
        started(request)
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

/// Parameters of a request: host memory, and the callback with its ticket where one is wanted.
fn request_params(ticket: Option<Ticket>) -> ucp_request_param_t {
    // SAFETY: all fields are plain data for which zero is valid; the mask says which count.
    let mut params: ucp_request_param_t = unsafe { std::mem::zeroed() };
    params.op_attr_mask = UCP_OP_ATTR_FIELD_MEMORY_TYPE;
    params.memory_type = UCS_MEMORY_TYPE_HOST;
    if let Some(ticket) = ticket {
        params.op_attr_mask |= UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
        params.cb.send = Some(events::done);
        params.user_data = events::user_data(ticket.0);
    }
    params
}

/// UCX's status pointers: null for done, a small negative number for an error, else a request.
fn started(request: ucs_status_ptr_t) -> Started {
    match request.addr() as isize {
        0 => Started::Done,
        status if (UCS_ERR_LAST as isize..0).contains(&status) => Started::Failed(status as ucs_status_t),
        _ => Started::Pending,
    }
}

fn padded(blob: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blob.len() + PADDING_BYTES);
    out.extend_from_slice(blob);
    out.resize(blob.len() + PADDING_BYTES, 0);
    out
}
