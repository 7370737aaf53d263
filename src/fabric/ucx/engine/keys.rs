//! Keys to a peer's memory.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use ucx_sys::bindings::ucp_rkey;

use super::context::present;
use super::{Endpoint, Engine, padded};
use crate::error::FabricError;

/// The right to reach one region of one peer through one endpoint.
pub(in crate::fabric::ucx) struct RemoteKey(pub(super) NonNull<ucp_rkey>);

// SAFETY: UCX's objects are not tied to threads; the engine that it goes back to serialises its use.
unsafe impl Send for RemoteKey {}

impl Engine {
    /// A packed key, made usable on this endpoint.
    pub fn unpack(&mut self, endpoint: &Endpoint, packed: &[u8]) -> Result<RemoteKey, FabricError> {
        let padded = padded(packed);
        let mut key = ptr::null_mut();
        // SAFETY: the endpoint lives; the bytes are readable far beyond their own length.
        let status =
            unsafe { (self.ucx.ucp_ep_rkey_unpack)(endpoint.0.as_ptr(), padded.as_ptr().cast(), &mut key) };
        self.check("ucp_ep_rkey_unpack", status)?;
        present("ucp_ep_rkey_unpack", key).map(RemoteKey)
    }

    /// Gives a key back, before its endpoint is closed.
    pub fn destroy_key(&mut self, key: RemoteKey) {
        // SAFETY: the key came from unpack and is given up here.
        unsafe { (self.ucx.ucp_rkey_destroy)(key.0.as_ptr()) };
    }
}
