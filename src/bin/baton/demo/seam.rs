//! The seams that a demo can go through: which runtime of TensorRT-LLM stands behind each, and what it can do.

use baton::config::backend::Backend;
use baton::config::transceiver::Runtime;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;

use crate::shape::Layout;

/// A way in which TensorRT-LLM reaches the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seam {
    /// The transfer agent, from C++ (backend NIXL or MOONCAKE)
    S1,
    /// The same agent from the Python runtime (backend NIXL)
    S2,
    /// The connection manager, from C++ (backend UCX)
    S3,
}

impl Seam {
    /// The seam of a backend and the runtime in front of it, where nobody asks for another; `None` for a backend that
    /// opens no library.
    pub fn of(backend: Backend, runtime: Option<Runtime>) -> Option<Seam> {
        match (backend, runtime) {
            (Backend::Nixl, Some(Runtime::Python)) => Some(Seam::S2),
            (Backend::Nixl | Backend::Mooncake, _) => Some(Seam::S1),
            (Backend::Ucx, _) => Some(Seam::S3),
            (Backend::Default | Backend::Mpi, _) => None,
        }
    }

    /// Whether a backend goes through it.
    pub fn takes(self, backend: Backend) -> bool {
        match self {
            Seam::S1 => matches!(backend, Backend::Nixl | Backend::Mooncake),
            Seam::S2 => backend == Backend::Nixl,
            Seam::S3 => backend == Backend::Ucx,
        }
    }

    /// The backend where the configuration leaves it open.
    pub fn own_backend(self) -> Backend {
        match self {
            Seam::S1 | Seam::S2 => Backend::Nixl,
            Seam::S3 => Backend::Ucx,
        }
    }

    /// Whether its runtime sends requests in this way.
    pub fn has(self, layout: Layout) -> bool {
        match self {
            Seam::S1 => true,
            Seam::S2 => layout == Layout::Paged,
            Seam::S3 => layout == Layout::Staged,
        }
    }

    /// Whether a request may be larger than the staging slot; it then goes through it in rounds.
    pub fn sends_in_rounds(self) -> bool {
        self == Seam::S3
    }

    /// Whether the ranks of a phase have to find each other before they serve.
    pub fn needs_rendezvous(self) -> bool {
        self == Seam::S3
    }

    /// The library that its backend opens.
    pub fn library(self, backend: Backend) -> &'static str {
        match (self, backend) {
            (Seam::S3, _) => "libtensorrt_llm_ucx_wrapper.so",
            (_, Backend::Mooncake) => "libtensorrt_llm_mooncake_wrapper.so",
            _ => "libtensorrt_llm_nixl_wrapper.so",
        }
    }
}

impl fmt::Display for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Seam::S1 => "s1",
            Seam::S2 => "s2",
            Seam::S3 => "s3",
        })
    }
}
