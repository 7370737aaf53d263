//! Files that a GPU reads and writes without host memory in between: libcufile (GPUDirect Storage), where a machine has it.
//!
//! These are our own declarations of the few functions that are used, as cufile.h of CUDA 12 and 13 has them. The library is
//! opened at run time, started once and never closed.
#![allow(unsafe_code)]

use std::ffi::{OsStr, c_int, c_void};
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use libloading::os::unix::{self, Library};

use super::{Device, DeviceError};

/// The library of this process, started. Any thread may use it.
pub struct CuFile {
    handle_register: unsafe extern "C" fn(*mut *mut c_void, *mut FileDescription) -> Outcome,
    handle_deregister: unsafe extern "C" fn(*mut c_void),
    read: unsafe extern "C" fn(*mut c_void, *mut c_void, usize, i64, i64) -> isize,
    write: unsafe extern "C" fn(*mut c_void, *const c_void, usize, i64, i64) -> isize,
}

/// A file of somebody's that cuFile knows, until this is dropped. The file has to stay open as long.
pub struct GpuFile {
    library: &'static CuFile,
    handle: NonNull<c_void>,
}

/// `CUfileError_t`: the first number says whether something failed, the second is CUDA's where CUDA is to blame.
#[repr(C)]
struct Outcome {
    code: c_int,
    cuda_code: u32,
}

/// `CUfileDescr_t`.
#[repr(C)]
struct FileDescription {
    kind: c_int,
    fd: FileNumber,
    operations: *const c_void,
}

/// Its union, as long as a pointer.
#[repr(C)]
union FileNumber {
    fd: c_int,
    handle: *mut c_void,
}

const _: () = {
    assert!(size_of::<Outcome>() == 8);
    assert!(size_of::<FileDescription>() == 24);
    assert!(std::mem::offset_of!(FileDescription, fd) == 8);
    assert!(std::mem::offset_of!(FileDescription, operations) == 16);
};

static CUFILE: OnceLock<Result<CuFile, DeviceError>> = OnceLock::new();

impl CuFile {
    /// The library, opened and started at the first call of the process; what came of that stays. Takes long.
    pub fn open() -> Result<&'static Self, DeviceError> {
        CUFILE.get_or_init(Self::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Self, DeviceError> {
        let library = load()?;
        let missing =
            |symbol: &str| DeviceError::ours("dlsym", None, format!("{SONAME} has no function {symbol}"));
        macro_rules! function {
            ($symbol:literal) => {{
                // SAFETY: a function of this name has this signature in every libcufile.so.0.
                let symbol = unsafe { library.get(concat!($symbol, "\0").as_bytes()) };
                *symbol.map_err(|_| missing($symbol))?
            }};
        }
        let driver_open: unsafe extern "C" fn() -> Outcome = function!("cuFileDriverOpen");
        let found = Self {
            handle_register: function!("cuFileHandleRegister"),
            handle_deregister: function!("cuFileHandleDeregister"),
            read: function!("cuFileRead"),
            write: function!("cuFileWrite"),
        };
        std::mem::forget(library);
        // SAFETY: it may be called at any time, and more than once.
        let outcome = unsafe { driver_open() };
        match outcome.code {
            0 | ALREADY_OPEN => Ok(found),
            _ => Err(refused("cuFileDriverOpen", &outcome)),
        }
    }

    /// Makes an open file known. It is the caller's, and may be known once at a time.
    pub fn register(&'static self, fd: RawFd) -> Result<GpuFile, DeviceError> {
        let mut description =
            FileDescription { kind: LINUX_FILE, fd: FileNumber { fd }, operations: ptr::null() };
        let mut handle = ptr::null_mut();
        // SAFETY: two valid places; the library checks the file.
        let outcome = unsafe { (self.handle_register)(&mut handle, &mut description) };
        match (outcome.code, NonNull::new(handle)) {
            (0, Some(handle)) => Ok(GpuFile { library: self, handle }),
            _ => Err(refused("cuFileHandleRegister", &outcome)),
        }
    }
}

impl GpuFile {
    /// Writes `len` bytes of a device's memory into the file, and returns when they are written.
    ///
    /// # Safety
    /// `len` bytes at `addr` are memory of this device, allocated until this returns, which nobody writes meanwhile.
    pub unsafe fn write(&self, device: &Device, addr: u64, len: u64, offset: u64) -> Result<(), DeviceError> {
        // SAFETY: the caller's promise; the handle is the library's own.
        self.all("cuFileWrite", device, len, offset, |size, at, done| unsafe {
            (self.library.write)(self.handle.as_ptr(), addr as *const c_void, size, at, done)
        })
    }

