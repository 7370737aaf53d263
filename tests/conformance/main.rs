//! The contract of [`baton::fabric::Fabric`], as tests that run against every fabric there is.
//!
//! ```text
//!   harness.rs    what a fabric's author writes: how to open one, how two of them reach each other
//!   rig.rs        opened fabrics with memory, a recording sink (log.rs) and a bounded driver
//!   memory.rs     host memory and GPU memory, with guards    gpu.rs  where the latter comes from
//!   processes.rs  a fabric in each of two processes
//!   copy.rs       copies between them, whichever way the fabric moves bytes
//!   broken.rs     fabrics with one defect each, which the suite has to catch
//!   cases/        the contract, one function a promise, generic over the harness
//!   NAME.rs       the fabric NAME: its harness, and `conformance!(..)` for each way to set it up
//! ```
//!
//! To add a fabric: write `NAME.rs` with a [`harness::Harness`] and one `conformance!(module, TheHarness);` line for
//! each set-up, and list the module here. Nothing in `cases/` may know which fabric it runs on.

#[macro_use]
mod harness;
mod cases;
mod copy;
mod gpu;
mod log;
mod memory;
mod processes;
mod rig;

mod broken;
mod cuda;
mod local;
mod sim;
mod stream;
mod ucx;
