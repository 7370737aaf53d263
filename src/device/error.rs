//! What can go wrong with CUDA, with the driver's own name for it and what to do.

use thiserror::Error;

use crate::error::FabricErrorKind;

/// A call into CUDA that failed, or what came before the first one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("CUDA: {call}{}: {}{}", on_device(*device), what(self), advice(*code))]
pub struct DeviceError {
    /// The function that failed, as its library spells it.
    pub call: &'static str,
    /// The driver's code; 0 where the failure is not the driver's.
    pub code: u32,
    /// The driver's name for the code; empty where there is none.
    pub name: String,
    /// The device it was about, where it was about one.
    pub device: Option<u32>,
    /// What a person needs beyond the code.
    pub detail: String,
}

impl DeviceError {
    /// A failure that is not one of the driver's codes.
    pub(super) fn ours(call: &'static str, device: Option<u32>, detail: impl Into<String>) -> Self {
        Self { call, code: 0, name: String::new(), device, detail: detail.into() }
    }

    /// The same, with what was being done.
    pub(super) fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Whether the context is lost: every call of this process on the device fails from now on, the host's too.
    pub fn is_sticky(&self) -> bool {
        matches!(self.code, ECC_UNCORRECTABLE | NVLINK_UNCORRECTABLE | ILLEGAL_ADDRESS..=LAUNCH_FAILED)
            && !NOT_LOST.contains(&self.code)
    }

    /// Which of the kinds that fabrics report this is.
    pub fn kind(&self) -> FabricErrorKind {
        match self.code {
            OUT_OF_MEMORY => FabricErrorKind::NoResource,
            NO_DEVICE
            | INVALID_DEVICE
            | NOT_PERMITTED
            | NOT_SUPPORTED
            | SYSTEM_DRIVER_MISMATCH
            | COMPAT_NOT_SUPPORTED
            | FABRIC_NOT_READY => FabricErrorKind::Unsupported,
            _ => FabricErrorKind::Internal,
        }
    }
}

/// Why a peer cannot be given access to an allocation: a text for a log line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct NotShareable(pub String);

impl From<DeviceError> for NotShareable {
    fn from(error: DeviceError) -> Self {
        Self(error.to_string())
    }
}

pub(super) const INVALID_VALUE: u32 = 1;
pub(super) const OUT_OF_MEMORY: u32 = 2;
pub(super) const NOT_INITIALIZED: u32 = 3;
pub(super) const DEINITIALIZED: u32 = 4;
const STUB_LIBRARY: u32 = 34;
const NO_DEVICE: u32 = 100;
const INVALID_DEVICE: u32 = 101;
const ECC_UNCORRECTABLE: u32 = 214;
const NVLINK_UNCORRECTABLE: u32 = 220;
pub(super) const NOT_READY: u32 = 600;
const ILLEGAL_ADDRESS: u32 = 700;
const LAUNCH_FAILED: u32 = 719;
const NOT_PERMITTED: u32 = 800;
const NOT_SUPPORTED: u32 = 801;
const SYSTEM_NOT_READY: u32 = 802;
const SYSTEM_DRIVER_MISMATCH: u32 = 803;
const COMPAT_NOT_SUPPORTED: u32 = 804;
const FABRIC_NOT_READY: u32 = 919;
const UNKNOWN: u32 = 999;

/// Codes among those of kernels that went wrong that speak of a single call: too much asked of a launch, peer access
/// that there is or is not, memory that is or is not registered.
const NOT_LOST: [u32; 8] = [701, 703, 704, 705, 708, 711, 712, 713];

fn on_device(device: Option<u32>) -> String {
    device.map(|device| format!(" on device {device}")).unwrap_or_default()
}

fn what(error: &DeviceError) -> String {
    let code = match (error.code, error.name.as_str()) {
        (0, _) => return error.detail.clone(),
        (code, "") => format!("error {code}"),
        (code, name) => format!("{name} ({code})"),
    };
    if error.detail.is_empty() { code } else { format!("{code}: {}", error.detail) }
}

