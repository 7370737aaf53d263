//! The protocol, sans-IO: no FFI, thread, clock, environment, socket or log. Frames and times go in, frames
//! and decisions come out; the agent above owns everything else.

pub mod codec;
pub mod plan;
pub mod regions;
