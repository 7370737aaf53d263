//! Memory and addresses apart: created, mapped in chunks, let in, and shared by handles.

use std::ffi::c_void;
use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};
use std::sync::Arc;

use crate::backing::{About, Handle, Physical};
use crate::boundary::{In, Out};
use crate::code::{Code, Outcome};
use crate::device;
use crate::driver::Driver;
use crate::settings::settings;
use crate::space::{GRANULARITY, Origin};

/// `CUmemLocation`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Location {
    kind: u32,
    id: i32,
}

/// `CUmemAllocationProp`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Properties {
    kind: u32,
    handle_types: u32,
    location: Location,
    windows: usize,
    flags: [u8; 8],
}

/// `CUmemAccessDesc`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct AccessDesc {
    location: Location,
    flags: u32,
}

const PINNED: u32 = 1;
const ON_DEVICE: u32 = 1;
const FILE_DESCRIPTOR: u32 = 1;
const FABRIC: u32 = 8;
const READ: u64 = 1;
const READ_WRITE: u64 = 3;

pub fn create(
    driver: &'static Driver,
    handle: Out<u64>,
    len: usize,
    properties: In<Properties>,
    flags: u64,
) -> Outcome {
    let (properties, len) = (properties.value()?, len as u64);
    check(driver, &properties)?;
    if flags != 0 || len == 0 || !len.is_multiple_of(GRANULARITY) {
        return Err(Code::INVALID_VALUE);
    }
    let context = driver.device(properties.location.id)?;
    let about = About {
        physical: context.physical,
        handle_types: properties.handle_types,
        flags: properties.flags,
        is_virtual: true,
    };
    handle.set(hold(driver, Arc::new(Physical::new(context, len, about)?)))
}

/// What is mapped stays until it is unmapped.
pub fn release(driver: &'static Driver, handle: u64) -> Outcome {
    let mut physical = driver.physical.lock();
    let (_, holders) = physical.get_mut(&handle).ok_or(Code::INVALID_VALUE)?;
    *holders -= 1;
    if *holders == 0 {
        physical.remove(&handle);
    }
    Ok(())
}

/// The handle of what is mapped there, to be released once more.
pub fn retain(driver: &'static Driver, handle: Out<u64>, address: usize) -> Outcome {
    let space = driver.space.read();
    let found =
        space.range(address as u64).filter(|(_, range)| matches!(range.origin, Origin::Virtual { .. }));
    let memory = found.ok_or(Code::INVALID_VALUE)?.1.memory.clone();
    drop(space);
    handle.set(hold(driver, memory))
}

pub fn properties(driver: &'static Driver, properties: Out<Properties>, handle: u64) -> Outcome {
    let about = of(driver, handle)?.about;
    let mut contexts = driver.contexts.iter();
    let owner = contexts.find(|owner| owner.physical == about.physical).ok_or(Code::INVALID_DEVICE)?;
    properties.set(Properties {
        kind: PINNED,
        handle_types: about.handle_types,
        location: Location { kind: ON_DEVICE, id: owner.ordinal.cast_signed() },
        windows: 0,
        flags: about.flags,
    })
}

pub fn granularity(
    driver: &'static Driver,
    len: Out<usize>,
    properties: In<Properties>,
    option: u32,
) -> Outcome {
    check(driver, &properties.value()?)?;
    if option > 1 {
        return Err(Code::INVALID_VALUE);
    }
    len.set(GRANULARITY as usize)
}

pub fn reserve(
    driver: &'static Driver,
    address: Out<u64>,
    len: usize,
    alignment: usize,
    _wish: u64,
    flags: u64,
) -> Outcome {
    let len = len as u64;
    if flags != 0 || !len.is_multiple_of(GRANULARITY) {
        return Err(Code::INVALID_VALUE);
    }
    address.set(driver.space.write().reserve(len, (alignment as u64).max(1))?)
}

pub fn unreserve(driver: &'static Driver, address: u64, len: usize) -> Outcome {
    driver.space.write().unreserve(address, len as u64)
}

/// A whole memory at reserved addresses; nobody may use it there yet.
pub fn map(
    driver: &'static Driver,
    address: u64,
    len: usize,
    offset: usize,
    handle: u64,
    flags: u64,
) -> Outcome {
    let memory = of(driver, handle)?;
    let is_aligned = address.is_multiple_of(GRANULARITY);
    if !is_aligned || len as u64 != memory.len || offset != 0 || flags != 0 {
        return Err(Code::INVALID_VALUE);
    }
    let mut contexts = driver.contexts.iter();
    let owner = contexts.find(|owner| owner.physical == memory.about.physical).ok_or(Code::INVALID_DEVICE)?;
    let mut space = driver.space.write();
    if !space.is_reserved(address, len as u64) {
        return Err(Code::INVALID_VALUE);
    }
    space.map(address, memory, owner.ordinal, Origin::Virtual { access: Default::default() })
}

pub fn unmap(driver: &'static Driver, address: u64, len: usize) -> Outcome {
    let mut space = driver.space.write();
    let chunks = virtual_chunks(&space, address, len)?;
    chunks.into_iter().try_for_each(|chunk| space.unmap(chunk).map(drop))
}

