//! What a host does with CUDA and Baton does not: contexts of its threads, virtual memory management, plain copies. Never
//! through Baton's own code, which is what is checked.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;
use std::sync::OnceLock;

use cudarc::driver::sys::{
    CUcontext, CUdevice_attribute, CUevent, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationHandleType,
    CUmemAllocationProp, CUmemAllocationType, CUmemLocation, CUmemLocationType, CUmodule, CUstream,
};
use libloading::os::unix::{Library, RTLD_NOW};

macro_rules! functions {
    ($($name:ident($($argument:ty),* $(,)?);)*) => {
        /// The driver's functions, by their names there.
        #[allow(non_snake_case)]
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) -> u32,)*
        }

        impl Functions {
            fn load(library: &Library) -> Result<Self, String> {
                Ok(Self {
                    $($name: {
                        // SAFETY: the types are those of cuda.h for a function of this name.
                        let symbol = unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) };
                        *symbol.map_err(|error| error.to_string())?
                    },)*
                })
            }
        }
    };
}

functions! {
    cuCtxSetCurrent(CUcontext);
    cuCtxSynchronize();
    cuDeviceGetAttribute(*mut c_int, u32, c_int);
    cuDeviceTotalMem_v2(*mut usize, c_int);
    cuDevicePrimaryCtxRetain(*mut CUcontext, c_int);
    cuEventCreate(*mut CUevent, c_uint);
    cuEventElapsedTime(*mut f32, CUevent, CUevent);
    cuEventRecord(CUevent, CUstream);
    cuEventSynchronize(CUevent);
    cuMemAddressFree(u64, usize);
    cuMemAddressReserve(*mut u64, usize, usize, u64, u64);
    cuMemAlloc_v2(*mut u64, usize);
    cuMemCreate(*mut u64, usize, *const CUmemAllocationProp, u64);
    cuMemFree_v2(u64);
    cuMemGetAllocationGranularity(*mut usize, *const CUmemAllocationProp, u32);
    cuMemGetInfo_v2(*mut usize, *mut usize);
    cuMemMap(u64, usize, usize, u64, u64);
    cuMemRelease(u64);
    cuMemSetAccess(u64, usize, *const CUmemAccessDesc, usize);
    cuMemUnmap(u64, usize);
    cuMemcpyDtoDAsync_v2(u64, u64, usize, CUstream);
    cuMemcpyDtoH_v2(*mut c_void, u64, usize);
    cuMemcpyHtoD_v2(u64, *const c_void, usize);
    cuModuleGetFunction(*mut *mut c_void, CUmodule, *const c_char);
    cuModuleLoadData(*mut CUmodule, *const c_void);
    cuModuleUnload(CUmodule);
}

/// The driver that this process has open.
pub struct Raw {
    functions: Functions,
}

static RAW: OnceLock<Result<Raw, String>> = OnceLock::new();

/// The driver, once Baton has opened it.
pub fn raw() -> Result<&'static Raw, String> {
    RAW.get_or_init(Raw::open).as_ref().map_err(Clone::clone)
}

/// What the driver has returned.
fn check(call: &str, code: u32) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{call}: error {code} of CUDA's")) }
}

macro_rules! call {
    ($raw:expr, $name:ident($($argument:expr),*)) => {
        // SAFETY: the functions are called as cuda.h says; whoever calls them here answers for addresses and handles, which
        // are this process's own.
        check(stringify!($name), unsafe { ($raw.functions.$name)($($argument),*) })
    };
}

impl Raw {
    fn open() -> Result<Self, String> {
        // SAFETY: it is loaded already, so nothing runs.
        let library = unsafe { Library::open(Some("libcuda.so.1"), RTLD_NOW | libc::RTLD_NOLOAD) };
        let library = library.map_err(|error| format!("libcuda is not loaded: {error}"))?;
        let functions = Functions::load(&library)?;
        std::mem::forget(library);
        Ok(Self { functions })
    }

    /// Makes the primary context of a device current on this thread, for as long as the thread lives.
    pub fn enter(&self, device: u32) -> Result<(), String> {
        let mut context = ptr::null_mut();
        call!(self, cuDevicePrimaryCtxRetain(&mut context, device as c_int))?;
        call!(self, cuCtxSetCurrent(context))
    }

    /// Compute capability, such as `9.0`.
    pub fn capability(&self, device: u32) -> Result<String, String> {
        use CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let (mut major, mut minor) = (0, 0);
        call!(self, cuDeviceGetAttribute(&mut major, MAJOR as u32, device as c_int))?;
        call!(self, cuDeviceGetAttribute(&mut minor, MINOR as u32, device as c_int))?;
        Ok(format!("{major}.{minor}"))
    }

