//! The driver's result codes.

use std::ffi::{CStr, c_char};

use crate::boundary::Out;
use crate::settings::Settings;

/// What a call of the driver returns, other than 0 for success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u32);

/// What an implementation returns.
pub type Outcome<T = ()> = Result<T, Code>;

macro_rules! codes {
    ($($value:literal $short:ident $name:literal $text:literal)*) => {
        #[allow(dead_code, reason = "the others are known by number")]
        impl Code {
            $(pub const $short: Code = Code($value);)*
        }

        /// Name and description of each code that is known, success first.
        const KNOWN: &[(u32, &CStr, &CStr)] = &[(0, c"CUDA_SUCCESS", c"no error"), $(($value, $name, $text),)*];
    };
}

codes! {
    1 INVALID_VALUE c"CUDA_ERROR_INVALID_VALUE" c"invalid argument"
    2 OUT_OF_MEMORY c"CUDA_ERROR_OUT_OF_MEMORY" c"out of memory"
    3 NOT_INITIALIZED c"CUDA_ERROR_NOT_INITIALIZED" c"initialization error"
    4 DEINITIALIZED c"CUDA_ERROR_DEINITIALIZED" c"driver shutting down"
    34 STUB_LIBRARY c"CUDA_ERROR_STUB_LIBRARY" c"CUDA driver is a stub library"
    46 DEVICE_UNAVAILABLE c"CUDA_ERROR_DEVICE_UNAVAILABLE" c"device is busy or unavailable"
    100 NO_DEVICE c"CUDA_ERROR_NO_DEVICE" c"no device is detected"
    101 INVALID_DEVICE c"CUDA_ERROR_INVALID_DEVICE" c"invalid device ordinal"
    200 INVALID_IMAGE c"CUDA_ERROR_INVALID_IMAGE" c"kernel image is invalid"
    201 INVALID_CONTEXT c"CUDA_ERROR_INVALID_CONTEXT" c"invalid device context"
    205 MAP_FAILED c"CUDA_ERROR_MAP_FAILED" c"mapping failed"
    208 ALREADY_MAPPED c"CUDA_ERROR_ALREADY_MAPPED" c"resource already mapped"
    209 NO_BINARY_FOR_GPU c"CUDA_ERROR_NO_BINARY_FOR_GPU" c"no kernel image for this device"
    214 ECC_UNCORRECTABLE c"CUDA_ERROR_ECC_UNCORRECTABLE" c"uncorrectable ECC error"
    217 PEER_ACCESS_UNSUPPORTED c"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED" c"no peer access between these devices"
    218 INVALID_PTX c"CUDA_ERROR_INVALID_PTX" c"PTX compilation failed"
    222 UNSUPPORTED_PTX_VERSION c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION" c"PTX of a newer toolchain"
    304 OPERATING_SYSTEM c"CUDA_ERROR_OPERATING_SYSTEM" c"an operating system call failed"
    400 INVALID_HANDLE c"CUDA_ERROR_INVALID_HANDLE" c"invalid resource handle"
    500 NOT_FOUND c"CUDA_ERROR_NOT_FOUND" c"named symbol not found"
    600 NOT_READY c"CUDA_ERROR_NOT_READY" c"device not ready"
    700 ILLEGAL_ADDRESS c"CUDA_ERROR_ILLEGAL_ADDRESS" c"an illegal memory access was met"
    702 LAUNCH_TIMEOUT c"CUDA_ERROR_LAUNCH_TIMEOUT" c"the launch took too long"
    704 PEER_ACCESS_ALREADY_ENABLED c"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED" c"peer access is enabled already"
    705 PEER_ACCESS_NOT_ENABLED c"CUDA_ERROR_PEER_ACCESS_NOT_ENABLED" c"peer access is not enabled"
    709 CONTEXT_IS_DESTROYED c"CUDA_ERROR_CONTEXT_IS_DESTROYED" c"context is destroyed"
    712 HOST_MEMORY_ALREADY_REGISTERED c"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED" c"host memory is registered already"
    713 HOST_MEMORY_NOT_REGISTERED c"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED" c"host memory is not registered"
    714 HARDWARE_STACK_ERROR c"CUDA_ERROR_HARDWARE_STACK_ERROR" c"hardware stack error"
    716 MISALIGNED_ADDRESS c"CUDA_ERROR_MISALIGNED_ADDRESS" c"misaligned address"
    719 LAUNCH_FAILED c"CUDA_ERROR_LAUNCH_FAILED" c"launch failure"
    800 NOT_PERMITTED c"CUDA_ERROR_NOT_PERMITTED" c"operation not permitted"
    801 NOT_SUPPORTED c"CUDA_ERROR_NOT_SUPPORTED" c"operation not supported"
    802 SYSTEM_NOT_READY c"CUDA_ERROR_SYSTEM_NOT_READY" c"system not yet initialized"
    803 SYSTEM_DRIVER_MISMATCH c"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" c"display driver and CUDA driver do not match"
    804 COMPAT_NOT_SUPPORTED c"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE" c"forward compatibility on unsupported hardware"
    999 UNKNOWN c"CUDA_ERROR_UNKNOWN" c"unknown error"
}

impl Code {
    /// Whether a context that has met it is lost: every later call on it returns the same.
    pub fn is_sticky(self) -> bool {
        const LOST: &[Code] = &[
            Code::ECC_UNCORRECTABLE,
            Code::ILLEGAL_ADDRESS,
            Code::LAUNCH_TIMEOUT,
            Code::HARDWARE_STACK_ERROR,
            Code::MISALIGNED_ADDRESS,
            Code::LAUNCH_FAILED,
        ];
        LOST.contains(&self)
    }
}

pub fn name(_: &'static Settings, error: u32, text: Out<*const c_char>) -> Outcome {
    told(error, text, |known| known.1)
}

pub fn description(_: &'static Settings, error: u32, text: Out<*const c_char>) -> Outcome {
    told(error, text, |known| known.2)
}

fn told(
    error: u32,
    text: Out<*const c_char>,
    part: impl Fn(&(u32, &'static CStr, &'static CStr)) -> &'static CStr,
) -> Outcome {
    let Some(known) = KNOWN.iter().find(|(code, ..)| *code == error) else {
        text.set(std::ptr::null())?;
        return Err(Code::INVALID_VALUE);
    };
    text.set(part(known).as_ptr())
}
