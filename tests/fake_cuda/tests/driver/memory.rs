//! Device memory: who can reach it, and what is known about it.

use std::fs::File;
use std::io::{Read, Write};

use crate::calls::*;
use crate::scene::*;

const CHUNK: usize = 2 << 20;
const INVALID_VALUE: u32 = 1;
const EFAULT: i32 = 14;

#[test]
fn what_is_copied_in_comes_out() {
    context();
    let bytes = pattern(100_003, 1);
    let (one, other) = (device(&bytes), device(&vec![0; bytes.len()]));
    ok(cuMemcpyDtoD_v2(other + 1, one, bytes.len() - 1));
    assert_eq!(read(other, bytes.len())[1..], bytes[..bytes.len() - 1]);
    ok(cuMemsetD8_v2(other, 7, 10));
    assert_eq!(read(other, 10), [7; 10]);
    ok(cuMemFree_v2(one));
    ok(cuMemFree_v2(other));
    assert_eq!(cuMemFree_v2(one), INVALID_VALUE);
    assert_eq!(cuMemcpyDtoD_v2(one, other, 1), INVALID_VALUE);
}

#[test]
fn a_host_that_touches_device_memory_faults() {
    context();
    let address = device(&pattern(4096, 2));
    // SAFETY: such a slice is just what must not be made; the kernel alone looks at it here, and refuses.
    let (bytes, room) = unsafe {
        let at = address as *mut u8;
        (std::slice::from_raw_parts(at, 4096), std::slice::from_raw_parts_mut(at, 4096))
    };
    let written = std::io::pipe().and_then(|(_, mut writer)| writer.write(bytes).map(drop));
    assert_eq!(written.unwrap_err().raw_os_error(), Some(EFAULT));
    let filled = File::open("/dev/zero").and_then(|mut zeros| zeros.read(room).map(drop));
    assert_eq!(filled.unwrap_err().raw_os_error(), Some(EFAULT));
    ok(cuMemFree_v2(address));
}

#[test]
fn an_address_tells_what_it_is() {
    context();
    let address = device(&[0; 5000]);
    let (mut base, mut len) = (0, 0);
    ok(cuMemGetAddressRange_v2(&mut base, &mut len, address + 4999));
    assert_eq!((base, len), (address, 5000));
    assert_ne!(cuMemGetAddressRange_v2(&mut base, &mut len, address + 5000), 0);
    assert_eq!(facts(address + 17), (2, 0, 0));

    let (mut pinned, mut managed) = (0, 0);
    ok(cuMemHostAlloc(&mut pinned, 64, 1));
    ok(cuMemAllocManaged(&mut managed, 64, 1));
    assert_eq!(facts(pinned), (1, 0, 0));
    assert_eq!(facts(managed), (2, 1, 0));
    let own = 0_u8;
    let own = (&raw const own) as u64;
    assert_eq!(facts(own), (0, 0, -2));
    assert_eq!(cuPointerGetAttribute((&raw mut len).cast(), 2, own), INVALID_VALUE);
    ok(cuMemFreeHost(pinned));
    ok(cuMemFree_v2(managed));
    ok(cuMemFree_v2(address));
}

/// Kind of memory, whether managed, and the device.
fn facts(address: u64) -> (u32, u32, i32) {
    let (mut kind, mut is_managed, mut ordinal) = (9_u32, 9_u32, 9_i32);
    let values: [*mut u8; 3] =
        [(&raw mut kind).cast(), (&raw mut is_managed).cast(), (&raw mut ordinal).cast()];
    ok(cuPointerGetAttributes(3, [2, 8, 9].as_ptr(), values.as_ptr(), address));
    (kind, is_managed, ordinal)
}

#[test]
fn chunks_side_by_side_are_one_memory() {
    context();
    let properties = Properties { kind: 1, handle_types: 1, location: [1, 0], ..Properties::default() };
    let mut address = 0;
    ok(cuMemAddressReserve(&mut address, 3 * CHUNK, 0, 0, 0));
    for chunk in 0..2 {
        let mut handle = 0;
        ok(cuMemCreate(&mut handle, CHUNK, &properties, 0));
        ok(cuMemMap(address + (chunk * CHUNK) as u64, CHUNK, 0, handle, 0));
        ok(cuMemRelease(handle));
    }
    let bytes = pattern(CHUNK, 3);
    let middle = address + (CHUNK / 2) as u64;
    assert_eq!(cuMemcpyHtoD_v2(middle, bytes.as_ptr(), CHUNK), INVALID_VALUE, "nobody was let in yet");
    let access = AccessDesc { location: [1, 0], flags: 3 };
    assert_eq!(cuMemSetAccess(address, 3 * CHUNK, &access, 1), INVALID_VALUE, "the third chunk is not there");
    ok(cuMemSetAccess(address, 2 * CHUNK, &access, 1));
    ok(cuMemcpyHtoD_v2(middle, bytes.as_ptr(), CHUNK));
    assert_eq!(read(middle, CHUNK), bytes);

    let (mut base, mut len) = (0, 0);
    ok(cuMemGetAddressRange_v2(&mut base, &mut len, middle));
    assert_eq!((base, len), (address, CHUNK));
    assert_eq!(cuIpcGetMemHandle(&mut IpcHandle([0; 64]), middle), INVALID_VALUE);
    assert_eq!(cuMemAddressFree(address, 3 * CHUNK), INVALID_VALUE, "something is mapped");
    assert_eq!(cuMemUnmap(address, CHUNK / 2), INVALID_VALUE, "half a chunk");
    ok(cuMemUnmap(address, 2 * CHUNK));
    ok(cuMemAddressFree(address, 3 * CHUNK));
}

#[test]
fn memory_is_counted_and_given_back() {
    alone("memory::memory_is_counted_and_given_back", &[("FAKE_CUDA_MEMORY", "1000000")], || {
        context();
        let (mut address, mut free, mut total) = (0, 0, 0);
        assert_eq!(cuMemAlloc_v2(&mut address, 1_000_001), 2);
        ok(cuMemAlloc_v2(&mut address, 600_000));
        assert_eq!(cuMemAlloc_v2(&mut 0, 600_000), 2);
        ok(cuMemGetInfo_v2(&mut free, &mut total));
        assert_eq!((free, total), (400_000, 1_000_000));
        ok(cuMemFree_v2(address));
        ok(cuMemAlloc_v2(&mut address, 1_000_000));
    });
}
