//! The loopback agent: copies host memory into files and back.
//!
//! A request pairs a list of memory with a list of open files, and both are read as one stream of bytes: the
//! memory descriptors in order, and the files in order, each from its offset 0 for its stated length. The two
//! streams have to be equally long. Hosts pair them one to one (descriptor i with file i), which is the plain
//! case of this.
//!
//! Reads and writes are positional, so nothing depends on or moves a file's own position. The files stay the
//! host's: nothing here closes or syncs one. Everything that can be checked is checked before the first byte
//! moves. GPU memory is refused by name.
//!
//! An agent has no state beyond its name; requests may run on several threads at once.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use thiserror::Error;

use crate::desc::{Descriptor, MemoryKind};

use super::DescriptorList;

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

/// Why a loopback request failed.
#[derive(Debug, Error)]
pub enum LoopbackError {
    /// Memory that the CPU cannot touch.
    #[error("loopback agent {agent}: {kind} memory is not supported yet: only DRAM is")]
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

/// See the [module](self).
#[derive(Debug)]
pub struct LoopbackAgent {
    name: String,
}

impl LoopbackAgent {
    /// An agent of this name; the name appears in its errors.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// Copies and returns when the last byte is moved. On an error some bytes may have moved.
    ///
    /// # Safety
    /// Every descriptor of `memory` is mapped until this returns (and writable for a load), and nobody holds a
    /// Rust reference to it.
    pub unsafe fn execute(
        &self,
        memory: &DescriptorList<'_>,
        files: &[FileSpan],
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        self.check(memory, files)?;
        let mut rest = memory.descs.iter().copied();
        let mut piece = Descriptor { addr: 0, len: 0, device: 0 };
        for file in files {
            let mut offset = 0;
            while offset < file.len {
                if piece.len == 0 {
                    let Some(next) = rest.next() else { return Ok(()) }; // the sums are equal: never
                    piece = next;
                }
                let len = piece.len.min(file.len - offset);
                // SAFETY: [addr, addr + len) lies in a descriptor of `memory`, for which the caller vouches.
                unsafe { self.copy(file.fd, offset, piece.addr, len, direction)? };
                offset += len;
                piece.addr += len;
                piece.len -= len;
            }
        }
        Ok(())
    }

    fn check(&self, memory: &DescriptorList<'_>, files: &[FileSpan]) -> Result<(), LoopbackError> {
        let agent = || self.name.clone();
        if memory.kind != MemoryKind::Dram {
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

    /// Moves `len` bytes between `addr` and `offset` of the file, however many calls that takes.
    ///
    /// # Safety
    /// As [`Self::execute`], for `len` bytes at `addr`.
    unsafe fn copy(
        &self,
        fd: RawFd,
        offset: u64,
        addr: u64,
        len: u64,
        direction: Direction,
    ) -> Result<(), LoopbackError> {
        let call = match direction {
            Direction::Offload => "pwrite",
            Direction::Load => "pread",
        };
        let failed = |done: u64, error: io::Error| LoopbackError::Io {
            agent: self.name.clone(),
            call,
            fd,
            offset: offset + done,
            len_bytes: len - done,
            error,
        };
        let mut done = 0;
        while done < len {
            let step = (len - done).min(STEP_MAX_BYTES) as usize;
            let at = libc::off64_t::try_from(offset + done)
                .map_err(|_| failed(done, io::Error::from_raw_os_error(libc::EOVERFLOW)))?;
            let start = (addr + done) as *mut libc::c_void;
            // The raw calls, because this memory is the host's and no Rust slice over it may exist.
            let moved = match direction {
                // SAFETY: `step` bytes at `start` are mapped (the caller's promise); the kernel checks the rest.
                Direction::Offload => unsafe { libc::pwrite64(fd, start, step, at) },
                // SAFETY: as above, and writable.
                Direction::Load => unsafe { libc::pread64(fd, start, step, at) },
            };
            match moved {
                0 if direction == Direction::Load => {
                    let (agent, len_bytes) = (self.name.clone(), len - done);
                    return Err(LoopbackError::EndOfFile { agent, fd, offset: offset + done, len_bytes });
                }
                0 => return Err(failed(done, io::ErrorKind::WriteZero.into())),
                1.. => done += moved as u64,
                _ => match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::Interrupted => {}
                    error => return Err(failed(done, error)),
                },
            }
        }
        Ok(())
    }
}

/// Bytes per call: below the kernel's own cut of 2 GiB less a page, and whole pages.
const STEP_MAX_BYTES: u64 = 1 << 30;

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
        unsafe { LoopbackAgent::new("disk0").execute(&memory, files, direction) }
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
        let outcome =
            unsafe { LoopbackAgent::new("disk0").execute(&memory, &[span(&file, 4096)], Direction::Offload) };
        assert!(outcome.unwrap_err().to_string().contains("Bad address"));
    }

    #[test]
    fn bad_requests_move_nothing() {
        let file = scratch();
        let cases: [(DescriptorList<'_>, Vec<FileSpan>, &str); 6] = [
            (list(MemoryKind::Vram, 64, 8), vec![span(&file, 8)], "VRAM memory is not supported yet"),
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
            let outcome = unsafe { LoopbackAgent::new("disk0").execute(&memory, &files, Direction::Offload) };
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    fn list(kind: MemoryKind, addr: u64, len: u64) -> DescriptorList<'static> {
        DescriptorList { kind, descs: vec![Descriptor { addr, len, device: 0 }].into() }
    }
}
