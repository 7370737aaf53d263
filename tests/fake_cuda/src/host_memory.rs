//! Memory of the host that devices may use: pinned, registered and managed. It has one address for all.

use rustix::mm::{MapFlags, ProtFlags};

use crate::boundary::Out;
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::driver::Driver;
use crate::space::{HostKind, HostRange};

const KNOWN_ALLOC_FLAGS: u32 = 0x7;
const KNOWN_REGISTER_FLAGS: u32 = 0xf;

pub fn allocate(context: &'static Context, memory: Out<u64>, len: usize, flags: u32) -> Outcome {
    if flags & !KNOWN_ALLOC_FLAGS != 0 {
        return Err(Code::INVALID_VALUE);
    }
    memory.set(new(context, len, HostKind::Allocated, flags)?)
}

pub fn allocate_plain(context: &'static Context, memory: Out<u64>, len: usize) -> Outcome {
    allocate(context, memory, len, 0)
}

/// Where it is used the most it is on the host here.
pub fn allocate_managed(context: &'static Context, memory: Out<u64>, len: usize, flags: u32) -> Outcome {
    if ![1, 2].contains(&flags) {
        return Err(Code::INVALID_VALUE);
    }
    memory.set(new(context, len, HostKind::Managed, flags)?)
}

pub fn free(context: &'static Context, memory: usize) -> Outcome {
    context.quiesce();
    remove(context.driver(), memory as u64, HostKind::Allocated).and_then(unmap)
}

/// Whether it was managed memory.
pub fn free_managed(driver: &'static Driver, memory: u64) -> Outcome<bool> {
    match remove(driver, memory, HostKind::Managed) {
        Ok(range) => unmap(range).map(|()| true),
        Err(_) => Ok(false),
    }
}

pub fn register(context: &'static Context, memory: usize, len: usize, flags: u32) -> Outcome {
    if memory == 0 || len == 0 || flags & !KNOWN_REGISTER_FLAGS != 0 {
        return Err(Code::INVALID_VALUE);
    }
    insert(context, memory as u64, len as u64, HostKind::Registered, flags)
}

pub fn unregister(context: &'static Context, memory: usize) -> Outcome {
    context.quiesce();
    let removed = remove(context.driver(), memory as u64, HostKind::Registered);
    removed.map(drop).map_err(|_| Code::HOST_MEMORY_NOT_REGISTERED)
}

pub fn device_pointer(context: &'static Context, device: Out<u64>, memory: usize, flags: u32) -> Outcome {
    if flags != 0 {
        return Err(Code::INVALID_VALUE);
    }
    context.driver().space.read().host_range(memory as u64).ok_or(Code::INVALID_VALUE)?;
    device.set(memory as u64)
}

pub fn flags(context: &'static Context, flags: Out<u32>, memory: usize) -> Outcome {
    let space = context.driver().space.read();
    flags.set(space.host_range(memory as u64).ok_or(Code::INVALID_VALUE)?.1.flags)
}

fn new(context: &'static Context, len: usize, kind: HostKind, flags: u32) -> Outcome<u64> {
    if len == 0 {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: a new mapping where the kernel finds room.
    let mapped = unsafe {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE)
    };
    let at = mapped.map_err(|_| Code::OUT_OF_MEMORY)?.addr() as u64;
    insert(context, at, len as u64, kind, flags)?;
    Ok(at)
}

fn insert(context: &'static Context, at: u64, len: u64, kind: HostKind, flags: u32) -> Outcome {
    let mut space = context.driver().space.write();
    let before = space.host.range(..at + len).next_back();
    if before.is_some_and(|(base, range)| base + range.len > at) {
        return Err(Code::HOST_MEMORY_ALREADY_REGISTERED);
    }
    let id = space.new_id();
    space.host.insert(at, HostRange { len, kind, flags, context: context.ordinal, id });
    Ok(())
}

fn remove(driver: &'static Driver, at: u64, kind: HostKind) -> Outcome<(u64, HostRange)> {
    let mut space = driver.space.write();
    if space.host.get(&at).is_none_or(|range| range.kind != kind) {
        return Err(Code::INVALID_VALUE);
    }
    space.host.remove(&at).map(|range| (at, range)).ok_or(Code::INVALID_VALUE)
}

fn unmap((at, range): (u64, HostRange)) -> Outcome {
    let len = usize::try_from(range.len).map_err(|_| Code::INVALID_VALUE)?;
    // SAFETY: mapped here with this length and known to nobody any more; who freed it has promised not to use it.
    unsafe { rustix::mm::munmap(at as *mut _, len) }.map_err(|_| Code::OPERATING_SYSTEM)
}
