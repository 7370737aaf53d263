//! What is known about an address.

use crate::boundary::{In, Out};
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::driver::Driver;
use crate::space::{HostKind, HostRange, Origin, Range, Space};

/// `CUpointer_attribute`, as far as anything is said about it here.
mod attribute {
    pub const CONTEXT: u32 = 1;
    pub const MEMORY_TYPE: u32 = 2;
    pub const DEVICE_POINTER: u32 = 3;
    pub const HOST_POINTER: u32 = 4;
    pub const SYNC_MEMOPS: u32 = 6;
    pub const BUFFER_ID: u32 = 7;
    pub const IS_MANAGED: u32 = 8;
    pub const DEVICE_ORDINAL: u32 = 9;
    pub const IS_LEGACY_IPC_CAPABLE: u32 = 10;
    pub const RANGE_START: u32 = 11;
    pub const RANGE_SIZE: u32 = 12;
    pub const MAPPED: u32 = 13;
    pub const HANDLE_TYPES: u32 = 14;
    pub const IS_RDMA_CAPABLE: u32 = 15;
    pub const ACCESS_FLAGS: u32 = 16;
    pub const MEMORY_POOL: u32 = 17;
    pub const MAPPING_SIZE: u32 = 18;
    pub const MAPPING_BASE: u32 = 19;
    pub const MEMORY_BLOCK: u32 = 20;
}

const ON_HOST: u32 = 1;
const ON_DEVICE: u32 = 2;
const NO_DEVICE: i32 = -2;

/// A value in the width that the attribute has. Truth has four bytes.
enum Fact {
    Narrow(u32),
    Wide(u64),
}

impl Fact {
    fn write(&self, to: Out<u8>) -> Outcome {
        match self {
            Fact::Narrow(value) => to.cast().set(*value),
            Fact::Wide(value) => to.cast().set(*value),
        }
    }
}

/// One attribute of an address that is known.
pub fn attribute(driver: &'static Driver, value: Out<u8>, attribute: u32, address: u64) -> Outcome {
    let space = driver.space.read();
    let fact = fact(driver, &space, attribute, address)?.ok_or(Code::INVALID_VALUE)?;
    fact.write(value)
}

/// Several attributes; of an address that is not known, each is nothing.
pub fn attributes(
    driver: &'static Driver,
    count: u32,
    attributes: In<u32>,
    values: In<Out<u8>>,
    address: u64,
) -> Outcome {
    let space = driver.space.read();
    for index in 0..count as usize {
        let attribute = attributes.at(index)?;
        let fact = fact(driver, &space, attribute, address)?.unwrap_or_else(|| nothing(attribute));
        fact.write(values.at(index)?)?;
    }
    Ok(())
}

/// Whether copies wait for each other on this memory, which they always do here.
pub fn set_attribute(driver: &'static Driver, value: In<u32>, attribute: u32, address: u64) -> Outcome {
    if attribute != attribute::SYNC_MEMOPS {
        return Err(Code::INVALID_VALUE);
    }
    let value = value.value()?;
    let mut space = driver.space.write();
    space.range_mut(address).ok_or(Code::INVALID_VALUE)?.has_sync_memops = value != 0;
    Ok(())
}

fn fact(driver: &'static Driver, space: &Space, attribute: u32, address: u64) -> Outcome<Option<Fact>> {
    if !(attribute::CONTEXT..=attribute::MEMORY_BLOCK).contains(&attribute) {
        return Err(Code::INVALID_VALUE);
    }
    let context = |ordinal: u32| &driver.contexts[ordinal as usize];
    Ok(if let Some((base, range)) = space.range(address) {
        of_device(context(range.ordinal), base, range, attribute, address)
    } else if let Some((base, range)) = space.host_range(address) {
        of_host(context(range.context), base, range, attribute, address)
    } else {
        None
    })
}

fn of_device(context: &Context, base: u64, range: &Range, attribute: u32, address: u64) -> Option<Fact> {
    let is_virtual = matches!(range.origin, Origin::Virtual { .. });
    let is_allocated = matches!(range.origin, Origin::Allocated);
    let truth = |is_so: bool| Fact::Narrow(u32::from(is_so));
    Some(match attribute {
        attribute::CONTEXT => Fact::Wide(if is_virtual { 0 } else { context.handle() as u64 }),
        attribute::MEMORY_TYPE => Fact::Narrow(ON_DEVICE),
        attribute::DEVICE_POINTER => Fact::Wide(address),
        attribute::SYNC_MEMOPS => truth(range.has_sync_memops),
        attribute::BUFFER_ID | attribute::MEMORY_BLOCK => Fact::Wide(range.id),
        attribute::IS_MANAGED => truth(false),
        attribute::DEVICE_ORDINAL => Fact::Narrow(context.ordinal),
        attribute::IS_LEGACY_IPC_CAPABLE => truth(is_allocated),
        attribute::RANGE_START | attribute::MAPPING_BASE => Fact::Wide(base),
        attribute::RANGE_SIZE | attribute::MAPPING_SIZE => Fact::Wide(range.len),
        attribute::MAPPED => truth(true),
        attribute::HANDLE_TYPES => Fact::Wide(range.memory.about.handle_types.into()),
        attribute::IS_RDMA_CAPABLE => truth(true),
        attribute::ACCESS_FLAGS => Fact::Narrow(3),
        attribute::MEMORY_POOL => Fact::Wide(0),
        _ => return None,
    })
}

fn of_host(context: &Context, base: u64, range: &HostRange, attribute: u32, address: u64) -> Option<Fact> {
    let is_managed = range.kind == HostKind::Managed;
    Some(match attribute {
        attribute::CONTEXT => Fact::Wide(context.handle() as u64),
        attribute::MEMORY_TYPE => Fact::Narrow(if is_managed { ON_DEVICE } else { ON_HOST }),
        attribute::DEVICE_POINTER | attribute::HOST_POINTER => Fact::Wide(address),
        attribute::IS_MANAGED => Fact::Narrow(u32::from(is_managed)),
        attribute::BUFFER_ID | attribute::MEMORY_BLOCK => Fact::Wide(range.id),
        attribute::DEVICE_ORDINAL => Fact::Narrow(context.ordinal),
        attribute::RANGE_START | attribute::MAPPING_BASE => Fact::Wide(base),
        attribute::RANGE_SIZE | attribute::MAPPING_SIZE => Fact::Wide(range.len),
        attribute::MAPPED => Fact::Narrow(1),
        attribute::ACCESS_FLAGS => Fact::Narrow(3),
        _ => nothing(attribute),
    })
}

fn nothing(attribute: u32) -> Fact {
    match attribute {
        attribute::DEVICE_ORDINAL => Fact::Narrow(NO_DEVICE.cast_unsigned()),
        attribute::MEMORY_TYPE
        | attribute::SYNC_MEMOPS
        | attribute::IS_MANAGED
        | attribute::IS_LEGACY_IPC_CAPABLE
        | attribute::MAPPED
        | attribute::IS_RDMA_CAPABLE
        | attribute::ACCESS_FLAGS => Fact::Narrow(0),
        _ => Fact::Wide(0),
    }
}
