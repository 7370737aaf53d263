//! What a device says of itself.

use std::ffi::c_char;

use crate::boundary::{Out, Text};
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::driver::Driver;
use crate::settings::settings;

/// What it can compute, as its attributes and its PTX have it: 9.0.
pub const COMPUTE_CAPABILITY: (i32, i32) = (9, 0);
/// Most threads in a block.
pub const MAX_BLOCK: u32 = 1024;

pub fn count(driver: &'static Driver, count: Out<i32>) -> Outcome {
    count.set(i32::try_from(driver.contexts.len()).map_err(|_| Code::UNKNOWN)?)
}

pub fn by_ordinal(driver: &'static Driver, device: Out<i32>, ordinal: i32) -> Outcome {
    driver.device(ordinal)?;
    device.set(ordinal)
}

pub fn by_bus_id(driver: &'static Driver, device: Out<i32>, id: Text) -> Outcome {
    let id = id.as_str()?;
    let found = driver.contexts.iter().find(|context| bus_id(context) == id).ok_or(Code::INVALID_DEVICE)?;
    device.set(found.ordinal.cast_signed())
}

pub fn name(driver: &'static Driver, name: Out<c_char>, len: i32, ordinal: i32) -> Outcome {
    driver.device(ordinal)?;
    name.set_text("Fake GPU in host memory", len)
}

/// The same in every process, and of every machine: it names the device's number there.
pub fn uuid(driver: &'static Driver, uuid: Out<[u8; 16]>, ordinal: i32) -> Outcome {
    let mut bytes = *b"fake cuda \0\0\0\0\0\0";
    bytes[12..].copy_from_slice(&driver.device(ordinal)?.physical.to_be_bytes());
    uuid.set(bytes)
}

pub fn pci_bus_id(driver: &'static Driver, id: Out<c_char>, len: i32, ordinal: i32) -> Outcome {
    id.set_text(&bus_id(driver.device(ordinal)?), len)
}

fn bus_id(context: &Context) -> String {
    format!("0000:{:02X}:00.0", bus(context))
}

fn bus(context: &Context) -> u32 {
    0x10 + context.physical
}

pub fn total_memory(driver: &'static Driver, bytes: Out<usize>, ordinal: i32) -> Outcome {
    driver.device(ordinal)?;
    bytes.set(usize::try_from(settings().memory).map_err(|_| Code::INVALID_VALUE)?)
}

pub fn can_access_peer(driver: &'static Driver, can: Out<i32>, ordinal: i32, peer: i32) -> Outcome {
    can.set(i32::from(reach_each_other(driver.device(ordinal)?, driver.device(peer)?)))
}

/// Whether peer access can be had between two devices. A device is no peer of its own.
pub fn reach_each_other(one: &Context, other: &Context) -> bool {
    settings().has_peer_access && one.ordinal != other.ordinal
}

/// Those that users of memory and kernels ask for; all others are 0.
pub fn attribute(driver: &'static Driver, value: Out<i32>, attribute: u32, ordinal: i32) -> Outcome {
    const LAST: u32 = 150;
    let context = driver.device(ordinal)?;
    value.set(match attribute {
        1..=3 => MAX_BLOCK.cast_signed(), // threads of a block, and in x, in y
        4 => 64,                          // threads in z
        5 => i32::MAX,                    // blocks in x
        6 | 7 => 65535,                   // blocks in y, in z
        10 => 32,                         // threads of a warp
        16 => 8,                          // multiprocessors
        19 => 1,                          // maps host memory
        31 => 1,                          // kernels at a time
        33 => bus(context).cast_signed(),
        39 => 2048, // threads of a multiprocessor
        40 => 2,    // copies beside kernels
        41 => 1,    // one address space
        75 => COMPUTE_CAPABILITY.0,
        76 => COMPUTE_CAPABILITY.1,
        78 => 1,                                 // priorities of streams
        83 => 1,                                 // managed memory
        91 => 1,                                 // registered memory has one address
        99 => 1,                                 // registers host memory
        102 | 103 => 1,                          // mapped memory; shared by file descriptors
        116 | 110 => 1,                          // network cards reach memory; mapped memory, too
        117 => 1,                                // their writes can be flushed by the host
        118 => 0,                                // and have to be
        128 => i32::from(settings().has_fabric), // shared by handles of a fabric
        other if (1..=LAST).contains(&other) => 0,
        _ => return Err(Code::INVALID_VALUE),
    })
}
