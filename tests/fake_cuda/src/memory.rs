//! Memory of devices by the plain calls, and what is known of its extent.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::backing::{About, Physical};
use crate::boundary::Out;
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::driver::Driver;
use crate::host_memory;
use crate::settings::settings;
use crate::space::{GRANULARITY, Origin};

pub fn allocate(context: &'static Context, address: Out<u64>, len: usize) -> Outcome {
    let len = len as u64;
    if len == 0 {
        return Err(Code::INVALID_VALUE);
    }
    let about = About { physical: context.physical, handle_types: 0, flags: [0; 8], is_virtual: false };
    let memory = Arc::new(Physical::new(context, len, about)?);
    let mut space = context.driver().space.write();
    let at = space.reserve(len, GRANULARITY)?;
    space.map(at, memory, context.ordinal, Origin::Allocated)?;
    address.set(at)
}

/// Waits for what streams still do, as CUDA does.
pub fn free(context: &'static Context, address: u64) -> Outcome {
    if address == 0 {
        return Ok(());
    }
    context.quiesce();
    let driver = context.driver();
    if host_memory::free_managed(driver, address)? {
        return Ok(());
    }
    let mut space = driver.space.write();
    let found = space
        .range(address)
        .filter(|(base, range)| *base == address && matches!(range.origin, Origin::Allocated));
    let len = found.ok_or(Code::INVALID_VALUE)?.1.len;
    space.unmap(address)?;
    space.unreserve(address, len)
}

pub fn info(context: &'static Context, free: Out<usize>, total: Out<usize>) -> Outcome {
    let whole = settings().memory;
    free.set_if_wanted(usize_of(whole.saturating_sub(context.used.load(Ordering::Acquire)))?);
    total.set_if_wanted(usize_of(whole)?);
    Ok(())
}

/// The allocation or the mapped chunk that an address lies in.
pub fn extent(driver: &'static Driver, base: Out<u64>, len: Out<usize>, address: u64) -> Outcome {
    let space = driver.space.read();
    let device = space.range(address).map(|(base, range)| (base, range.len));
    let host = space.host_range(address).map(|(base, range)| (base, range.len));
    let (found, found_len) = device.or(host).ok_or(Code::NOT_FOUND)?;
    base.set_if_wanted(found);
    len.set_if_wanted(usize_of(found_len)?);
    Ok(())
}

fn usize_of(len: u64) -> Outcome<usize> {
    usize::try_from(len).map_err(|_| Code::INVALID_VALUE)
}
