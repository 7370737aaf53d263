//! The exported functions: what C sees, whether a call needs `cuInit` (`ready`) or a context (`within`), and where it is
//! done. Names and parameters are those of `cuda.h`; results are plain numbers, and so are handles.
#![allow(non_snake_case, reason = "the names of cuda.h")]

use std::ffi::{c_char, c_void};

use crate::backing::Handle;
use crate::boundary::{In, Out, Text};
use crate::ipc::IpcHandle;
use crate::virtual_memory::{AccessDesc, Location, Properties};
use crate::{
    calls, code, context, copy, device, driver, event, host_memory, ipc, launch, memory, module, pointer,
    stream, virtual_memory,
};

const _: () = assert!(size_of::<Properties>() == 32 && size_of::<AccessDesc>() == 12);
const _: () = assert!(size_of::<IpcHandle>() == 64 && size_of::<Handle>() == 64);

macro_rules! driver {
    ($($need:ident fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $implementation:path;)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $type),*) -> u32 {
                calls::$need(stringify!($name), |scope| $implementation(scope, $($argument),*))
            }
        )*

        /// The address of an exported function.
        pub fn symbol(name: &str) -> Option<usize> {
            $(if name == stringify!($name) {
                return Some($name as *const () as usize);
            })*
            (name == "cuLaunchKernel").then_some(cuLaunchKernel as *const () as usize)
        }
    };
}

type HostFunction = Option<extern "C" fn(*mut c_void)>;