    /// Bytes of a device, and those that are free. Its context becomes current.
    pub fn memory(&self, device: u32) -> Result<(u64, u64), String> {
        let (mut total, mut free, mut whole) = (0, 0, 0);
        call!(self, cuDeviceTotalMem_v2(&mut whole, device as c_int))?;
        self.enter(device)?;
        call!(self, cuMemGetInfo_v2(&mut free, &mut total))?;
        Ok((whole as u64, free as u64))
    }

    /// Loads kernels and lets them go again; the driver compiles them.
    pub fn try_kernels(&self, ptx: &str, names: &[&CStr]) -> Result<(), String> {
        let ptx = CString::new(ptx).map_err(|error| error.to_string())?;
        let mut module = ptr::null_mut();
        call!(self, cuModuleLoadData(&mut module, ptx.as_ptr().cast()))?;
        let found = names.iter().try_for_each(|name| {
            let mut function = ptr::null_mut();
            call!(self, cuModuleGetFunction(&mut function, module, name.as_ptr()))
        });
        call!(self, cuModuleUnload(module)).and(found)
    }

    /// Device memory as `cudaMalloc` gives it.
    pub fn alloc(&self, len: u64) -> Result<u64, String> {
        let mut addr = 0;
        call!(self, cuMemAlloc_v2(&mut addr, len as usize))
            .map_err(|error| format!("{error} ({len} bytes)"))?;
        Ok(addr)
    }

    /// Gives it back.
    pub fn free(&self, addr: u64) -> Result<(), String> {
        call!(self, cuMemFree_v2(addr))
    }

    /// The shortest chunk of virtual memory management.
    pub fn granularity(&self, device: u32, shareable: bool) -> Result<u64, String> {
        let (mut len, minimum) = (0, 0);
        let properties = properties(device, shareable);
        call!(self, cuMemGetAllocationGranularity(&mut len, &properties, minimum))?;
        Ok(len as u64)
    }

    /// Chunks of `chunk` bytes, mapped side by side.
    pub fn map_chunks(
        &self,
        device: u32,
        shareable: bool,
        (chunk, count): (u64, u64),
    ) -> Result<u64, String> {
        let (mut base, len) = (0, (chunk * count) as usize);
        call!(self, cuMemAddressReserve(&mut base, len, 0, 0, 0))?;
        let properties = properties(device, shareable);
        for at in 0..count {
            let mut handle = 0;
            call!(self, cuMemCreate(&mut handle, chunk as usize, &properties, 0))?;
            let mapped = call!(self, cuMemMap(base + at * chunk, chunk as usize, 0, handle, 0));
            call!(self, cuMemRelease(handle)).and(mapped)?;
        }
        let access = CUmemAccessDesc {
            location: location(device),
            flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        call!(self, cuMemSetAccess(base, len, &access, 1))?;
        Ok(base)
    }

    /// Gives them back.
    pub fn unmap_chunks(&self, base: u64, (chunk, count): (u64, u64)) -> Result<(), String> {
        for at in 0..count {
            call!(self, cuMemUnmap(base + at * chunk, chunk as usize))?;
        }
        call!(self, cuMemAddressFree(base, (chunk * count) as usize))
    }

    /// Copies to a device; there when it returns.
    pub fn write(&self, to: u64, bytes: &[u8]) -> Result<(), String> {
        call!(self, cuMemcpyHtoD_v2(to, bytes.as_ptr().cast(), bytes.len()))?;
        call!(self, cuCtxSynchronize())
    }

    /// Copies from a device.
    pub fn read(&self, from: u64, bytes: &mut [u8]) -> Result<(), String> {
        call!(self, cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), from, bytes.len()))
    }

    /// How long one copy of the driver's takes on the device, in nanoseconds: the best of several.
    pub fn time_copies(&self, to: u64, from: u64, len: u64, repeats: u32) -> Result<f64, String> {
        let (mut begin, mut end) = (ptr::null_mut(), ptr::null_mut());
        call!(self, cuEventCreate(&mut begin, 0))?;
        call!(self, cuEventCreate(&mut end, 0))?;
        let default = ptr::null_mut();
        let mut best = f64::INFINITY;
        for _ in 0..repeats.max(1) {
            call!(self, cuEventRecord(begin, default))?;
            call!(self, cuMemcpyDtoDAsync_v2(to, from, len as usize, default))?;
            call!(self, cuEventRecord(end, default))?;
            call!(self, cuEventSynchronize(end))?;
            let mut ms = 0.0_f32;
            call!(self, cuEventElapsedTime(&mut ms, begin, end))?;
            best = best.min(f64::from(ms) * 1e6);
        }
        Ok(best)
    }
}

fn location(device: u32) -> CUmemLocation {
    CUmemLocation { type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device as c_int }
}

fn properties(device: u32, shareable: bool) -> CUmemAllocationProp {
    // SAFETY: all fields are plain data for which zero is valid.
    let mut properties: CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location = location(device);
    properties.requestedHandleTypes = match shareable {
        true => CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR,
        false => CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
    };
    properties
}
