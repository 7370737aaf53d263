//! The loopback agent: copies host or GPU memory into files and back.
//!
//! A request pairs a list of memory with a list of open files, and both are read as one stream of bytes: the
//! memory descriptors in order, and the files in order, each from its offset 0 for its stated length. The two
//! streams have to be equally long. Hosts pair them one to one (descriptor i with file i), which is the plain
//! case of this.
//!
//! ```text
//!   host memory   pread, pwrite                                        (positional)
//!   GPU memory    cuFile, where it is there and pieces are large       (direct)
//!                 else page-locked buffers, pread, pwrite              (staging)
//! ```
//!
//! Reads and writes are positional, so nothing depends on or moves a file's own position. The files stay the
//! host's: nothing here closes or syncs one. Everything that can be checked is checked before the first byte
//! moves, GPU memory with the driver.
//!
//! An agent has no state but its name and what it keeps for the next request; requests may run on several threads at once.
#![allow(unsafe_code)] // the contract, handed on: the caller vouches for the memory

mod direct;
mod error;
mod pairing;
mod positional;
mod staging;

use std::fmt;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::config::EngineSettings;
use crate::desc::{Descriptor, MemoryKind};
use crate::device::{Cuda, DeviceError};

use super::DescriptorList;
use super::gpus::Gpus;

pub use self::error::LoopbackError;
use self::pairing::pieces;
use self::staging::Stages;

/// An open file and how many of its bytes take part, from offset 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpan {
    /// Descriptor number, owned by the host.
    pub fd: RawFd,
    /// Length in bytes.
    pub len: u64,
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Memory to files.
    Offload,
    /// Files to memory.
    Load,
}

/// See the [module](self).
pub struct LoopbackAgent {
    name: String,
    cuda_library: Option<PathBuf>,
    /// Opened by the first request that needs them.
    gpus: OnceLock<Gpus>,
    stages: Stages,
    /// Whether the log says that cuFile has refused something.
    has_told: AtomicBool,
}

impl LoopbackAgent {
    /// An agent of this name, which appears in its errors. `cuda_library` is the libcuda to open instead of the system's.
    pub fn new(name: impl Into<String>, cuda_library: Option<PathBuf>) -> Self {
        let (gpus, stages, has_told) = (OnceLock::new(), Stages::default(), AtomicBool::new(false));
        Self { name: name.into(), cuda_library, gpus, stages, has_told }
    }

    /// Copies and returns when the last byte is moved. On an error some bytes may have moved.
    ///
    /// # Safety
    /// Until this returns every descriptor of `memory` is mapped (and writable for a load), or of GPU memory allocated, and
    /// nobody holds a Rust reference to it.
    pub unsafe fn execute(
        &self,
        memory: &DescriptorList<'_>,
        files: &[FileSpan],
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        self.check(memory, files)?;
        if memory.kind == MemoryKind::Vram {
            let Some(cuda) = self.check_gpu_memory(&memory.descs)? else { return Ok(()) };
            // SAFETY: the caller's promise; the driver has just said that it is memory of these devices.
            return unsafe { self.execute_gpu(cuda, memory, files, direction) };
        }
        for piece in pieces(&memory.descs, files) {
            // SAFETY: the piece lies in a descriptor of `memory`, for which the caller vouches.
            unsafe {
                positional::copy(&self.name, piece.fd, piece.offset, piece.addr, piece.len, direction)
            }?;
        }
        Ok(())
    }

    /// The part of [`Self::execute`] for GPU memory.
    ///
    /// # Safety
    /// As there, and the memory is of these devices.
    unsafe fn execute_gpu(
        &self,
        cuda: &'static Cuda,
        memory: &DescriptorList<'_>,
        files: &[FileSpan],
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        if let Some(library) = direct::for_request(&self.name, &memory.descs) {
            // SAFETY: the caller's promise.
            match unsafe { direct::move_all(library, cuda, pieces(&memory.descs, files), files, direction) } {
                Ok(()) => return Ok(()),
                Err(error) => self.tell_of_detour(&error),
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.stages.move_through(&self.name, cuda, pieces(&memory.descs, files), direction) }
    }

    fn tell_of_detour(&self, error: &DeviceError) {
        if !self.has_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                agent = self.name,
                %error,
                "cuFile does not do this request, which goes through page-locked memory; others of the kind are not told of"
            );
        }
    }

    /// Whether all of it is memory of the devices that the host says; the driver that knows it, `None` only of no memory.
    fn check_gpu_memory(&self, memory: &[Descriptor]) -> Result<Option<&'static Cuda>, LoopbackError> {
        let gpus = self.gpus.get_or_init(|| {
            let cuda_library = self.cuda_library.clone();
            Gpus::open(&EngineSettings { cuda_library, ..EngineSettings::default() })
        });
        for desc in memory {
            gpus.pieces(*desc).map_err(|source| {
                let agent = self.name.clone();
                LoopbackError::Gpu { agent, desc: *desc, source: Box::new(source) }
            })?;
        }
        Ok(gpus.cuda())
    }

    fn check(&self, memory: &DescriptorList<'_>, files: &[FileSpan]) -> Result<(), LoopbackError> {
        let agent = || self.name.clone();
        if !matches!(memory.kind, MemoryKind::Dram | MemoryKind::Vram) {
            return Err(LoopbackError::Kind { agent: agent(), kind: memory.kind });
        }
        for (index, desc) in memory.descs.iter().enumerate() {
            if desc.len == 0 {
                return Err(LoopbackError::Empty { agent: agent(), what: "memory descriptor", index });
            }
            if desc.end().is_none() {
                return Err(LoopbackError::Wraps { agent: agent(), desc: *desc });
            }
        }
        for (index, file) in files.iter().enumerate() {
            if file.len == 0 {
                return Err(LoopbackError::Empty { agent: agent(), what: "file", index });
            }
            // SAFETY: F_GETFD takes any number and touches no memory.
            if file.fd < 0 || unsafe { libc::fcntl(file.fd, libc::F_GETFD) } == -1 {
                return Err(LoopbackError::NotOpen { agent: agent(), index, fd: file.fd });
            }
        }
        let memory_bytes = memory.descs.iter().map(|desc| u128::from(desc.len)).sum();
        let file_bytes = files.iter().map(|file| u128::from(file.len)).sum();
        if memory_bytes != file_bytes {
            return Err(LoopbackError::Lengths { agent: agent(), memory_bytes, file_bytes });
        }
        Ok(())
    }
}

