//! Baton carries the KV cache of disaggregated LLM serving from the worker that computed it (context
//! phase) to the worker that decodes with it (generation phase).
//!
//! ```text
//!   TensorRT-LLM (dlopen)                     a person
//!          |                                     |
//!     cpp/ + [`ffi`]                      src/bin/baton
//!          |                                     |
//!          +---------------> [`agent`] <---------+     regions, peers, transfers, notifications
//!                            /       \
//!                     [`proto`]     [`fabric`]         what is said       what carries the bytes
//!                            \       /
//!                     [`desc`] [`error`]               plain data
//! ```
//!
//! Arrows go down only; `tests/tidy.rs` holds them. [`config`] is the only reader of the environment; [`host`] decides
//! which age of TensorRT-LLM is served.
#![deny(unsafe_code)]

#[cfg(target_endian = "big")]
compile_error!("Baton's wire format and memory layouts are little-endian");

pub mod agent;
pub mod config;
pub mod connection;
pub mod desc;
pub mod device;
pub mod error;
pub mod fabric;
pub mod ffi;
pub mod host;
pub mod nvtx;
pub mod panics;
pub mod planted;
pub mod proto;
pub mod sync;
pub mod trace;
pub mod trust;
