//! The seam to C++: what `cpp/` calls, and nothing else.
//!
//! ```text
//!   TensorRT-LLM -> cpp/*.cc -> [`bridge`] -> guard -> convert -> agent
//!                       |
//!                       +-----> host_facts -> host::age        which layouts it wants
//! ```
//!
//! Every function that C++ can call runs inside one `guard()`: a panic becomes an error and an error becomes a
//! C++ exception. Nothing here decides anything about transfers. Any thread may call.

mod bridge;
mod calls;
mod connections;
mod convert;
mod guard;
mod host_facts;
