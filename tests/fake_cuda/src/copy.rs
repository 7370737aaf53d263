//! Copies and fills.
//!
//! Memory of the host that no device knows is pageable, and treated as CUDA does: what is copied from it has been read when
//! the call returns, and what is copied to it is there when the call returns.

use std::io;

use crate::boundary::In;
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::space::Access;
use crate::stream::{self, Work};

/// Bytes to be moved.
pub struct Copy {
    source: Source,
    destination: Destination,
    len: u64,
}

enum Source {
    /// Memory of a device, or of the host where devices may use it.
    Reachable(u64),
    /// What was in pageable memory.
    Read(Vec<u8>),
}

enum Destination {
    Reachable(u64),
    Pageable(u64),
}

/// Bytes to be set to one value.
pub struct Fill {
    address: u64,
    value: u8,
    len: u64,
}

/// What a parameter of a copy may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Device,
    Host,
    Any,
}

impl Copy {
    pub fn run(&self, context: &'static Context) -> Outcome {
        let space = context.driver().space.read();
        let reach =
            |address, access| space.reach(address, self.len, access, context).ok_or(Code::ILLEGAL_ADDRESS);
        let source: *const u8 = match &self.source {
            Source::Reachable(address) => reach(*address, Access::Read)?.cast_const().cast(),
            Source::Read(bytes) => bytes.as_ptr(),
        };
        let len = usize::try_from(self.len).map_err(|_| Code::INVALID_VALUE)?;
        match self.destination {
            Destination::Reachable(address) => {
                let destination: *mut u8 = reach(address, Access::Write)?.cast();
                // SAFETY: both are mapped for `len` bytes and stay so while the space is held; bytes of a vector are as
                // many. Pinned memory is the host's promise.
                unsafe { destination.copy_from(source, len) };
                Ok(())
            }
            Destination::Pageable(address) => write_host(address, source, len),
        }
    }
}

impl Fill {
    pub fn run(&self, context: &'static Context) -> Outcome {
        let space = context.driver().space.read();
        let reached = space.reach(self.address, self.len, Access::Write, context);
        let bytes: *mut u8 = reached.ok_or(Code::ILLEGAL_ADDRESS)?.cast();
        let len = usize::try_from(self.len).map_err(|_| Code::INVALID_VALUE)?;
        // SAFETY: mapped for `len` bytes, and stays so while the space is held.
        unsafe { bytes.write_bytes(self.value, len) };
        Ok(())
    }
}

pub fn to_device(context: &'static Context, to: u64, from: In<u8>, len: usize) -> Outcome {
    copy(context, (to, Side::Device), (from.address() as u64, Side::Host), len, None)
}

pub fn to_host(context: &'static Context, to: In<u8>, from: u64, len: usize) -> Outcome {
    copy(context, (to.address() as u64, Side::Host), (from, Side::Device), len, None)
}

pub fn within_devices(context: &'static Context, to: u64, from: u64, len: usize) -> Outcome {
    copy(context, (to, Side::Device), (from, Side::Device), len, None)
}

pub fn any(context: &'static Context, to: u64, from: u64, len: usize) -> Outcome {
    copy(context, (to, Side::Any), (from, Side::Any), len, None)
}

pub fn to_device_async(
    context: &'static Context,
    to: u64,
    from: In<u8>,
    len: usize,
    stream: usize,
) -> Outcome {
    copy(context, (to, Side::Device), (from.address() as u64, Side::Host), len, Some(stream))
}

pub fn to_host_async(context: &'static Context, to: In<u8>, from: u64, len: usize, stream: usize) -> Outcome {
    copy(context, (to.address() as u64, Side::Host), (from, Side::Device), len, Some(stream))
}

pub fn within_devices_async(
    context: &'static Context,
    to: u64,
    from: u64,
    len: usize,
    stream: usize,
) -> Outcome {
    copy(context, (to, Side::Device), (from, Side::Device), len, Some(stream))
}

