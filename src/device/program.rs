//! The kernels as a device has them: PTX that the driver has compiled for it.
//!
//! What this build has compiled itself goes first, and what is committed, which the oldest driver takes, where the
//! driver refuses that.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;

use cudarc::driver::sys::{CUfunction, CUjit_option};

use super::kernels::{self, BLOCK_THREADS, Rows};
use super::stream::Stream;
use super::{Device, DeviceError};

/// See the [module](self). Stays loaded for as long as the process lives.
pub(super) struct Program {
    copy: CUfunction,
    transform: CUfunction,
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
        let function = |name: &CStr| {
            let mut function = ptr::null_mut();
            // SAFETY: a valid place to write to, a module that lives, a C string.
            let code = unsafe { (driver.module_function)(&mut function, module, name.as_ptr()) };
            device.check("cuModuleGetFunction", code).map(|()| function)
        };
        Ok(Self { copy: function(kernels::COPY)?, transform: function(kernels::TRANSFORM)? })
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
        let (mut list, mut entries) = (list, counted(device, count)?);
        let mut arguments = [(&raw mut list).cast::<c_void>(), (&raw mut entries).cast::<c_void>()];
        // SAFETY: the kernel's two arguments; the caller answers for the rest.
        let code = unsafe { launch(device, stream, self.copy, kernels::grid(count), &mut arguments) };
        device.check("cuLaunchKernel", code).map_err(|error| error.with(format!("{count} copies")))
    }

    /// Puts one launch of the transform kernel into a stream, over `list`: its address and the number of its blocks, of
    /// which [`kernels::tiles`] can be told. Our context is current.
    ///
    /// # Safety
    /// The device may read the list and what its rows copy from, and write what they copy to, until the launch is done.
    pub unsafe fn transform(
        &self,
        device: &Device,
        stream: &Stream,
        (list, count): (u64, usize),
        rows: Rows,
    ) -> Result<(), DeviceError> {
        let (mut list, mut blocks, mut rows) = (list, counted(device, count)?, rows);
        let mut arguments = [
            (&raw mut list).cast::<c_void>(),
            (&raw mut blocks).cast::<c_void>(),
            (&raw mut rows).cast::<c_void>(),
        ];
        let tiles = usize::try_from(kernels::tiles(&rows).unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let grid = kernels::grid(tiles.saturating_mul(count));
        // SAFETY: the kernel's three arguments; the caller answers for the rest.
        let code = unsafe { launch(device, stream, self.transform, grid, &mut arguments) };
        device.check("cuLaunchKernel", code).map_err(|error| error.with(format!("{count} blocks")))
    }
}

/// The length of a list as kernels take it.
fn counted(device: &Device, count: usize) -> Result<u32, DeviceError> {
    let too_many =
        |_| DeviceError::ours("cuLaunchKernel", Some(device.ordinal()), format!("{count} entries"));
    u32::try_from(count).map_err(too_many)
}

/// Puts a launch of `grid` blocks into a stream; the driver copies the arguments.
///
/// # Safety
/// A kernel of ours, and as many valid arguments as it has; the device may do what it does until it is done.
unsafe fn launch(
    device: &Device,
    stream: &Stream,
    kernel: CUfunction,
    grid: u32,
    arguments: &mut [*mut c_void],
) -> u32 {
    let none = ptr::null_mut();
    let (threads, shared_bytes) = (BLOCK_THREADS, 0);
    // SAFETY: the caller answers for the kernel and its arguments; a stream that lives.
    unsafe {
        (device.driver().launch)(
            kernel,
            grid,
            1,
            1,
            threads,
            1,
            1,
            shared_bytes,
            stream.raw(),
            arguments.as_mut_ptr(),
            none,
        )
    }
}

/// Room for what the driver's compiler has to say.
const LOG_BYTES: usize = 4096;

fn first_line(log: &[c_char; LOG_BYTES]) -> String {
    let bytes = log.map(|byte| byte as u8);
    let text = CStr::from_bytes_until_nul(&bytes).map(CStr::to_string_lossy).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}