driver! {
    bare fn cuInit(flags: u32) = driver::init;
    bare fn cuDriverGetVersion(version: Out<i32>) = driver::version;
    bare fn cuGetErrorName(error: u32, text: Out<*const c_char>) = code::name;
    bare fn cuGetErrorString(error: u32, text: Out<*const c_char>) = code::description;
    bare fn cuGetProcAddress_v2(name: Text, function: Out<usize>, version: i32, flags: u64, status: Out<u32>)
        = driver::address_of;

    ready fn cuDeviceGetCount(count: Out<i32>) = device::count;
    ready fn cuDeviceGet(device: Out<i32>, ordinal: i32) = device::by_ordinal;
    ready fn cuDeviceGetByPCIBusId(device: Out<i32>, id: Text) = device::by_bus_id;
    ready fn cuDeviceGetName(name: Out<c_char>, len: i32, device: i32) = device::name;
    ready fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: i32) = device::uuid;
    ready fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) = device::uuid;
    ready fn cuDeviceGetPCIBusId(id: Out<c_char>, len: i32, device: i32) = device::pci_bus_id;
    ready fn cuDeviceGetAttribute(value: Out<i32>, attribute: u32, device: i32) = device::attribute;
    ready fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: i32) = device::total_memory;
    ready fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) = device::can_access_peer;

    ready fn cuDevicePrimaryCtxRetain(context: Out<usize>, device: i32) = context::retain;
    ready fn cuDevicePrimaryCtxRelease_v2(device: i32) = context::release;
    ready fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) = context::state;
    ready fn cuCtxGetCurrent(context: Out<usize>) = context::current_handle;
    ready fn cuCtxSetCurrent(context: usize) = context::set_current;
    ready fn cuCtxPushCurrent_v2(context: usize) = context::push_current;
    ready fn cuCtxPopCurrent_v2(context: Out<usize>) = context::pop_current;
    ready fn cuCtxGetDevice(device: Out<i32>) = context::device_of_current;
    within fn cuCtxEnablePeerAccess(peer: usize, flags: u32) = context::enable_peer_access;
    within fn cuCtxDisablePeerAccess(peer: usize) = context::disable_peer_access;
    within fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) = context::stream_priorities;
    ready fn cuThreadExchangeStreamCaptureMode(mode: Out<u32>) = context::exchange_capture_mode;
    within fn cuCtxSynchronize() = context::synchronize;
    within fn cuFlushGPUDirectRDMAWrites(target: u32, scope: u32) = context::flush_remote_writes;

    within fn cuStreamCreate(stream: Out<usize>, flags: u32) = stream::create;
    within fn cuStreamCreateWithPriority(stream: Out<usize>, flags: u32, priority: i32)
        = stream::create_with_priority;
    within fn cuStreamGetPriority(stream: usize, priority: Out<i32>) = stream::priority;
    within fn cuStreamDestroy_v2(stream: usize) = stream::destroy;
    within fn cuStreamSynchronize(stream: usize) = stream::synchronize;
    within fn cuStreamQuery(stream: usize) = stream::query;
    within fn cuStreamWaitEvent(stream: usize, event: usize, flags: u32) = event::hold_stream;
    within fn cuEventCreate(event: Out<usize>, flags: u32) = event::create;
    within fn cuEventDestroy_v2(event: usize) = event::destroy;
    within fn cuEventRecord(event: usize, stream: usize) = event::record;
    within fn cuEventQuery(event: usize) = event::query;
    within fn cuEventSynchronize(event: usize) = event::synchronize;
    within fn cuEventElapsedTime(milliseconds: Out<f32>, start: usize, end: usize) = event::elapsed;
    within fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: usize, end: usize) = event::elapsed;
    within fn cuLaunchHostFunc(stream: usize, function: HostFunction, argument: usize) = launch::host_function;

    within fn cuMemAlloc_v2(address: Out<u64>, len: usize) = memory::allocate;
    within fn cuMemFree_v2(address: u64) = memory::free;
    within fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) = memory::info;
    ready fn cuMemGetAddressRange_v2(base: Out<u64>, len: Out<usize>, address: u64) = memory::extent;
    within fn cuMemAllocManaged(address: Out<u64>, len: usize, flags: u32) = host_memory::allocate_managed;
    within fn cuMemHostAlloc(memory: Out<u64>, len: usize, flags: u32) = host_memory::allocate;
    within fn cuMemAllocHost_v2(memory: Out<u64>, len: usize) = host_memory::allocate_plain;
    within fn cuMemFreeHost(memory: usize) = host_memory::free;
    within fn cuMemHostRegister_v2(memory: usize, len: usize, flags: u32) = host_memory::register;
    within fn cuMemHostUnregister(memory: usize) = host_memory::unregister;
    within fn cuMemHostGetDevicePointer_v2(device: Out<u64>, memory: usize, flags: u32)
        = host_memory::device_pointer;
    within fn cuMemHostGetFlags(flags: Out<u32>, memory: usize) = host_memory::flags;

    within fn cuMemcpyHtoD_v2(to: u64, from: In<u8>, len: usize) = copy::to_device;
    within fn cuMemcpyDtoH_v2(to: In<u8>, from: u64, len: usize) = copy::to_host;
    within fn cuMemcpyDtoD_v2(to: u64, from: u64, len: usize) = copy::within_devices;
    within fn cuMemcpy(to: u64, from: u64, len: usize) = copy::any;
    within fn cuMemcpyHtoDAsync_v2(to: u64, from: In<u8>, len: usize, stream: usize) = copy::to_device_async;
    within fn cuMemcpyDtoHAsync_v2(to: In<u8>, from: u64, len: usize, stream: usize) = copy::to_host_async;
    within fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len: usize, stream: usize) = copy::within_devices_async;
    within fn cuMemcpyAsync(to: u64, from: u64, len: usize, stream: usize) = copy::any_async;
    within fn cuMemsetD8_v2(address: u64, value: u8, len: usize) = copy::fill;
    within fn cuMemsetD8Async(address: u64, value: u8, len: usize, stream: usize) = copy::fill_async;

    ready fn cuPointerGetAttribute(value: Out<u8>, attribute: u32, address: u64) = pointer::attribute;
    ready fn cuPointerGetAttributes(count: u32, attributes: In<u32>, values: In<Out<u8>>, address: u64)
        = pointer::attributes;
    ready fn cuPointerSetAttribute(value: In<u32>, attribute: u32, address: u64) = pointer::set_attribute;

    within fn cuIpcGetMemHandle(handle: Out<IpcHandle>, address: u64) = ipc::handle;
    within fn cuIpcOpenMemHandle_v2(address: Out<u64>, handle: IpcHandle, flags: u32) = ipc::open;
    within fn cuIpcCloseMemHandle(address: u64) = ipc::close;

    ready fn cuMemCreate(handle: Out<u64>, len: usize, properties: In<Properties>, flags: u64)
        = virtual_memory::create;
    ready fn cuMemRelease(handle: u64) = virtual_memory::release;
    ready fn cuMemRetainAllocationHandle(handle: Out<u64>, address: usize) = virtual_memory::retain;
    ready fn cuMemGetAllocationPropertiesFromHandle(properties: Out<Properties>, handle: u64)
        = virtual_memory::properties;
    ready fn cuMemGetAllocationGranularity(len: Out<usize>, properties: In<Properties>, option: u32)
        = virtual_memory::granularity;
    ready fn cuMemAddressReserve(address: Out<u64>, len: usize, alignment: usize, wish: u64, flags: u64)
        = virtual_memory::reserve;
    ready fn cuMemAddressFree(address: u64, len: usize) = virtual_memory::unreserve;
    ready fn cuMemMap(address: u64, len: usize, offset: usize, handle: u64, flags: u64) = virtual_memory::map;
    ready fn cuMemUnmap(address: u64, len: usize) = virtual_memory::unmap;
    ready fn cuMemSetAccess(address: u64, len: usize, descs: In<AccessDesc>, count: usize)
        = virtual_memory::set_access;
    ready fn cuMemGetAccess(flags: Out<u64>, location: In<Location>, address: u64) = virtual_memory::access;
    ready fn cuMemExportToShareableHandle(shared: Out<u8>, handle: u64, kind: u32, flags: u64)
        = virtual_memory::export;
    ready fn cuMemImportFromShareableHandle(handle: Out<u64>, shared: In<c_void>, kind: u32)
        = virtual_memory::import;

    within fn cuModuleLoadData(module: Out<usize>, image: Text) = module::load;
    within fn cuModuleLoadDataEx(
        module: Out<usize>,
        image: Text,
        options: u32,
        names: In<u32>,
        values: In<*const c_void>,
    ) = module::load_with;
    within fn cuModuleUnload(module: usize) = module::unload;
    within fn cuModuleGetFunction(function: Out<usize>, module: usize, name: Text) = module::function;
    within fn cuFuncGetAttribute(value: Out<i32>, attribute: u32, function: usize) = module::function_attribute;
}

/// Apart, for its many parameters.
#[unsafe(no_mangle)]
unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    _shared_bytes: u32,
    stream: usize,
    parameters: In<In<u8>>,
    extra: In<c_void>,
) -> u32 {
    calls::within("cuLaunchKernel", |context| {
        let (grid, block) = ((grid_x, grid_y, grid_z), (block_x, block_y, block_z));
        launch::kernel(context, function, grid, block, stream, parameters, extra)
    })
}