impl fmt::Debug for LoopbackAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loopback agent {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd as _;

    /// A file without a name.
    fn scratch() -> File {
        let fd = rustix::fs::memfd_create("baton-loopback", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        File::from(fd)
    }

    fn dram(pieces: &mut [&mut [u8]]) -> DescriptorList<'static> {
        let descs = pieces
            .iter_mut()
            .map(|piece| Descriptor { addr: piece.as_mut_ptr() as u64, len: piece.len() as u64, device: 0 })
            .collect();
        DescriptorList { kind: MemoryKind::Dram, descs }
    }

    fn span(file: &File, len: u64) -> FileSpan {
        FileSpan { fd: file.as_raw_fd(), len }
    }

    fn execute(
        pieces: &mut [&mut [u8]],
        files: &[FileSpan],
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        let memory = dram(pieces);
        // SAFETY: the pieces are borrowed for the call, and only their addresses are used during it.
        unsafe { LoopbackAgent::new("disk0", None).execute(&memory, files, direction) }
    }

    #[test]
    fn bytes_come_back_whatever_the_cuts() {
        let mut data: Vec<u8> = (0..10_000u32).map(|at| (at * 31 % 251) as u8).collect();
        let wanted = data.clone();
        let (one, two) = (scratch(), scratch());
        let (left, right) = data.split_at_mut(3_333);
        execute(&mut [left, right], &[span(&one, 9_000), span(&two, 1_000)], Direction::Offload).unwrap();
        assert_eq!(one.metadata().unwrap().len(), 9_000);
        assert_eq!(two.metadata().unwrap().len(), 1_000);

        data.fill(0);
        let (left, right) = data.split_at_mut(1);
        execute(&mut [left, right], &[span(&one, 9_000), span(&two, 1_000)], Direction::Load).unwrap();
        assert_eq!(data, wanted);
    }

    #[test]
    fn short_file_is_named_with_what_is_missing() {
        let file = scratch();
        execute(&mut [&mut [7; 10]], &[span(&file, 10)], Direction::Offload).unwrap();
        let error = execute(&mut [&mut [0; 16]], &[span(&file, 16)], Direction::Load).unwrap_err();
        let expected =
            format!("loopback agent disk0: fd {} ends at offset 10, 6 bytes short", file.as_raw_fd());
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn errno_comes_with_fd_offset_and_length() {
        let file = File::open("/dev/null").unwrap(); // read-only: EBADF on write
        let error = execute(&mut [&mut [0; 4]], &[span(&file, 4)], Direction::Offload).unwrap_err();
        let text = error.to_string();
        let start = format!("loopback agent disk0: pwrite of 4 bytes at offset 0 of fd {}", file.as_raw_fd());
        assert!(text.starts_with(&start) && text.contains("Bad file descriptor"), "{text}");
    }

    #[test]
    fn unmapped_memory_is_an_error_of_the_kernel() {
        let file = scratch();
        let memory = DescriptorList {
            kind: MemoryKind::Dram,
            descs: vec![Descriptor { addr: 8, len: 4096, device: 0 }].into(),
        };
        // SAFETY: the first page is never mapped; no Rust object is touched, the kernel answers EFAULT.
        let outcome = unsafe {
            LoopbackAgent::new("disk0", None).execute(&memory, &[span(&file, 4096)], Direction::Offload)
        };
        assert!(outcome.unwrap_err().to_string().contains("Bad address"));
    }

    #[test]
    fn bad_requests_move_nothing() {
        let file = scratch();
        let cases: [(DescriptorList<'_>, Vec<FileSpan>, &str); 6] = [
            (list(MemoryKind::Block, 64, 8), vec![span(&file, 8)], "BLK memory is not supported"),
            (list(MemoryKind::Dram, u64::MAX, 8), vec![span(&file, 8)], "wraps around"),
            (list(MemoryKind::Dram, 64, 0), vec![], "memory descriptor 0 has zero length"),
            (list(MemoryKind::Dram, 64, 8), vec![span(&file, 0)], "file 0 has zero length"),
            (
                list(MemoryKind::Dram, 64, 8),
                vec![span(&file, 9)],
                "8 bytes of memory against 9 bytes of files",
            ),
            (list(MemoryKind::Dram, 64, 8), vec![FileSpan { fd: -1, len: 8 }], "which is not open"),
        ];
        for (memory, files, part) in cases {
            // SAFETY: each case is refused before an address is used.
            let outcome =
                unsafe { LoopbackAgent::new("disk0", None).execute(&memory, &files, Direction::Offload) };
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    fn list(kind: MemoryKind, addr: u64, len: u64) -> DescriptorList<'static> {
        DescriptorList { kind, descs: vec![Descriptor { addr, len, device: 0 }].into() }
    }
}
