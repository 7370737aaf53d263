//! Requests: copies and flushes, started here and ended through [`events`].
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;

use ucx_sys::bindings::*;

use super::{Endpoint, Engine, RemoteKey};
use crate::desc::TransferOp;
use crate::fabric::ucx::memory::Vouched;
use crate::fabric::ucx::slab::Ticket;
use crate::fabric::ucx::{events, kinds};

/// What became of a call that starts something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fabric::ucx) enum Started {
    /// It is over already.
    Done,
    /// An [`Event::Done`](events::Event::Done) with the ticket will follow.
    Pending,
    /// It could not start.
    Failed(ucs_status_t),
}

impl Engine {
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
        let mut params = request_params(Some(ticket));
        params.memory_type = kinds::memory_type(local.kind());
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
}

/// Parameters of a request: of host memory, unless its caller says otherwise, and the callback with its ticket where one is wanted.
pub(super) fn request_params(ticket: Option<Ticket>) -> ucp_request_param_t {
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
pub(super) fn started(request: ucs_status_ptr_t) -> Started {
    match request.addr() as isize {
        0 => Started::Done,
        status if (UCS_ERR_LAST as isize..0).contains(&status) => Started::Failed(status as ucs_status_t),
        _ => Started::Pending,
    }
}
