//! Device memory of one process in another one, and of one device on another one.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::calls::*;
use crate::scene::*;

const CHUNK: usize = 2 << 20;
const INVALID_VALUE: u32 = 1;
const INVALID_CONTEXT: u32 = 201;

#[test]
fn memory_is_shared_by_its_handle() {
    const TEST: &str = "sharing::memory_is_shared_by_its_handle";
    context();
    if role().is_some() {
        let handle = IpcHandle(unhex(&told()).try_into().expect("64 bytes"));
        let (mut once, mut again) = (0, 0);
        assert_eq!(cuIpcOpenMemHandle_v2(&mut once, handle, 0), INVALID_VALUE);
        ok(cuIpcOpenMemHandle_v2(&mut once, handle, 1));
        ok(cuIpcOpenMemHandle_v2(&mut again, handle, 1));
        assert_eq!(once, again);
        let mut bytes = read(once, 5000);
        bytes.reverse();
        ok(cuMemcpyHtoD_v2(once, bytes.as_ptr(), bytes.len()));
        assert_eq!(cuMemFree_v2(once), INVALID_VALUE, "it is not ours");
        ok(cuIpcCloseMemHandle(once));
        say("reversed");
        told();
        assert_eq!(read(once, 1), [9], "still open, and the exporter has freed it");
        ok(cuIpcCloseMemHandle(once));
        assert_eq!(cuIpcCloseMemHandle(once), INVALID_VALUE);
        assert_eq!(cuIpcOpenMemHandle_v2(&mut once, handle, 1), INVALID_VALUE, "it is gone");
        return;
    }
    let mut bytes = pattern(5000, 6);
    let address = device(&bytes);
    let mut handle = IpcHandle([0; 64]);
    ok(cuIpcGetMemHandle(&mut handle, address + 1234));
    assert_eq!(cuIpcOpenMemHandle_v2(&mut 0, handle, 1), INVALID_CONTEXT, "by its own process");
    let mut other = Other::start(TEST, "importer");
    other.tell(&hex(&handle.0));
    assert_eq!(other.hear(), "reversed");
    bytes.reverse();
    assert_eq!(read(address, bytes.len()), bytes);
    ok(cuMemsetD8_v2(address, 9, 1));
    ok(cuMemFree_v2(address));
    other.tell("freed");
    other.end();
}

#[test]
fn chunks_are_shared_by_file_descriptors_and_fabric_handles() {
    const TEST: &str = "sharing::chunks_are_shared_by_file_descriptors_and_fabric_handles";
    alone(TEST, &[("FAKE_CUDA_FABRIC", "1")], || {
        if role().as_deref() == Some("importer") {
            return import();
        }
        context();
        let properties =
            Properties { kind: 1, handle_types: 1 | 8, location: [1, 0], ..Properties::default() };
        let (mut handle, mut fd, mut fabric) = (0, -1, [0_u8; 64]);
        ok(cuMemCreate(&mut handle, CHUNK, &properties, 0));
        ok(cuMemExportToShareableHandle((&raw mut fd).cast(), handle, 1, 0));
        ok(cuMemExportToShareableHandle(fabric.as_mut_ptr(), handle, 8, 0));
        // SAFETY: the call has given it to us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut imported = 0;
        ok(cuMemImportFromShareableHandle(&mut imported, fd.as_raw_fd() as usize, 1));
        let (one, other) = (map(handle), map(imported));
        let bytes = pattern(CHUNK, 7);
        ok(cuMemcpyHtoD_v2(one, bytes.as_ptr(), CHUNK));
        assert_eq!(read(other, CHUNK), bytes);

        let mut process = Other::start(TEST, "importer");
        process.tell(&hex(&fabric));
        assert_eq!(process.hear(), "written");
        assert_eq!(read(other, 3), [5, 5, 5]);
        process.end();
        let mut retained = 0;
        ok(cuMemRetainAllocationHandle(&mut retained, one));
        assert_eq!(retained, handle);

        let private = Properties { handle_types: 0, ..properties };
        ok(cuMemCreate(&mut handle, CHUNK, &private, 0));
        assert_eq!(cuMemExportToShareableHandle(fabric.as_mut_ptr(), handle, 1, 0), INVALID_VALUE);
    });
}

fn import() {
    context();
    let fabric = unhex(&told());
    let mut handle = 0;
    ok(cuMemImportFromShareableHandle(&mut handle, fabric.as_ptr() as usize, 8));
    ok(cuMemsetD8_v2(map(handle), 5, 3));
    say("written");
}

fn map(handle: u64) -> u64 {
    let mut address = 0;
    ok(cuMemAddressReserve(&mut address, CHUNK, 0, 0, 0));
    ok(cuMemMap(address, CHUNK, 0, handle, 0));
    ok(cuMemSetAccess(address, CHUNK, &AccessDesc { location: [1, 0], flags: 3 }, 1));
    address
}

#[test]
fn devices_reach_each_other_when_they_are_let() {
    const TEST: &str = "sharing::devices_reach_each_other_when_they_are_let";
    alone(TEST, &[("FAKE_CUDA_DEVICES", "3"), ("CUDA_VISIBLE_DEVICES", "2,0")], || {
        let first = context();
        let (mut count, mut can, mut uuid, mut second) = (0, 0, [0; 16], 0);
        ok(cuDeviceGetCount(&mut count));
        ok(cuDeviceGetUuid_v2(&mut uuid, 0));
        assert_eq!((count, uuid[15]), (2, 2));
        ok(cuDeviceCanAccessPeer(&mut can, 0, 1));
        assert_eq!(can, 1);
        let near = device(&pattern(4096, 8));
        ok(cuDevicePrimaryCtxRetain(&mut second, 1));
        ok(cuCtxPushCurrent_v2(second));
        let far = device(&[0; 4096]);
        ok(cuMemcpyDtoD_v2(far, near, 4096));
        assert_eq!(read(far, 4096), pattern(4096, 8));
        ok(cuCtxEnablePeerAccess(first, 0));
        assert_eq!(cuCtxEnablePeerAccess(first, 0), 704);
        ok(crate::streams::copy(0, &[[near + 1, far, 4095]]));
        assert_eq!(read(far, 4095), pattern(4096, 8)[1..]);
        ok(cuCtxSetCurrent(first));
        ok(crate::streams::copy(0, &[[near, far, 4095]]));
        assert_eq!(cuCtxSynchronize(), 700, "in this direction nobody has allowed it");
    });
}
