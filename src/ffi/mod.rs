//! The seam to C++: what `cpp/` calls, and nothing else.
//!
//! ```text
//!   TensorRT-LLM -> cpp/*.cc -> [`bridge`] -> guard -> convert -> agent
//!                       |
//!                       +-----> [`host_age`] <- host_facts      which layouts this process wants
//! ```
//!
//! Every function that C++ can call runs inside one `guard()`: a panic becomes an error and an error becomes a
//! C++ exception. Nothing here decides anything about transfers. Any thread may call.

pub mod host_age;

mod bridge;
mod connections;
mod convert;
mod guard;
mod host_facts;
mod host_version;
