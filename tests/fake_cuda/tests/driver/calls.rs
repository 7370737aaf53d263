//! The driver's functions, looked up in the stand-in as a user of libcuda would.
#![allow(non_snake_case, clippy::too_many_arguments, reason = "names and parameters are those of cuda.h")]

use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use libloading::Library;

/// The stand-in, opened once.
pub fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        // SAFETY: opening runs what C++ and Rust run at start, and nothing of ours.
        unsafe { Library::new(fake_cuda::library()) }.expect("the stand-in opens")
    })
}

macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?);)*) => {
        $(pub fn $name($($argument: $type),*) -> u32 {
            // SAFETY: the parameters are those of cuda.h, and tests hand over references to what the call fills.
            unsafe {
                let function = library().get::<unsafe extern "C" fn($($type),*) -> u32>(stringify!($name).as_bytes());
                function.expect(stringify!($name))($($argument),*)
            }
        })*
    };
}

/// `CUmemAllocationProp`
#[repr(C)]
#[derive(Default)]
pub struct Properties {
    pub kind: u32,
    pub handle_types: u32,
    pub location: [i32; 2],
    pub windows: usize,
    pub flags: [u8; 8],
}

/// `CUmemAccessDesc`
#[repr(C)]
pub struct AccessDesc {
    pub location: [i32; 2],
    pub flags: u32,
}

/// `CUipcMemHandle`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct IpcHandle(pub [u8; 64]);

functions! {
    fn cuInit(flags: u32);
    fn cuDriverGetVersion(version: &mut i32);
    fn cuGetErrorName(error: u32, text: &mut *const c_char);
    fn cuGetProcAddress_v2(name: *const c_char, function: &mut usize, version: i32, flags: u64, status: &mut u32);
    fn cuDeviceGetCount(count: &mut i32);
    fn cuDeviceGetUuid_v2(uuid: &mut [u8; 16], device: i32);
    fn cuDeviceCanAccessPeer(can: &mut i32, device: i32, peer: i32);
    fn cuDevicePrimaryCtxRetain(context: &mut usize, device: i32);
    fn cuDevicePrimaryCtxRelease_v2(device: i32);
    fn cuCtxEnablePeerAccess(context: usize, flags: u32);
    fn cuCtxGetCurrent(context: &mut usize);
    fn cuCtxSetCurrent(context: usize);
    fn cuCtxPushCurrent_v2(context: usize);
    fn cuCtxPopCurrent_v2(context: &mut usize);
    fn cuCtxSynchronize();
    fn cuStreamCreateWithPriority(stream: &mut usize, flags: u32, priority: i32);
    fn cuStreamDestroy_v2(stream: usize);
    fn cuStreamSynchronize(stream: usize);
    fn cuStreamQuery(stream: usize);
    fn cuStreamWaitEvent(stream: usize, event: usize, flags: u32);
    fn cuEventCreate(event: &mut usize, flags: u32);
    fn cuEventRecord(event: usize, stream: usize);
    fn cuEventQuery(event: usize);
    fn cuEventSynchronize(event: usize);
    fn cuEventElapsedTime(milliseconds: &mut f32, start: usize, end: usize);
    fn cuEventDestroy_v2(event: usize);
    fn cuLaunchHostFunc(stream: usize, function: extern "C" fn(*mut c_void), argument: *const c_void);
    fn cuMemAlloc_v2(address: &mut u64, len: usize);
    fn cuMemAllocManaged(address: &mut u64, len: usize, flags: u32);
    fn cuMemFree_v2(address: u64);
    fn cuMemGetInfo_v2(free: &mut usize, total: &mut usize);
    fn cuMemGetAddressRange_v2(base: &mut u64, len: &mut usize, address: u64);
    fn cuMemHostAlloc(memory: &mut u64, len: usize, flags: u32);
    fn cuMemFreeHost(memory: u64);
    fn cuMemcpyHtoD_v2(to: u64, from: *const u8, len: usize);
    fn cuMemcpyDtoH_v2(to: *mut u8, from: u64, len: usize);
    fn cuMemcpyDtoD_v2(to: u64, from: u64, len: usize);
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len: usize, stream: usize);
    fn cuMemcpyAsync(to: u64, from: u64, len: usize, stream: usize);
    fn cuMemsetD8_v2(address: u64, value: u8, len: usize);
    fn cuPointerGetAttribute(value: *mut u8, attribute: u32, address: u64);
    fn cuPointerGetAttributes(count: u32, attributes: *const u32, values: *const *mut u8, address: u64);
    fn cuIpcGetMemHandle(handle: &mut IpcHandle, address: u64);
    fn cuIpcOpenMemHandle_v2(address: &mut u64, handle: IpcHandle, flags: u32);
    fn cuIpcCloseMemHandle(address: u64);
    fn cuMemCreate(handle: &mut u64, len: usize, properties: &Properties, flags: u64);
    fn cuMemRelease(handle: u64);
    fn cuMemRetainAllocationHandle(handle: &mut u64, address: u64);
    fn cuMemAddressReserve(address: &mut u64, len: usize, alignment: usize, wish: u64, flags: u64);
    fn cuMemAddressFree(address: u64, len: usize);
    fn cuMemMap(address: u64, len: usize, offset: usize, handle: u64, flags: u64);
    fn cuMemUnmap(address: u64, len: usize);
    fn cuMemSetAccess(address: u64, len: usize, descs: &AccessDesc, count: usize);
    fn cuMemExportToShareableHandle(shared: *mut u8, handle: u64, kind: u32, flags: u64);
    fn cuMemImportFromShareableHandle(handle: &mut u64, shared: usize, kind: u32);
    fn cuModuleLoadData(module: &mut usize, image: *const c_char);
    fn cuModuleGetFunction(function: &mut usize, module: usize, name: *const c_char);
    fn cuLaunchKernel(
        function: usize,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared_bytes: u32,
        stream: usize,
        parameters: *const *const c_void,
        extra: usize,
    );
}
