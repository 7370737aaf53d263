//! TensorRT-LLM as Baton finds it: which release, and which age of the binary seam.
//!
//! ```text
//!   this process (ffi::host_facts)      a package folder (baton doctor)
//!                     \                  /
//!          [`version_file`]  [`markers`]               what is looked for
//!                         [`age`] <- [`version`]       what it comes to
//! ```
//!
//! The decision is pure, and the same whoever gathered the facts: what `baton doctor` says of the files is what the
//! library does with them. No library is opened here. Any thread may call.

pub mod age;
pub mod markers;
pub mod version;
pub mod version_file;