fn advice(code: u32) -> &'static str {
    match code {
        OUT_OF_MEMORY => {
            "; the device, or page-locked host memory, is full: leave Baton some, or start fewer agents"
        }
        NOT_INITIALIZED => {
            "; a process that was forked after CUDA's start cannot use it: start workers by spawn"
        }
        STUB_LIBRARY => "; this is the toolkit's stub, not the driver: take its folder off LD_LIBRARY_PATH",
        NO_DEVICE => {
            "; no GPU is visible: look at nvidia-smi, CUDA_VISIBLE_DEVICES and the container's devices"
        }
        ILLEGAL_ADDRESS => {
            "; memory was freed or unmapped under a transfer, and this process's CUDA context is lost: restart it"
        }
        SYSTEM_NOT_READY => "; the fabric manager is not running: start nvidia-fabricmanager",
        SYSTEM_DRIVER_MISMATCH => {
            "; libcuda and the kernel module are of different drivers: reboot after a driver update, or let the container see the host's libcuda"
        }
        COMPAT_NOT_SUPPORTED => {
            "; the forward-compatibility libcuda does not serve this GPU: take /usr/local/cuda/compat off LD_LIBRARY_PATH"
        }
        UNKNOWN => "; look at dmesg for Xid lines, and whether /dev/nvidia-uvm is there",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u32, name: &str, detail: &str) -> DeviceError {
        DeviceError { call: "cuInit", code, name: name.into(), device: None, detail: detail.into() }
    }

    #[test]
    fn texts_name_call_code_and_remedy() {
        let text = error(100, "CUDA_ERROR_NO_DEVICE", "").to_string();
        assert_eq!(
            text,
            "CUDA: cuInit: CUDA_ERROR_NO_DEVICE (100); no GPU is visible: look at nvidia-smi, CUDA_VISIBLE_DEVICES and the container's devices"
        );
        let error = DeviceError { device: Some(3), ..error(1, "CUDA_ERROR_INVALID_VALUE", "64 bytes") };
        assert_eq!(error.to_string(), "CUDA: cuInit on device 3: CUDA_ERROR_INVALID_VALUE (1): 64 bytes");
    }

    #[test]
    fn a_code_without_a_name_is_shown_all_the_same() {
        assert_eq!(error(4711, "", "").to_string(), "CUDA: cuInit: error 4711");
    }

    #[test]
    fn codes_are_those_of_the_header() {
        use cudarc::driver::sys::CUresult::*;
        let ours = [
            (INVALID_VALUE, CUDA_ERROR_INVALID_VALUE),
            (OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY),
            (NOT_INITIALIZED, CUDA_ERROR_NOT_INITIALIZED),
            (DEINITIALIZED, CUDA_ERROR_DEINITIALIZED),
            (STUB_LIBRARY, CUDA_ERROR_STUB_LIBRARY),
            (ECC_UNCORRECTABLE, CUDA_ERROR_ECC_UNCORRECTABLE),
            (NVLINK_UNCORRECTABLE, CUDA_ERROR_NVLINK_UNCORRECTABLE),
            (NO_DEVICE, CUDA_ERROR_NO_DEVICE),
            (INVALID_DEVICE, CUDA_ERROR_INVALID_DEVICE),
            (NOT_READY, CUDA_ERROR_NOT_READY),
            (ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS),
            (LAUNCH_FAILED, CUDA_ERROR_LAUNCH_FAILED),
            (NOT_PERMITTED, CUDA_ERROR_NOT_PERMITTED),
            (NOT_SUPPORTED, CUDA_ERROR_NOT_SUPPORTED),
            (SYSTEM_NOT_READY, CUDA_ERROR_SYSTEM_NOT_READY),
            (SYSTEM_DRIVER_MISMATCH, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH),
            (COMPAT_NOT_SUPPORTED, CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE),
            (UNKNOWN, CUDA_ERROR_UNKNOWN),
        ];
        for (code, header) in ours {
            assert_eq!(code, header as u32);
        }
    }
}
