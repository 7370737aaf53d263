//! The ranks of an instance meet: over TCP, in torch's store (a stand-in), over MPI where there is one.
//!
//! Ranks are threads; over MPI they are processes under `mpirun`. Loopback only; every wait has a limit.

mod bench;
mod meeting;
mod mpi;
mod store;
mod strangers;
mod trust;
mod wire;
