//! What is fuzzed: one function for each decoder of bytes that somebody else has made.
//!
//! A target takes any bytes, panics where a promise is broken, and says whether the bytes were taken for what the
//! target reads. Two drivers share them: libFuzzer (`fuzz/fuzz_targets`), which looks for new paths, and the
//! ordinary test `tests/hostile`, which replays the corpora and mutates them from a seed. Nothing here waits, sleeps
//! or keeps anything from one call to the next.

mod bytes;

pub mod blob;
pub mod config_file;
pub mod connection_info;
pub mod control_frame;
pub mod control_stream;
pub mod data_header;
pub mod doctor;
pub mod endpoint;
pub mod environment;
pub mod gpu_handle;
pub mod rendezvous;
pub mod sealed_handshake;
pub mod sealed_records;
pub mod section;
pub mod stock;
pub mod stream_frame;
pub mod tagged;
pub mod tcp_store;
pub mod ucx_wire;
pub mod zeromq;

/// One of them.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: that of its program in `fuzz_targets` and of its folder in `corpus`.
    pub name: &'static str,
    /// Hands it bytes; whether they were understood.
    pub run: fn(&[u8]) -> bool,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "blob", run: blob::run },
    Target { name: "section", run: section::run },
    Target { name: "stock", run: stock::run },
    Target { name: "zeromq", run: zeromq::run },
    Target { name: "control_frame", run: control_frame::run },
    Target { name: "control_stream", run: control_stream::run },
    Target { name: "data_header", run: data_header::run },
    Target { name: "endpoint", run: endpoint::run },
    Target { name: "tagged", run: tagged::run },
    Target { name: "rendezvous", run: rendezvous::run },
    Target { name: "tcp_store", run: tcp_store::run },
    Target { name: "stream_frame", run: stream_frame::run },
    Target { name: "ucx_wire", run: ucx_wire::run },
    Target { name: "gpu_handle", run: gpu_handle::run },
    Target { name: "config_file", run: config_file::run },
    Target { name: "environment", run: environment::run },
    Target { name: "connection_info", run: connection_info::run },
    Target { name: "doctor", run: doctor::run },
    Target { name: "sealed_handshake", run: sealed_handshake::run },
    Target { name: "sealed_records", run: sealed_records::run },
];
