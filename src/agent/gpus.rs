//! The GPUs of this process, as far as an agent has to know: whether there are any, and what backs memory that a host
//! registers.

use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::config::EngineSettings;
use crate::desc::{Descriptor, Span};
use crate::device::{Cuda, DeviceConfig, DeviceError};

/// Why GPU memory cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GpuFault {
    /// There is no CUDA, or it does not start.
    #[error("GPU memory needs CUDA: {0}")]
    NoCuda(DeviceError),
    /// Not all of it is device memory of one device.
    #[error("{0}")]
    NotThere(DeviceError),
    /// It lies on another device than the host says.
    #[error(
        "the memory lies on device {found}, not on device {said}: pass the ordinal that this process knows it by"
    )]
    OtherDevice {
        /// The device that the descriptor names.
        said: u32,
        /// Where it lies.
        found: u32,
    },
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Gpus(Result<&'static Cuda, DeviceError>);

impl Gpus {
    /// Opens the driver, once for the process, and says so once.
    pub fn open(settings: &EngineSettings) -> Self {
        let opened = Cuda::open(&DeviceConfig { library: settings.cuda_library.clone() });
        if !TOLD.swap(true, Ordering::Relaxed) {
            match &opened {
                Ok(cuda) => tracing::info!(
                    library = cuda.library(),
                    devices = cuda.device_count(),
                    "GPU memory can be registered"
                ),
                Err(error) => tracing::info!(%error, "GPU memory cannot be registered; host memory can"),
            }
        }
        Self(opened)
    }

    /// The driver, where there is one.
    pub fn cuda(&self) -> Option<&'static Cuda> {
        self.0.as_ref().ok().copied()
    }

    /// What backs memory of a GPU, cut where its allocations and VMM chunks end.
    pub fn pieces(&self, descriptor: Descriptor) -> Result<Vec<Descriptor>, GpuFault> {
        let cuda = self.0.as_ref().map_err(|error| GpuFault::NoCuda(error.clone()))?;
        let Descriptor { addr, len, device: said } = descriptor;
        let allocations = cuda.allocations(Span { addr, len }).map_err(GpuFault::NotThere)?;
        if let Some(other) = allocations.iter().find(|allocation| allocation.device != said) {
            return Err(GpuFault::OtherDevice { said, found: other.device });
        }
        let piece = |span: Span| Descriptor { addr: span.addr, len: span.len, device: said };
        Ok(allocations.into_iter().map(|allocation| piece(allocation.span)).collect())
    }
}

/// Whether the log says already what came of it.
static TOLD: AtomicBool = AtomicBool::new(false);
