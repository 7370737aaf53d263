//! A stand-in for `libcuda.so.1`, the CUDA driver API, for tests without a GPU. What it imitates and what not:
//! `tests/fake_cuda/README.md`.
//!
//! ```text
//!   api         the functions that it exports, one line each
//!   calls       what every call begins with: initialized? current context? told to fail?
//!   device context                            what there is
//!   stream event launch module copy           what a GPU does, each stream on a thread of its own
//!   space backing                             the address space of device memory, and the memory under it
//!   memory host_memory virtual_memory ipc     who allocates, maps and shares it
//!   pointer                                   what is known about an address
//! ```
//!
//! Tests ask [`driver()`] for the driver that they are for, [`library`], [`driver_folder`] or [`old_library`] for the path of
//! what they want whatever that is, and [`in_a_process`] for a process with other settings; nothing else here is for them.

mod again;
mod api;
mod backing;
mod boundary;
mod calls;
mod code;
mod context;
mod copy;
mod device;
mod driver;
mod event;
mod find;
mod host_memory;
mod ipc;
mod launch;
mod memory;
mod module;
mod pointer;
mod settings;
mod space;
mod stream;
mod virtual_memory;

pub use again::{all_in_a_process, in_a_process};
pub use find::{cufile_folder, driver, driver_folder, library, old_library, serves};
