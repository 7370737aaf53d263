//! The memory under device memory: a memfd of this process or of another one.
//!
//! Its name says what it is, so whoever gets it as a file descriptor knows the device; a handle in 64 bytes says where in
//! `/proc` it is to be had, as long as its exporter has it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process;

use rustix::fs::{MemfdFlags, Mode, OFlags};

use crate::code::{Code, Outcome};
use crate::context::Context;

/// Memory of a device, mapped or not.
pub struct Physical {
    fd: OwnedFd,
    /// Bytes, as whoever allocated it asked.
    pub len: u64,
    pub about: About,
    /// Whose memory it was counted as.
    charged: Option<&'static Context>,
}

/// What its users may ask about it.
#[derive(Clone, Copy)]
pub struct About {
    /// The device's number on the machine.
    pub physical: u32,
    /// The kinds of handles under which it may be shared, as `CUmemAllocationHandleType`; none for `cuMemAlloc`.
    pub handle_types: u32,
    /// What the last byte group of `CUmemAllocationProp` said.
    pub flags: [u8; 8],
    /// Whether it came from `cuMemCreate`.
    pub is_virtual: bool,
}

/// How another process finds it.
pub type Handle = [u8; 64];

const MAGIC: u64 = u64::from_le_bytes(*b"fakecuda");
const NAME: &str = "fake-cuda";

impl Physical {
    pub fn new(context: &'static Context, len: u64, about: About) -> Outcome<Self> {
        let name = format!("{NAME} {} {} {}", about.physical, about.handle_types, u8::from(about.is_virtual));
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).map_err(|_| Code::OPERATING_SYSTEM)?;
        rustix::fs::ftruncate(&fd, len).map_err(|_| Code::OUT_OF_MEMORY)?;
        context.charge(len)?;
        Ok(Self { fd, len, about, charged: Some(context) })
    }

    /// What a file descriptor leads to, if it leads to device memory.
    pub fn from_fd(fd: OwnedFd) -> Outcome<Self> {
        let name =
            fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(|_| Code::OPERATING_SYSTEM)?;
        let about = about(&name).ok_or(Code::INVALID_VALUE)?;
        let len = rustix::fs::fstat(&fd).map_err(|_| Code::OPERATING_SYSTEM)?.st_size.cast_unsigned();
        Ok(Self { fd, len, about, charged: None })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Which one it is, in every process.
    pub fn identity(&self) -> Outcome<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.fd).map_err(|_| Code::OPERATING_SYSTEM)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Holds as long as this process has it.
    pub fn handle(&self) -> Outcome<Handle> {
        let (device, inode) = self.identity()?;
        let owner = u64::from(process::id()) << 32 | u64::from(self.fd.as_raw_fd().cast_unsigned());
        let mut handle = [0; 64];
        for (part, value) in handle.chunks_exact_mut(8).zip([MAGIC, owner, device, inode, self.len]) {
            part.copy_from_slice(&value.to_le_bytes());
        }
        Ok(handle)
    }

    /// Finds what a handle names, in its exporter.
    pub fn find(handle: &Handle) -> Outcome<Self> {
        let found = Found::parse(handle)?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}", found.process, found.fd));
        let fd = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|_| Code::INVALID_VALUE)?;
        let memory = Self::from_fd(fd)?;
        // The exporter may have freed it, and its number may be that of another memory by now.
        let is_it = memory.identity()? == found.identity && memory.len == found.len;
        if is_it { Ok(memory) } else { Err(Code::INVALID_VALUE) }
    }
}

impl Drop for Physical {
    fn drop(&mut self) {
        if let Some(context) = self.charged {
            context.discharge(self.len);
        }
    }
}

/// Whether this process has exported it itself.
pub fn is_own(handle: &Handle) -> Outcome<bool> {
    Ok(Found::parse(handle)?.process == process::id())
}

struct Found {
    process: u32,
    fd: u32,
    identity: (u64, u64),
    len: u64,
}

impl Found {
    fn parse(handle: &Handle) -> Outcome<Self> {
        let part = |index: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&handle[index * 8..][..8]);
            u64::from_le_bytes(bytes)
        };
        if part(0) != MAGIC || handle[40..].iter().any(|byte| *byte != 0) {
            return Err(Code::INVALID_VALUE);
        }
        let (process, fd) = ((part(1) >> 32) as u32, part(1) as u32);
        Ok(Self { process, fd, identity: (part(2), part(3)), len: part(4) })
    }
}

fn about(name: &Path) -> Option<About> {
    let mut parts = name.to_str()?.strip_prefix("/memfd:")?.strip_prefix(NAME)?.split(' ').skip(1);
    let mut next = || parts.next()?.parse::<u32>().ok();
    Some(About { physical: next()?, handle_types: next()?, is_virtual: next()? != 0, flags: [0; 8] })
}
