//! What a host does with CUDA and Baton does not: contexts of its threads, managed memory, virtual memory management.

use std::ffi::{c_int, c_void};
use std::ptr;

use baton::desc::Span;
use baton::device::Device;
use cudarc::driver::sys::{
    CUcontext, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationHandleType, CUmemAllocationProp,
    CUmemAllocationType, CUmemLocation, CUmemLocationType,
};
use libloading::os::unix::{Library, RTLD_NOW};

/// Calls a function of the driver that this process has open; its failure is the test's.
macro_rules! call {
    ($name:literal ($($type:ty: $value:expr),* $(,)?)) => {{
        let name = concat!($name, "\0");
        // SAFETY: the functions are called with the types that cuda.h gives them.
        let code = unsafe {
            let function = driver().get::<unsafe extern "C" fn($($type),*) -> u32>(name.as_bytes());
            function.expect($name)($($value),*)
        };
        assert_eq!(code, 0, "{}", $name);
    }};
}

fn driver() -> Library {
    // SAFETY: it is loaded already.
    unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW | libc::RTLD_NOLOAD) }.expect("the driver is open")
}

/// The context that is current on this thread.
pub fn current() -> CUcontext {
    let mut context = ptr::null_mut();
    call!("cuCtxGetCurrent"(*mut CUcontext: &mut context));
    context
}

/// Makes the primary context of a device current on this thread, as a host does.
pub fn make_current(device: &Device) -> CUcontext {
    let mut context = ptr::null_mut();
    call!("cuDevicePrimaryCtxRetain"(*mut CUcontext: &mut context, c_int: device.ordinal() as c_int));
    call!("cuCtxSetCurrent"(CUcontext: context));
    context
}

/// The mode of this thread towards captures of CUDA graphs.
pub fn capture_mode() -> u32 {
    let mut mode = 0;
    call!("cuThreadExchangeStreamCaptureMode"(*mut u32: &mut mode));
    let mut again = mode;
    call!("cuThreadExchangeStreamCaptureMode"(*mut u32: &mut again));
    mode
}

/// Managed memory. Needs a context; never freed.
pub fn managed(len: usize) -> u64 {
    let (mut addr, global) = (0, 1);
    call!("cuMemAllocManaged"(*mut u64: &mut addr, usize: len, u32: global));
    addr
}

/// Which handles a chunk can be shared by.
#[derive(Clone, Copy)]
pub enum Handles {
    None,
    Fd,
    FdOrFabric,
}

/// Chunks of device memory, mapped side by side. Never unmapped.
pub struct Chunks {
    pub base: u64,
    pub chunk: u64,
    pub count: u64,
}

impl Chunks {
    /// One chunk, as short as there are, on each of these devices, for all of them to use.
    pub fn new(on: &[&Device], handles: Handles) -> Self {
        let chunk = granularity(on[0], handles);
        let mut base = 0;
        let len = chunk * on.len();
        call!("cuMemAddressReserve"(
            *mut u64: &mut base, usize: len, usize: 0, u64: 0, u64: 0,
        ));
        for (at, device) in on.iter().enumerate() {
            let mut handle = 0;
            call!("cuMemCreate"(
                *mut u64: &mut handle, usize: chunk, *const CUmemAllocationProp: &properties(device, handles), u64: 0,
            ));
            let addr = base + (at * chunk) as u64;
            call!("cuMemMap"(u64: addr, usize: chunk, usize: 0, u64: handle, u64: 0));
            call!("cuMemRelease"(u64: handle));
        }
        let access: Vec<CUmemAccessDesc> = on.iter().map(|device| access(device)).collect();
        call!("cuMemSetAccess"(
            u64: base, usize: len, *const CUmemAccessDesc: access.as_ptr(), usize: access.len(),
        ));
        Self { base, chunk: chunk as u64, count: on.len() as u64 }
    }

    pub fn span(&self) -> Span {
        Span { addr: self.base, len: self.chunk * self.count }
    }
}

fn granularity(device: &Device, handles: Handles) -> usize {
    let (mut len, minimum) = (0, 0);
    call!("cuMemGetAllocationGranularity"(
        *mut usize: &mut len, *const CUmemAllocationProp: &properties(device, handles), u32: minimum,
    ));
    len
}

fn location(device: &Device) -> CUmemLocation {
    CUmemLocation { type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device.ordinal() as c_int }
}

fn properties(device: &Device, handles: Handles) -> CUmemAllocationProp {
    // SAFETY: all fields are plain data for which zero is valid.
    let mut properties: CUmemAllocationProp = unsafe { std::mem::zeroed() };
    let (fd, fabric) = (
        CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.0,
        CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_FABRIC.0,
    );
    properties.type_ = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = location(device);
    properties.win32HandleMetaData = ptr::null_mut::<c_void>();
    properties.requestedHandleTypes = CUmemAllocationHandleType(match handles {
        Handles::None => 0,
        Handles::Fd => fd,
        Handles::FdOrFabric => fd | fabric,
    });
    properties
}

fn access(device: &Device) -> CUmemAccessDesc {
    CUmemAccessDesc {
        location: location(device),
        flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    }
}
