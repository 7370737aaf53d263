//! The parts: each gives the cases that there are on a machine.

pub mod bench;
pub mod demo;
pub mod driver;
pub mod kernels;
pub mod kills;
pub mod paths;
pub mod sanitizer;
