//! GPUs: CUDA opened at run time, memory found and shared between processes, copies by kernels.
//!
//! ```text
//!   cuda      the driver of this process: devices, what lies where      gpu      one device and its context
//!   share     an allocation offered to a peer, and a peer's mapped      handle   what travels between the two
//!   queue     batches of copies on a stream                             kernels  what does them
//!   bounce    small copies that somebody waits for
//!   memory    page-locked and device memory of ours                     error    what went wrong, what to do
//!   cufile    files that a GPU reads and writes by itself
//!
//!   driver    libcuda's functions     vmm  stream  program     CUDA's objects, owned     ring  bells     bookkeeping
//! ```
//!
//! Nothing is needed at load time, and a machine without CUDA gets an error from [`Cuda::open`] and is served in host
//! memory as before. This room alone uses cudarc, for types and constants only.
//!
//! It is not the place for decisions: which memory goes which way, and who is told, is for the fabrics and the agent.
//!
//! # Rules
//!
//! * **Contexts.** A device's primary context, the one that the host's own code uses, is retained at first use and never
//!   released. It is current on a thread only within a call of ours, and the thread's own is there again afterwards.
//! * **The host's CUDA graphs.** Calls of ours neither fail nor spoil a capture that goes on in another thread: they are made
//!   in the relaxed capture mode, and never touch the host's streams.
//! * **Time.** Opening, `device`, `queue`, `pinned`, `share` and `map` take long (milliseconds to seconds) and are not for
//!   the thread that drives; `start` and `ended` are quick.
//! * **Process exit.** Nothing is done. What is dropped after the driver has gone is let go in silence, and so is all in a
//!   forked child, where every call is an error.
//! * **Threads.** [`Cuda`], [`Device`] and what they give may be used by any thread; a [`CopyQueue`] by one at a time.

mod bells;
mod bounce;
mod cuda;
mod cufile;
mod driver;
mod error;
mod gpu;
mod handle;
pub mod kernels;
mod memory;
mod program;
mod queue;
mod ring;
mod share;
mod stream;
mod vmm;

pub use self::bells::Bell;
pub use self::cuda::{Allocation, Cuda, DeviceConfig, Place};
pub use self::cufile::{CuFile, GpuFile};
pub use self::error::{DeviceError, NotShareable};
pub use self::gpu::Device;
pub use self::handle::{HandleError, HandleKind, SharedHandle};
pub use self::memory::{DeviceBuffer, Pinned};
pub use self::queue::{CopyQueue, Started};
pub use self::share::{Mapping, Shared};
pub use self::stream::Urgency;
