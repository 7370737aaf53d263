//! The stand-in, held against what the documentation of the CUDA driver API says of the calls that are used.

mod calls;
mod scene;

mod faults;
mod memory;
mod sharing;
mod streams;
