//! GPU memory through the public API of `baton::device`: on the driver that `BATON_CUDA_LIBRARY` names, a real one on a
//! machine with a GPU, else on the stand-in of `tests/fake_cuda`.
//!
//! A process opens one driver once, so whatever needs another one, or other settings of it, runs in a process of its own:
//! this program again, with the name of a test that is otherwise ignored.

mod copies;
mod failures;
mod files;
mod places;
mod raw;
mod refusals;
mod rig;
mod sharing;
mod transforms;
