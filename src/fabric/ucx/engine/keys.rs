//! Memory as UCX knows it: mappings of ours, keys to a peer's.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use ucx_sys::bindings::*;

use super::{Endpoint, Engine, padded};
use crate::desc::Span;
use crate::error::FabricError;

/// The right to reach one region of one peer through one endpoint.
pub(in crate::fabric::ucx) struct RemoteKey(pub(super) NonNull<ucp_rkey>);

/// A region that UCX knows.
pub(in crate::fabric::ucx) struct Mapping(NonNull<ucp_mem>);

// SAFETY: UCX's objects are not tied to threads; the engine that it goes back to serialises its use.
unsafe impl Send for RemoteKey {}
// SAFETY: as above.
unsafe impl Send for Mapping {}

impl Engine {
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
}
