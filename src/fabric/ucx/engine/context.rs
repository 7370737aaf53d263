//! UCX's context, and the memory that it knows: shared by the engine and by the threads that register.
//!
//! It is created with `mt_workers_shared`, so UCX itself serialises what several threads do with it: mapping, unmapping
//! and packing go on beside the engine, and take as long as they take. A [`Mapping`] keeps its context alive.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ucx_sys::Library;
use ucx_sys::bindings::*;

use crate::desc::{MemoryKind, Span};
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::ucx::kinds::{self, MemoryTypes};
use crate::fabric::ucx::{NAME, status};

/// See the [module](self). Gone with the last one who holds it.
pub(in crate::fabric::ucx) struct Context {
    ucx: Arc<Library>,
    pub(super) handle: ucp_context_h,
    /// Some operation could not be ended: its worker lives on, and so must this.
    left_behind: AtomicBool,
}

// SAFETY: created with `mt_workers_shared`, for use by several threads at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// A region that UCX knows, until it is dropped.
pub(in crate::fabric::ucx) struct Mapping {
    context: Arc<Context>,
    handle: NonNull<ucp_mem>,
}

// SAFETY: a handle of a context that any thread may use.
unsafe impl Send for Mapping {}
// SAFETY: as above; behind a shared reference it is only packed.
unsafe impl Sync for Mapping {}

impl Context {
    /// A context that has only the transports in `tls`.
    pub(super) fn new(ucx: Arc<Library>, tls: &str) -> Result<Arc<Self>, FabricError> {
        let handle = create(&ucx, tls)?;
        Ok(Arc::new(Self { ucx, handle, left_behind: AtomicBool::new(false) }))
    }

    /// From now on the context outlives everything.
    pub(super) fn leave_behind(&self) {
        self.left_behind.store(true, Ordering::Relaxed);
    }

    /// The types of memory that UCX supports with these transports.
    pub fn memory_types(&self) -> Result<MemoryTypes, FabricError> {
        // SAFETY: all fields are plain data for which zero is valid; the mask says which UCX fills in.
        let mut attributes: ucp_context_attr_t = unsafe { std::mem::zeroed() };
        attributes.field_mask = u64::from(UCP_ATTR_FIELD_MEMORY_TYPES);
        // SAFETY: the context lives; the struct is a valid place to write to, of at least the size that the mask asks for.
        let status = unsafe { (self.ucx.ucp_context_query)(self.handle, &mut attributes) };
        check(&self.ucx, "ucp_context_query", status)?;
        Ok(MemoryTypes(attributes.memory_types))
    }

    /// Tells UCX of a span of this kind of memory; nothing is read or written. May pin its pages, and take long.
    pub fn map(self: &Arc<Self>, span: Span, kind: MemoryKind) -> Result<Mapping, FabricError> {
        // SAFETY: all fields are plain data for which zero is valid; the mask says which count.
        let mut params: ucp_mem_map_params_t = unsafe { std::mem::zeroed() };
        params.field_mask = u64::from(
            UCP_MEM_MAP_PARAM_FIELD_ADDRESS
                | UCP_MEM_MAP_PARAM_FIELD_LENGTH
                | UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
        );
        params.address = ptr::with_exposed_provenance_mut(span.addr as usize);
        params.length = span.len as usize;
        params.memory_type = kinds::memory_type(kind);
        let mut mapping = ptr::null_mut();
        // SAFETY: the context lives and is shared; both pointers are valid. UCX may pin the pages: an unmapped
        // span is an error status, not a fault.
        let status = unsafe { (self.ucx.ucp_mem_map)(self.handle, &params, &mut mapping) };
        check(&self.ucx, "ucp_mem_map", status)?;
        let handle = present("ucp_mem_map", mapping)?;
        Ok(Mapping { context: Arc::clone(self), handle })
    }
}

