//! The kernels as a device has them: PTX that the driver has compiled for it.
//!
//! What this build has compiled itself goes first, and what is committed, which the oldest driver takes, where the
//! driver refuses that.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use cudarc::driver::sys::{CUfunction, CUjit_option};

use super::kernels::{self, BLOCK_THREADS};
use super::stream::Stream;
use super::{Device, DeviceError};

/// See the [module](self). Stays loaded for as long as the process lives.
pub(super) struct Program {
    copy: CUfunction,
}

// SAFETY: a handle into a module that is never unloaded; CUDA's driver lets any thread launch it.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    /// Loads the kernels into the device's context, which compiles them: takes long, once.
    pub fn load(device: &Device) -> Result<Self, DeviceError> {
        let _current = device.enter()?;
        if let Some(ptx) = kernels::BUILT_PTX {
            match Self::load_ptx(device, ptx) {
                Ok(program) => return Ok(program),
                Err(error) => tracing::info!("{error}; the kernels that Baton brings along serve instead"),
            }
        }
        Self::load_ptx(device, kernels::COMMITTED_PTX)
    }

    fn load_ptx(device: &Device, ptx: &str) -> Result<Self, DeviceError> {
        let driver = device.driver();
        let nul = |_| DeviceError::ours("cuModuleLoadDataEx", Some(device.ordinal()), "the PTX holds a NUL");
        let ptx = CString::new(ptx).map_err(nul)?;
        let mut log: [c_char; LOG_BYTES] = [0; LOG_BYTES];
        let options =
            [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let options = options.map(|option| option as u32);
        let values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(LOG_BYTES)];
        let mut module = ptr::null_mut();
        // SAFETY: a valid place to write to, a C string of PTX, and as many options as values: a buffer and its length.
        // Our context is current.
        let code = unsafe {
            (driver.module_load)(&mut module, ptx.as_ptr().cast(), 2, options.as_ptr(), values.as_ptr())
        };
        device.check("cuModuleLoadDataEx", code).map_err(|error| error.with(first_line(&log)))?;
        let mut copy = ptr::null_mut();
        // SAFETY: a valid place to write to, a module that lives, a C string.
        let code = unsafe { (driver.module_function)(&mut copy, module, kernels::COPY.as_ptr()) };
        device.check("cuModuleGetFunction", code)?;
        Ok(Self { copy })
    }

    /// Puts one launch of the copy kernel into a stream: `count` entries at `list`. Our context is current.
    ///
    /// # Safety
    /// The device may read the list and what its entries copy from, and write what they copy to, until the launch is
    /// done.
    pub unsafe fn copy(
        &self,
        device: &Device,
        stream: &Stream,
        list: u64,
        count: usize,
    ) -> Result<(), DeviceError> {
        let too_many =
            |_| DeviceError::ours("cuLaunchKernel", Some(device.ordinal()), format!("{count} copies"));
        let (mut list, mut entries) = (list, u32::try_from(count).map_err(too_many)?);
        let mut arguments = [(&raw mut list).cast::<c_void>(), (&raw mut entries).cast::<c_void>()];
        let grid = kernels::grid(count);
        // SAFETY: a kernel of ours with its two arguments, which the driver copies; the caller answers for the rest.
        let code = unsafe {
            (device.driver().launch)(
                self.copy,
                grid,
                1,
                1,
                BLOCK_THREADS,
                1,
                1,
                0,
                stream.raw(),
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        device.check("cuLaunchKernel", code).map_err(|error| error.with(format!("{count} copies")))
    }
}

/// Room for what the driver's compiler has to say.
const LOG_BYTES: usize = 4096;

fn first_line(log: &[c_char; LOG_BYTES]) -> String {
    let bytes = log.map(|byte| byte as u8);
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}
