//! Whether memory that a host wants to register is there, and may be written.
//!
//! A host that registers memory promises that it is mapped, readable and writable. Where it is not (a file mapped
//! read-only, an array that is gone), the fault would come when bytes land: as an error of the lane, or as a
//! signal that ends the process. So the promise is held against `/proc/self/maps` when it is made. What is
//! unmapped or protected later is not seen; neither is numpy's `writeable` flag, which protects no memory.

use std::io;

use thiserror::Error;

use crate::desc::{Descriptor, Span};

/// Why memory cannot be registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MemoryFault {
    /// Some of it is not mapped.
    #[error("no memory is mapped at {0:#x}: the buffer is gone, or the length is too large")]
    NotMapped(u64),
    /// Some of it may only be read.
    #[error(
        "the memory at {0:#x} is mapped read-only and nothing could land there: register a buffer that may be written \
         (a file mapped read-only is none)"
    )]
    ReadOnly(u64),
    /// Some of it may not even be read.
    #[error("the memory at {0:#x} may not be read")]
    Unreadable(u64),
}

/// The first descriptor of host memory that this process cannot read and write, and why.
///
/// `None` too where the system does not show its mappings.
pub fn first_fault(descs: &[Descriptor]) -> Option<(usize, MemoryFault)> {
    // A mapping that another thread cuts or merges while the list is read may be missed: look again.
    fault_now(descs)?;
    fault_now(descs)
}

fn fault_now(descs: &[Descriptor]) -> Option<(usize, MemoryFault)> {
    let mappings = Mappings::of_this_process()
        .inspect_err(|error| tracing::debug!(%error, "registered memory cannot be checked"))
        .ok()?;
    let fault = |d: &Descriptor| mappings.fault(Span { addr: d.addr, len: d.len });
    descs.iter().enumerate().find_map(|(index, d)| Some((index, fault(d)?)))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    readable: bool,
    writable: bool,
}

/// By address, without overlaps: as the system lists them.
struct Mappings(Vec<Mapping>);

impl Mappings {
    fn of_this_process() -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read("/proc/self/maps")?))
    }

    fn parse(table: &[u8]) -> Self {
        Self(table.split(|byte| *byte == b'\n').filter_map(mapping).collect())
    }

    fn fault(&self, span: Span) -> Option<MemoryFault> {
        let end = span.end()?; // one that wraps is refused by its own check
        let mut at = span.addr;
        let mut next = self.0.partition_point(|mapping| mapping.end <= at);
        while at < end {
            match self.0.get(next) {
                Some(mapping) if mapping.start <= at && !mapping.readable => {
                    return Some(MemoryFault::Unreadable(at));
                }
                Some(mapping) if mapping.start <= at && !mapping.writable => {
                    return Some(MemoryFault::ReadOnly(at));
                }
                Some(mapping) if mapping.start <= at => at = mapping.end,
                _ => return Some(MemoryFault::NotMapped(at)),
            }
            next += 1;
        }
        None
    }
}

/// `start-end rwxp ...`, in hexadecimal.
fn mapping(line: &[u8]) -> Option<Mapping> {
    let head = std::str::from_utf8(line.get(..line.len().min(HEAD_BYTES))?).ok()?;
    let mut words = head.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?.as_bytes();
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        readable: rights.first() == Some(&b'r'),
        writable: rights.get(1) == Some(&b'w'),
    })
}

/// Two addresses and the rights; what follows may be a file name that is not text.
const HEAD_BYTES: usize = 16 + 1 + 16 + 1 + 4;

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1000-2000 rw-p 00000000 00:00 0\n\
        2000-3000 rw-s 00000000 00:00 0 /dev/shm/\xff\n\
        3000-4000 r--p 00000000 00:00 0 /usr/lib/x.so\n\
        6000-7000 ---p 00000000 00:00 0\n\
        ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]\n";

    #[test]
    fn the_first_place_that_cannot_be_used_is_named() {
        let mappings = Mappings::parse(TABLE);
        for (addr, len, expected) in [
            (0x1000, 0x2000, None),
            (0x1fff, 2, None),
            (0x2fff, 2, Some(MemoryFault::ReadOnly(0x3000))),
            (0x3800, 0x10_0000, Some(MemoryFault::ReadOnly(0x3800))),
            (0x800, 0x900, Some(MemoryFault::NotMapped(0x800))),
            (0x4000, 1, Some(MemoryFault::NotMapped(0x4000))),
            (0x6000, 8, Some(MemoryFault::Unreadable(0x6000))),
            (0x7000, 1, Some(MemoryFault::NotMapped(0x7000))),
            (0x4000, 0, None),
        ] {
            assert_eq!(mappings.fault(Span { addr, len }), expected, "{addr:#x}+{len:#x}");
        }
        assert_eq!(mappings.0.len(), 5);
    }

    #[test]
    fn of_this_process_a_vector_may_be_used_and_a_constant_not() {
        static CONSTANT: [u8; 64] = [7; 64];
        let vector = vec![0_u8; 1 << 20];
        let desc =
            |bytes: &[u8]| Descriptor { addr: bytes.as_ptr() as u64, len: bytes.len() as u64, device: 0 };
        assert_eq!(first_fault(&[desc(&vector)]), None);
        let constant = desc(&CONSTANT);
        let found = first_fault(&[desc(&vector), constant]);
        assert_eq!(found, Some((1, MemoryFault::ReadOnly(constant.addr))));
    }
}