pub fn set_access(
    driver: &'static Driver,
    address: u64,
    len: usize,
    descs: In<AccessDesc>,
    count: usize,
) -> Outcome {
    let mut space = driver.space.write();
    let chunks = virtual_chunks(&space, address, len)?;
    for index in 0..count {
        let desc = descs.at(index)?;
        let context = on_device(driver, desc.location)?;
        for chunk in &chunks {
            let range = space.range_mut(*chunk).ok_or(Code::INVALID_VALUE)?;
            let owner = &driver.contexts[range.ordinal as usize];
            if range.ordinal != context.ordinal && !device::reach_each_other(owner, context) {
                return Err(Code::INVALID_DEVICE);
            }
            let Origin::Virtual { access } = &mut range.origin else { return Err(Code::INVALID_VALUE) };
            match u64::from(desc.flags) {
                0 => access.remove(&context.ordinal),
                READ => access.insert(context.ordinal, false),
                READ_WRITE => access.insert(context.ordinal, true),
                _ => return Err(Code::INVALID_VALUE),
            };
        }
    }
    Ok(())
}

pub fn access(driver: &'static Driver, flags: Out<u64>, location: In<Location>, address: u64) -> Outcome {
    let context = on_device(driver, location.value()?)?;
    let space = driver.space.read();
    let Some((_, range)) = space.range(address) else { return Err(Code::INVALID_VALUE) };
    let Origin::Virtual { access } = &range.origin else { return Err(Code::INVALID_VALUE) };
    flags.set(match access.get(&context.ordinal) {
        None => 0,
        Some(false) => READ,
        Some(true) => READ_WRITE,
    })
}

/// A file descriptor, which is the caller's from here on, or 64 bytes that hold as long as this process has the memory.
pub fn export(driver: &'static Driver, shared: Out<u8>, handle: u64, kind: u32, flags: u64) -> Outcome {
    let memory = of(driver, handle)?;
    if flags != 0 || memory.about.handle_types & kind == 0 {
        return Err(Code::INVALID_VALUE);
    }
    match kind {
        FILE_DESCRIPTOR => {
            let fd = memory.fd().try_clone_to_owned().map_err(|_| Code::OPERATING_SYSTEM)?;
            shared.cast::<RawFd>().set(fd.into_raw_fd())
        }
        FABRIC => shared.cast::<Handle>().set(memory.handle()?),
        _ => Err(Code::NOT_SUPPORTED),
    }
}

/// A file descriptor is passed in the place of a pointer to it, and stays the caller's.
pub fn import(driver: &'static Driver, handle: Out<u64>, shared: In<c_void>, kind: u32) -> Outcome {
    let memory = match kind {
        FILE_DESCRIPTOR => {
            let fd =
                RawFd::try_from(shared.address()).ok().filter(|fd| *fd >= 0).ok_or(Code::INVALID_VALUE)?;
            // SAFETY: it is the caller's file descriptor for the length of this call; one that is none is refused below.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            Physical::from_fd(borrowed.try_clone_to_owned().map_err(|_| Code::INVALID_VALUE)?)?
        }
        FABRIC if settings().has_fabric => Physical::find(&shared.cast::<Handle>().value()?)?,
        _ => return Err(Code::NOT_SUPPORTED),
    };
    if !memory.about.is_virtual || memory.about.handle_types & kind == 0 {
        return Err(Code::INVALID_VALUE);
    }
    handle.set(hold(driver, Arc::new(memory)))
}

fn check(driver: &'static Driver, properties: &Properties) -> Outcome {
    on_device(driver, properties.location)?;
    if properties.kind != PINNED {
        return Err(Code::INVALID_VALUE);
    }
    let supported = FILE_DESCRIPTOR | if settings().has_fabric { FABRIC } else { 0 };
    if properties.handle_types & !supported != 0 {
        return Err(Code::NOT_SUPPORTED);
    }
    Ok(())
}

fn on_device(driver: &'static Driver, location: Location) -> Outcome<&'static crate::context::Context> {
    if location.kind != ON_DEVICE {
        return Err(Code::INVALID_VALUE);
    }
    driver.device(location.id)
}

fn virtual_chunks(space: &crate::space::Space, address: u64, len: usize) -> Outcome<Vec<u64>> {
    let chunks = space.whole(address, len as u64)?;
    let is_virtual = |chunk: &u64| {
        space.range(*chunk).is_some_and(|(_, range)| matches!(range.origin, Origin::Virtual { .. }))
    };
    if chunks.iter().all(is_virtual) { Ok(chunks) } else { Err(Code::INVALID_VALUE) }
}

fn of(driver: &'static Driver, handle: u64) -> Outcome<Arc<Physical>> {
    driver.physical.lock().get(&handle).map(|(memory, _)| memory.clone()).ok_or(Code::INVALID_VALUE)
}

/// A handle for it, or once more the one that there is.
fn hold(driver: &'static Driver, memory: Arc<Physical>) -> u64 {
    let id = driver.space.write().new_id();
    let mut physical = driver.physical.lock();
    let held = physical.iter_mut().find(|(_, (held, _))| Arc::ptr_eq(held, &memory));
    if let Some((handle, (_, holders))) = held {
        *holders += 1;
        return *handle;
    }
    physical.insert(id, (memory, 1));
    id
}