impl Mapping {
    /// What a peer needs to reach the region.
    pub fn pack(&self) -> Result<Vec<u8>, FabricError> {
        let (ucx, context) = (&self.context.ucx, self.context.handle);
        let mut buffer = ptr::null_mut();
        let mut len = 0;
        // SAFETY: context and mapping live; both out-pointers are valid.
        let status = unsafe { (ucx.ucp_rkey_pack)(context, self.handle.as_ptr(), &mut buffer, &mut len) };
        check(ucx, "ucp_rkey_pack", status)?;
        // SAFETY: on success UCX gives `len` readable bytes, ours until released.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), len) }.to_vec();
        // SAFETY: the buffer came from ucp_rkey_pack and is not used after.
        unsafe { (ucx.ucp_rkey_buffer_release)(buffer) };
        Ok(bytes)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let ucx = &self.context.ucx;
        // SAFETY: the mapping came from this context, which lives, and is given up here.
        let status = unsafe { (ucx.ucp_mem_unmap)(self.context.handle, self.handle.as_ptr()) };
        if let Err(error) = check(ucx, "ucp_mem_unmap", status) {
            tracing::warn!("{error}");
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if !self.left_behind.load(Ordering::Relaxed) {
            // SAFETY: the context is ours; its workers are gone, for the engine destroys them before it lets go of
            // this, and its mappings are undone, for each holds it.
            unsafe { (self.ucx.ucp_cleanup)(self.handle) };
        }
    }
}

/// An error of one of UCX's calls, unless it went well.
pub(super) fn check(ucx: &Library, call: &'static str, status: ucs_status_t) -> Result<(), FabricError> {
    if status >= UCS_OK { Ok(()) } else { Err(status::error(ucx, call, status)) }
}

/// What a call that went well has put out.
pub(super) fn present<T>(call: &'static str, handle: *mut T) -> Result<NonNull<T>, FabricError> {
    let nothing = || FabricError::new(NAME, call, FabricErrorKind::Internal, 0, "UCX returned nothing");
    NonNull::new(handle).ok_or_else(nothing)
}

fn create(ucx: &Library, tls: &str) -> Result<ucp_context_h, FabricError> {
    let mut config = ptr::null_mut();
    // SAFETY: null prefix and file mean the defaults; the out-pointer is valid.
    let status = unsafe { (ucx.ucp_config_read)(ptr::null(), ptr::null(), &mut config) };
    check(ucx, "ucp_config_read", status)?;
    let value = CString::new(tls).unwrap_or_default(); // made of fixed names, never holds a NUL
    // SAFETY: the config lives; both strings are valid C strings that UCX copies.
    let mut modified = unsafe { (ucx.ucp_config_modify)(config, c"TLS".as_ptr(), value.as_ptr()) };
    if modified == UCS_OK && kinds::can_refuse_emulation(ucx.version()) {
        let emulation = c"PROTO_EMULATION_ENABLE";
        // SAFETY: as above.
        modified = unsafe { (ucx.ucp_config_modify)(config, emulation.as_ptr(), c"n".as_ptr()) };
    }
    // SAFETY: all fields are plain data for which zero is valid; the mask says which count.
    let mut params: ucp_params_t = unsafe { std::mem::zeroed() };
    params.field_mask = u64::from(UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED);
    params.features = u64::from(UCP_FEATURE_RMA);
    params.mt_workers_shared = 1;
    let mut context = ptr::null_mut();
    let mut created = UCS_OK;
    if modified == UCS_OK {
        // SAFETY: params and config live through the call; the version is that of the structs passed.
        created =
            unsafe { (ucx.ucp_init_version)(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &mut context) };
    }
    // SAFETY: the config came from ucp_config_read and is not used after.
    unsafe { (ucx.ucp_config_release)(config) };
    check(ucx, "ucp_config_modify", modified)?;
    check(ucx, "ucp_init", created)?;
    Ok(context)
}
