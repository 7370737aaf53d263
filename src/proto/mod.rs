//! The protocol, sans-IO: no FFI, thread, clock, environment, socket or log. Frames and times go in, frames
//! and decisions come out; the agent above owns everything else.

pub mod blob;
pub mod codec;
pub mod nixl_document;
pub mod plan;
pub mod regions;
pub mod section;
