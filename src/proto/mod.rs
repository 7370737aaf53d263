//! The protocol, sans-IO: no FFI, thread, clock, environment, socket or log. Frames and times go in, frames
//! and decisions come out; the agent above owns everything else.
//!
//! * [`wire`] is the bytes of frames, [`blob`] those of metadata, [`codec`] what both are made of; [`stock`] and
//!   [`zeromq`] are the few words for those who speak neither;
//! * [`session`], [`liveness`], [`transfer`] and [`events`] are the machines, one idea each; [`transition`] is how their
//!   tables are written;
//! * [`grant`] is who may write into which staging slot;
//! * [`regions`] says what may be touched, [`plan`] turns two descriptor lists into chunks;
//! * [`endpoint`] owns them all and is driven from outside.

pub mod blob;
pub mod codec;
pub mod endpoint;
pub mod events;
pub mod grant;
pub mod liveness;
mod nixl_document;
pub mod plan;
pub mod regions;
pub mod section;
pub mod session;
pub mod stock;
pub mod tagged;
pub mod transfer;
pub mod transition;
pub mod wire;
pub mod zeromq;
