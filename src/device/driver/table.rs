//! The driver's functions that Baton uses, by the names under which the library exports them.
//!
//! Types are cudarc's; results are plain numbers, because a code that its enum does not know would be undefined
//! behaviour, and so is every other enum that the driver *writes*.

use std::ffi::{c_char, c_int, c_uint, c_void};

use cudarc::driver::sys::{
    CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUhostFn, CUipcMemHandle, CUmemAccessDesc,
    CUmemAllocationProp, CUmemGenericAllocationHandle, CUmodule, CUstream, CUuuid,
};
use libloading::os::unix::Library;

/// A result: 0 is success.
type Code = u32;

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $symbol:literal ($($argument:ty),* $(,)?);)*) => {
        /// See the [module](self).
        pub(in crate::device) struct Functions {
            $($(#[$doc])* pub $name: unsafe extern "C" fn($($argument),*) -> Code,)*
        }

        impl Functions {
            /// Resolves all of them; the name of the first that is missing otherwise.
            pub fn load(library: &Library) -> Result<Self, &'static str> {
                Ok(Self {
                    $($name: {
                        // SAFETY: a function of this name has this signature in every driver from CUDA 12.0 on:
                        // NVIDIA gives a changed signature a new name, with a suffix.
                        let symbol = unsafe { library.get(concat!($symbol, "\0").as_bytes()) };
                        *symbol.map_err(|_| $symbol)?
                    },)*
                })
            }
        }
    };
}

functions! {
    // The library, and its devices.
    init = "cuInit"(c_uint);
    driver_version = "cuDriverGetVersion"(*mut c_int);
    error_name = "cuGetErrorName"(Code, *mut *const c_char);
    device_count = "cuDeviceGetCount"(*mut c_int);
    device = "cuDeviceGet"(*mut CUdevice, c_int);
    device_name = "cuDeviceGetName"(*mut c_char, c_int, CUdevice);
    device_uuid = "cuDeviceGetUuid_v2"(*mut CUuuid, CUdevice);
    device_pci_bus_id = "cuDeviceGetPCIBusId"(*mut c_char, c_int, CUdevice);
    device_attribute = "cuDeviceGetAttribute"(*mut c_int, u32, CUdevice);
    device_can_access_peer = "cuDeviceCanAccessPeer"(*mut c_int, CUdevice, CUdevice);

    // Contexts.
    primary_context_retain = "cuDevicePrimaryCtxRetain"(*mut CUcontext, CUdevice);
    context_push = "cuCtxPushCurrent_v2"(CUcontext);
    context_pop = "cuCtxPopCurrent_v2"(*mut CUcontext);
    stream_priority_range = "cuCtxGetStreamPriorityRange"(*mut c_int, *mut c_int);
    exchange_capture_mode = "cuThreadExchangeStreamCaptureMode"(*mut u32);
    flush_remote_writes = "cuFlushGPUDirectRDMAWrites"(u32, u32);

    // What lies behind an address.
    pointer_attributes = "cuPointerGetAttributes"(c_uint, *const u32, *const *mut c_void, CUdeviceptr);

    // Memory of one process.
    memory_alloc = "cuMemAlloc_v2"(*mut CUdeviceptr, usize);
    memory_free = "cuMemFree_v2"(CUdeviceptr);
    host_alloc = "cuMemHostAlloc"(*mut *mut c_void, usize, c_uint);
    host_free = "cuMemFreeHost"(*mut c_void);
    host_device_pointer = "cuMemHostGetDevicePointer_v2"(*mut CUdeviceptr, *mut c_void, c_uint);
    copy_to_device = "cuMemcpyHtoD_v2"(CUdeviceptr, *const c_void, usize);
    copy_to_host = "cuMemcpyDtoH_v2"(*mut c_void, CUdeviceptr, usize);

    // Memory shared between processes: legacy handles.
    ipc_handle = "cuIpcGetMemHandle"(*mut CUipcMemHandle, CUdeviceptr);
    ipc_open = "cuIpcOpenMemHandle_v2"(*mut CUdeviceptr, CUipcMemHandle, c_uint);
    ipc_close = "cuIpcCloseMemHandle"(CUdeviceptr);

    // Memory shared between processes: virtual memory management.
    vmm_retain = "cuMemRetainAllocationHandle"(*mut CUmemGenericAllocationHandle, *mut c_void);
    vmm_release = "cuMemRelease"(CUmemGenericAllocationHandle);
    vmm_properties =
        "cuMemGetAllocationPropertiesFromHandle"(*mut CUmemAllocationProp, CUmemGenericAllocationHandle);
    vmm_export = "cuMemExportToShareableHandle"(*mut c_void, CUmemGenericAllocationHandle, u32, u64);
    vmm_import = "cuMemImportFromShareableHandle"(*mut CUmemGenericAllocationHandle, *mut c_void, u32);
    vmm_reserve = "cuMemAddressReserve"(*mut CUdeviceptr, usize, usize, CUdeviceptr, u64);
    vmm_free = "cuMemAddressFree"(CUdeviceptr, usize);
    vmm_map = "cuMemMap"(CUdeviceptr, usize, usize, CUmemGenericAllocationHandle, u64);
    vmm_unmap = "cuMemUnmap"(CUdeviceptr, usize);
    vmm_set_access = "cuMemSetAccess"(CUdeviceptr, usize, *const CUmemAccessDesc, usize);

    // Streams and events.
    stream_create = "cuStreamCreateWithPriority"(*mut CUstream, c_uint, c_int);
    stream_destroy = "cuStreamDestroy_v2"(CUstream);
    stream_query = "cuStreamQuery"(CUstream);
    stream_wait_event = "cuStreamWaitEvent"(CUstream, CUevent, c_uint);
    stream_synchronize = "cuStreamSynchronize"(CUstream);
    event_create = "cuEventCreate"(*mut CUevent, c_uint);
    event_record = "cuEventRecord"(CUevent, CUstream);
    event_query = "cuEventQuery"(CUevent);
    event_destroy = "cuEventDestroy_v2"(CUevent);
    launch_host = "cuLaunchHostFunc"(CUstream, CUhostFn, *mut c_void);
    copy_async = "cuMemcpyAsync"(CUdeviceptr, CUdeviceptr, usize, CUstream);

    // Kernels.
    module_load = "cuModuleLoadDataEx"(*mut CUmodule, *const c_void, c_uint, *const u32, *const *mut c_void);
    module_function = "cuModuleGetFunction"(*mut CUfunction, CUmodule, *const c_char);
    launch = "cuLaunchKernel"(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void,
        *mut *mut c_void,
    );
}
