//! One GPU: its primary context, and how a thread of ours uses it.
//!
//! The context is the one that the host's own CUDA code uses, retained at the first use and never released: at process
//! exit there is nothing to undo, and the host may end it without us. It is current on a thread for the length of one
//! call of ours only, so the host's threads find their own as they left it.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::sync::OnceLock;

use cudarc::driver::sys::{
    CUGPUDirectRDMAWritesOrdering, CUcontext, CUdevice_attribute, CUflushGPUDirectRDMAWritesOptions,
    CUflushGPUDirectRDMAWritesScope, CUflushGPUDirectRDMAWritesTarget, CUstreamCaptureMode,
};

use super::bounce::Bounce;
use super::cuda::DeviceFacts;
use super::driver::{Driver, Raw};
use super::program::Program;
use super::{Cuda, DeviceError};

/// One GPU, by the primary context that the rest of the process uses too. Any thread may use it.
pub struct Device {
    cuda: &'static Cuda,
    context: Context,
    facts: DeviceFacts,
    /// Whether writes of network cards may be seen late by kernels.
    needs_flush: bool,
    /// Whether we can have them seen.
    can_flush: bool,
    program: OnceLock<Result<Program, DeviceError>>,
    bounce: Bounce,
}

#[derive(Clone, Copy)]
struct Context(CUcontext);

// SAFETY: CUDA's driver lets any thread push any context; we never release it.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Device {
    pub(super) fn open(cuda: &'static Cuda, facts: DeviceFacts) -> Result<Self, DeviceError> {
        let driver = cuda.driver();
        let mut context = std::ptr::null_mut();
        // SAFETY: a valid place to write to, and a device of this driver.
        let code = unsafe { (driver.primary_context_retain)(&mut context, facts.raw.device) };
        driver.check("cuDevicePrimaryCtxRetain", Some(facts.raw.ordinal), code)?;
        let ordering = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING;
        let owner = CUGPUDirectRDMAWritesOrdering::CU_GPU_DIRECT_RDMA_WRITES_ORDERING_OWNER as i32;
        let needs_flush = driver.attribute_of(facts.raw, ordering)? < owner;
        let options = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS;
        let by_host = CUflushGPUDirectRDMAWritesOptions::CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST as i32;
        let can_flush = driver.attribute_of(facts.raw, options)? & by_host != 0;
        Ok(Self {
            cuda,
            context: Context(context),
            facts,
            needs_flush,
            can_flush,
            program: OnceLock::new(),
            bounce: Bounce::default(),
        })
    }

    pub(super) fn bounce_room(&self) -> &Bounce {
        &self.bounce
    }

    /// Its number in this process.
    pub fn ordinal(&self) -> u32 {
        self.facts.raw.ordinal
    }

    /// What it is known by in every process.
    pub fn uuid(&self) -> [u8; 16] {
        self.facts.uuid
    }

    /// Its name, such as `NVIDIA H200`.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Its place on the PCI bus, such as `0000:3b:00.0`.
    pub fn pci_bus_id(&self) -> &str {
        &self.facts.pci_bus_id
    }

    /// The driver it belongs to.
    pub fn cuda(&self) -> &'static Cuda {
        self.cuda
    }

    /// Whether its copies can touch memory of `peer`: the same device, or one that the driver gives it access to.
    pub fn can_reach(&self, peer: &Device) -> Result<bool, DeviceError> {
        self.cuda.can_reach(self.ordinal(), peer.ordinal())
    }

    /// Makes what network cards have written into the device's memory until now visible to it. Nothing, and free, where
    /// the device keeps such writes in order by itself.
    pub fn flush_remote_writes(&self) -> Result<(), DeviceError> {
        if !self.needs_flush {
            return Ok(());
        }
        if !self.can_flush {
            let detail =
                "the device keeps no order of what network cards write, and does not let the host flush it";
            return Err(DeviceError::ours("cuFlushGPUDirectRDMAWrites", Some(self.ordinal()), detail));
        }
        let _current = self.enter()?;
        let target = CUflushGPUDirectRDMAWritesTarget::CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX;
        let scope = CUflushGPUDirectRDMAWritesScope::CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER;
        // SAFETY: our context is current; plain values.
        let code = unsafe { (self.driver().flush_remote_writes)(target as u32, scope as u32) };
        self.check("cuFlushGPUDirectRDMAWrites", code)
    }

    pub(super) fn raw(&self) -> Raw {
        self.facts.raw
    }

    pub(super) fn driver(&self) -> &'static Driver {
        self.cuda.driver()
    }

    /// What a call about this device has returned, as a result.
    pub(super) fn check(&self, call: &'static str, code: u32) -> Result<(), DeviceError> {
        self.driver().check(call, Some(self.ordinal()), code)
    }

    /// An outcome that nobody is there to be told of.
    pub(super) fn log_failure(&self, call: &'static str, code: u32) {
        use super::error::{DEINITIALIZED, NOT_INITIALIZED};
        // The process is ending, or is a forked child: the memory is not ours to care for any more.
        if code == DEINITIALIZED || code == NOT_INITIALIZED {
            return;
        }
        match self.check(call, code) {
            Err(error) if error.is_sticky() => tracing::debug!("{error}"), // whoever used the device has said so
            Err(error) => tracing::warn!("{error}"),
            Ok(()) => (),
        }
    }

    /// The kernels, loaded at the first call; what came of that stays.
    pub(super) fn program(&self) -> Result<&Program, DeviceError> {
        self.program.get_or_init(|| Program::load(self)).as_ref().map_err(Clone::clone)
    }

    /// Makes the context current on this thread until the value is dropped.
    pub(super) fn enter(&self) -> Result<Entered<'_>, DeviceError> {
        // SAFETY: the context is retained for ever.
        let code = unsafe { (self.driver().context_push)(self.context.0) };
        self.check("cuCtxPushCurrent", code)?;
        let mut mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED as u32;
        // SAFETY: a valid place to read from and write to.
        let code = unsafe { (self.driver().exchange_capture_mode)(&mut mode) };
        let entered = Entered { device: self, mode: (code == 0).then_some(mode), _thread: PhantomData };
        self.check("cuThreadExchangeStreamCaptureMode", code)?;
        Ok(entered)
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.name(), self.ordinal(), self.pci_bus_id())
    }
}

/// Our context is current on this thread, and a CUDA graph that the host captures on another one does not forbid our
/// calls, nor do they end its capture: we never touch the host's streams. Both are undone when this is dropped.
pub(super) struct Entered<'a> {
    device: &'a Device,
    /// What the thread had.
    mode: Option<u32>,
    /// Not to be dropped by another thread.
    _thread: PhantomData<*const ()>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let driver = self.device.driver();
        if let Some(mut mode) = self.mode {
            // SAFETY: a valid place; the mode is what the driver gave.
            let code = unsafe { (driver.exchange_capture_mode)(&mut mode) };
            self.device.log_failure("cuThreadExchangeStreamCaptureMode", code);
        }
        let mut popped = std::ptr::null_mut();
        // SAFETY: a valid place to write to; this thread pushed a context when `self` was made.
        let code = unsafe { (driver.context_pop)(&mut popped) };
        self.device.log_failure("cuCtxPopCurrent", code);
    }
}