    /// Reads `len` bytes of the file into a device's memory, and returns when they are there. A file that ends before is an
    /// error.
    ///
    /// # Safety
    /// As for [`GpuFile::write`], and nobody reads that memory meanwhile.
    pub unsafe fn read(&self, device: &Device, addr: u64, len: u64, offset: u64) -> Result<(), DeviceError> {
        // SAFETY: the caller's promise; the handle is the library's own.
        self.all("cuFileRead", device, len, offset, |size, at, done| unsafe {
            (self.library.read)(self.handle.as_ptr(), addr as *mut c_void, size, at, done)
        })
    }

    /// Calls until all bytes are moved: `call(bytes, place in the file, place in memory)`.
    fn all(
        &self,
        call: &'static str,
        device: &Device,
        len: u64,
        offset: u64,
        step: impl Fn(usize, i64, i64) -> isize,
    ) -> Result<(), DeviceError> {
        let failed = |detail: String| DeviceError::ours(call, Some(device.ordinal()), detail);
        let _current = device.enter()?;
        let mut done = 0;
        while done < len {
            let size = (len - done).min(STEP_MAX_BYTES) as usize;
            let at = i64::try_from(offset + done).map_err(|_| failed("past the largest offset".into()))?;
            match step(size, at, done as i64) {
                moved @ 1.. => done += moved as u64,
                0 => return Err(failed(format!("the file ends at offset {}", offset + done))),
                -1 => return Err(failed(std::io::Error::last_os_error().to_string())),
                code => return Err(failed(format!("cuFile's error {}", -code))),
            }
        }
        Ok(())
    }
}

impl Drop for GpuFile {
    fn drop(&mut self) {
        // SAFETY: the library's own handle, not used after; nothing of it is under way.
        unsafe { (self.library.handle_deregister)(self.handle.as_ptr()) }
    }
}

// SAFETY: cuFile lets any thread use and deregister a handle.
unsafe impl Send for GpuFile {}

/// The copy that this process has already, else the system's.
fn load() -> Result<Library, DeviceError> {
    let open = |extra: c_int| {
        let flags = unix::RTLD_NOW | unix::RTLD_LOCAL | extra;
        // SAFETY: loading it runs its constructors, which set up its own state and may be run in any process.
        unsafe { Library::open(Some(OsStr::new(SONAME)), flags) }
    };
    open(libc::RTLD_NOLOAD).or_else(|_| open(0)).map_err(|error| {
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        DeviceError::ours("dlopen", None, reason)
    })
}

fn refused(call: &'static str, outcome: &Outcome) -> DeviceError {
    let cuda =
        if outcome.code == CUDA_ERROR { format!(", CUDA's {}", outcome.cuda_code) } else { String::new() };
    DeviceError::ours(call, None, format!("cuFile's error {}{cuda}", outcome.code))
}

/// The name that the dynamic linker knows it by.
const SONAME: &str = "libcufile.so.0";
/// `CU_FILE_HANDLE_TYPE_OPAQUE_FD`.
const LINUX_FILE: c_int = 1;
/// `CU_FILE_CUDA_DRIVER_ERROR` and `CU_FILE_DRIVER_ALREADY_OPEN`.
const CUDA_ERROR: c_int = 5011;
const ALREADY_OPEN: c_int = 5026;
/// Bytes per call.
const STEP_MAX_BYTES: u64 = 1 << 30;
