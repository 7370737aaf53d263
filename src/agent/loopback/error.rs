//! What a loopback request fails with: the agent, the thing, and what the system said.

use std::io;
use std::os::fd::RawFd;

use thiserror::Error;

use crate::agent::gpus::GpuFault;
use crate::desc::{Descriptor, MemoryKind};
use crate::device::DeviceError;

/// Why a loopback request failed.
#[derive(Debug, Error)]
pub enum LoopbackError {
    /// Memory of a kind that files are not copied from and to.
    #[error("loopback agent {agent}: {kind} memory is not supported: DRAM and VRAM are")]
    Kind {
        /// Name of the agent.
        agent: String,
        /// What it was.
        kind: MemoryKind,
    },
    /// A descriptor whose end wraps.
    #[error("loopback agent {agent}: memory {desc} wraps around the address space")]
    Wraps {
        /// Name of the agent.
        agent: String,
        /// The descriptor.
        desc: Descriptor,
    },
    /// Memory that is no GPU's, or not the one's that the host says.
    #[error("loopback agent {agent}: VRAM {desc}: {source}")]
    Gpu {
        /// Name of the agent.
        agent: String,
        /// The descriptor.
        desc: Descriptor,
        /// Why.
        source: Box<GpuFault>,
    },
    /// A GPU did not copy.
    #[error("loopback agent {agent}: {source}")]
    Device {
        /// Name of the agent.
        agent: String,
        /// Why.
        source: Box<DeviceError>,
    },
    /// A descriptor or file that holds nothing.
    #[error("loopback agent {agent}: {what} {index} has zero length")]
    Empty {
        /// Name of the agent.
        agent: String,
        /// `memory descriptor` or `file`.
        what: &'static str,
        /// Its place in the list.
        index: usize,
    },
    /// A file that is not open.
    #[error("loopback agent {agent}: file {index} has the descriptor {fd}, which is not open")]
    NotOpen {
        /// Name of the agent.
        agent: String,
        /// Its place in the list.
        index: usize,
        /// Its number.
        fd: RawFd,
    },
    /// The two sides are not equally long.
    #[error("loopback agent {agent}: {memory_bytes} bytes of memory against {file_bytes} bytes of files")]
    Lengths {
        /// Name of the agent.
        agent: String,
        /// Sum over the memory.
        memory_bytes: u128,
        /// Sum over the files.
        file_bytes: u128,
    },
    /// A read or write failed.
    #[error("loopback agent {agent}: {call} of {len_bytes} bytes at offset {offset} of fd {fd}: {error}")]
    Io {
        /// Name of the agent.
        agent: String,
        /// `pread` or `pwrite`.
        call: &'static str,
        /// The file.
        fd: RawFd,
        /// Where.
        offset: u64,
        /// How much was left to move there.
        len_bytes: u64,
        /// The system's answer.
        error: io::Error,
    },
    /// A file is shorter than its stated length.
    #[error("loopback agent {agent}: fd {fd} ends at offset {offset}, {len_bytes} bytes short")]
    EndOfFile {
        /// Name of the agent.
        agent: String,
        /// The file.
        fd: RawFd,
        /// Where it ends.
        offset: u64,
        /// What is missing.
        len_bytes: u64,
    },
}
