//! The GPUs of this process, as far as an agent has to know: whether there are any, and what backs memory that a host
//! registers.
#![allow(unsafe_code)] // the contract, handed on: the caller vouches for the memory

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;

use crate::config::EngineSettings;
use crate::desc::{Descriptor, MemoryKind, Span};
use crate::device::{Cuda, Device, DeviceConfig, DeviceError, Place};

use super::Agent;

/// Why GPU memory cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GpuFault {
    /// There is no CUDA, or it does not start.
    #[error("GPU memory needs CUDA: {0}")]
    NoCuda(DeviceError),
    /// Not all of it is device memory of one device.
    #[error("{0}")]
    NotThere(DeviceError),
    /// It cannot be read or written.
    #[error("{0}")]
    NotCopied(DeviceError),
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
                Err(error) if settings.asks_for_gpus() => {
                    tracing::warn!(%error, "GPU memory cannot be registered, though BATON_CUDA_LIBRARY or BATON_LANES asks for it");
                }
                Err(error) => tracing::info!(%error, "GPU memory cannot be registered; host memory can"),
            }
        }
        Self(opened)
    }

    /// The driver, where there is one.
    pub fn cuda(&self) -> Option<&'static Cuda> {
        self.0.as_ref().ok().copied()
    }

    /// Why there is no driver.
    pub fn missing(&self) -> Option<&DeviceError> {
        self.0.as_ref().err()
    }

    /// A device, by its ordinal.
    pub fn device(&self, ordinal: u32) -> Result<Arc<Device>, DeviceError> {
        self.0.as_ref().map_err(Clone::clone).and_then(|cuda| cuda.device(ordinal))
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

impl Agent {
    /// What lies at an address of this process: the kind of memory, and its device. What CUDA does not know is the host's.
    pub(crate) fn memory_at(&self, addr: u64) -> (MemoryKind, u32) {
        let place = self.shared.gpus.cuda().and_then(|cuda| cuda.locate(addr).ok());
        match place {
            Some(Place::Device(ordinal)) => (MemoryKind::Vram, ordinal),
            _ => (MemoryKind::Dram, 0),
        }
    }

    /// What a loaded peer has registered at an address: the kind of memory, and its device there.
    pub(crate) fn peers_memory_at(&self, peer: &str, span: Span) -> Option<(MemoryKind, u32)> {
        let core = self.running_core().ok()?;
        let (_, peer) = core.endpoint.loaded_peer(peer).ok()?;
        peer.regions().holding(span).map(|region| (region.kind, region.device))
    }

    /// Reads GPU memory. Blocks until the bytes are here: for a few of them.
    ///
    /// # Safety
    /// The memory is allocated for as long as this takes.
    pub(crate) unsafe fn fetch_gpu(&self, device: u32, addr: u64, bytes: &mut [u8]) -> Result<(), GpuFault> {
        let device = self.gpu(device)?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { device.fetch(addr, bytes) }.map_err(GpuFault::NotCopied)
    }

    /// Writes GPU memory. Blocks until the bytes are there: for a few of them.
    ///
    /// # Safety
    /// The memory is allocated for as long as this takes, and nobody else writes it; after an error it may still be written.
    pub(crate) unsafe fn store_gpu(&self, device: u32, addr: u64, bytes: &[u8]) -> Result<(), GpuFault> {
        let device = self.gpu(device)?;
        // SAFETY: the caller's promise is the callee's.
        unsafe { device.store(addr, bytes) }.map_err(GpuFault::NotCopied)
    }

    fn gpu(&self, ordinal: u32) -> Result<Arc<Device>, GpuFault> {
        let cuda = self.shared.gpus.0.as_ref().map_err(|error| GpuFault::NoCuda(error.clone()))?;
        cuda.device(ordinal).map_err(GpuFault::NotCopied)
    }
}

/// Whether the log says already what came of it.
static TOLD: AtomicBool = AtomicBool::new(false);
