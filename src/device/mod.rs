//! GPU memory.

pub mod kernels;