pub fn any_async(context: &'static Context, to: u64, from: u64, len: usize, stream: usize) -> Outcome {
    copy(context, (to, Side::Any), (from, Side::Any), len, Some(stream))
}

pub fn fill(context: &'static Context, address: u64, value: u8, len: usize) -> Outcome {
    let stream = context.null_stream();
    stream.wait_until(stream.submit(checked_fill(context, address, value, len)?));
    context.lost()
}

pub fn fill_async(context: &'static Context, address: u64, value: u8, len: usize, stream: usize) -> Outcome {
    let stream = stream::of(context, stream)?;
    stream.submit(checked_fill(context, address, value, len)?);
    Ok(())
}

fn checked_fill(context: &'static Context, address: u64, value: u8, len: usize) -> Outcome<Work> {
    is_reachable(context, address, len as u64, Access::Write, Side::Device)?;
    Ok(Work::Fill(Fill { address, value, len: len as u64 }))
}

/// Without a stream the call returns when all is done.
fn copy(
    context: &'static Context,
    (to, to_side): (u64, Side),
    (from, from_side): (u64, Side),
    len: usize,
    stream: Option<usize>,
) -> Outcome {
    let on = stream::of(context, stream.unwrap_or(0))?;
    if len == 0 {
        return Ok(());
    }
    let source = match is_reachable(context, from, len as u64, Access::Read, from_side)? {
        true => Source::Reachable(from),
        false => Source::Read(read_host(from, len).inspect_err(|code| context.lose(*code))?),
    };
    let destination = match is_reachable(context, to, len as u64, Access::Write, to_side)? {
        true => Destination::Reachable(to),
        false => Destination::Pageable(to),
    };
    let is_awaited = stream.is_none() || matches!(destination, Destination::Pageable(_));
    let number = on.submit(Work::Copy(Copy { source, destination, len: len as u64 }));
    if is_awaited {
        on.wait_until(number);
        on.context.lost()?;
    }
    Ok(())
}

/// Whether it is memory that devices can use; else it is pageable, where that can be meant.
fn is_reachable(
    context: &'static Context,
    address: u64,
    len: u64,
    access: Access,
    side: Side,
) -> Outcome<bool> {
    let space = context.driver().space.read();
    let (on_device, on_host) = (space.range(address).is_some(), space.host_range(address).is_some());
    match (on_device, on_host, side) {
        (true, _, Side::Host) | (false, false, Side::Device) => Err(Code::INVALID_VALUE),
        (false, false, _) => Ok(false),
        _ => {
            let reached = space.reach(address, len, access, context);
            reached.map(|_| true).ok_or(Code::INVALID_VALUE)
        }
    }
}

/// Reads memory that may not be there: that is an error, and no end of the process.
fn read_host(address: u64, len: usize) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0; len];
    move_bytes(bytes.as_mut_ptr(), address, len, libc::process_vm_readv)?;
    Ok(bytes)
}

fn write_host(address: u64, from: *const u8, len: usize) -> Outcome {
    move_bytes(from.cast_mut(), address, len, libc::process_vm_writev)
}

type ProcessVm = unsafe extern "C" fn(
    libc::pid_t,
    *const libc::iovec,
    libc::c_ulong,
    *const libc::iovec,
    libc::c_ulong,
    libc::c_ulong,
) -> libc::ssize_t;

fn move_bytes(near: *mut u8, far: u64, len: usize, call: ProcessVm) -> Outcome {
    let mut done = 0;
    while done < len {
        let near = libc::iovec { iov_base: near.wrapping_add(done).cast(), iov_len: len - done };
        let far = libc::iovec { iov_base: (far as *mut u8).wrapping_add(done).cast(), iov_len: len - done };
        // SAFETY: `near` is memory of the caller's for what is left; `far` is checked by the kernel, and the host's to
        // be used as the copy does.
        let moved = unsafe { call(libc::getpid(), &near, 1, &far, 1, 0) };
        match usize::try_from(moved) {
            Ok(moved) if moved > 0 => done += moved,
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
            _ => return Err(Code::ILLEGAL_ADDRESS),
        }
    }
    Ok(())
}
