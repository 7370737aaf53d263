//! CUDA as this process has it: its devices, and what lies behind an address.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::driver::{Driver, PointerFacts, Raw};
use super::{Device, DeviceError, vmm};
use crate::desc::Span;

/// How CUDA is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceConfig {
    /// `BATON_CUDA_LIBRARY`: the libcuda to open, unless the process has one loaded.
    pub library: Option<PathBuf>,
}

/// Where an address lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In host memory, page-locked by CUDA or not.
    Host,
    /// In memory of the device with this ordinal.
    Device(u32),
    /// In managed memory, which moves between the host and devices.
    Managed,
}

/// Device memory that lies in one allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The part of it that was asked about.
    pub span: Span,
    /// All of it: what `cuMemAlloc` gave, or one chunk of virtual memory management (VMM).
    pub whole: Span,
    /// Ordinal of its device.
    pub device: u32,
    /// Whether it is a chunk of VMM.
    pub is_vmm: bool,
}

/// The driver of this process. Any thread may use it; nothing of it is undone when the process ends.
pub struct Cuda {
    driver: Driver,
    library: String,
    facts: Vec<DeviceFacts>,
    devices: Mutex<Vec<Option<Arc<Device>>>>,
}

/// What is known of a device without a context on it.
#[derive(Clone, Debug)]
pub(super) struct DeviceFacts {
    pub raw: Raw,
    pub uuid: [u8; 16],
    pub name: String,
    pub pci_bus_id: String,
}

static CUDA: OnceLock<Result<Cuda, DeviceError>> = OnceLock::new();

impl Cuda {
    /// The driver, opened and started at the first call of the process. What came of that stays: later calls give it
    /// again, whatever their configuration.
    ///
    /// No libcuda, one that is too old or lacks a function, a start that fails, and no device are errors that say what
    /// to do.
    pub fn open(config: &DeviceConfig) -> Result<&'static Self, DeviceError> {
        let opened = CUDA.get_or_init(|| Self::start(config));
        opened.as_ref().map_err(Clone::clone)
    }

    fn start(config: &DeviceConfig) -> Result<Self, DeviceError> {
        let driver = Driver::open(config.library.as_deref())?;
        let count = driver.count_devices()?;
        if count == 0 {
            let detail = "the driver has no device: look at nvidia-smi and CUDA_VISIBLE_DEVICES";
            return Err(DeviceError::ours("cuDeviceGetCount", None, detail));
        }
        let facts: Result<Vec<_>, _> = (0..count).map(|ordinal| facts(&driver, ordinal)).collect();
        let devices = Mutex::new(vec![None; count as usize]);
        let library = driver.description();
        Ok(Self { driver, library, facts: facts?, devices })
    }

    pub(super) fn driver(&self) -> &Driver {
        &self.driver
    }

    /// Version and file of the driver, for log lines: `12.8 (/usr/lib/libcuda.so.1)`.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// How many devices this process sees; at least one.
    pub fn device_count(&self) -> u32 {
        self.facts.len() as u32
    }

    /// What the device with this ordinal is known by in every process, where there is such a device.
    pub fn uuid(&self, ordinal: u32) -> Option<[u8; 16]> {
        self.facts.get(ordinal as usize).map(|facts| facts.uuid)
    }

    /// The name of the device with this ordinal, such as `NVIDIA H200`, where there is such a device. Makes no context.
    pub fn name(&self, ordinal: u32) -> Option<&str> {
        self.facts.get(ordinal as usize).map(|facts| facts.name.as_str())
    }

    /// Its place on the PCI bus, such as `0000:3b:00.0`. Makes no context.
    pub fn pci_bus_id(&self, ordinal: u32) -> Option<&str> {
        self.facts.get(ordinal as usize).map(|facts| facts.pci_bus_id.as_str())
    }

    /// The ordinal, in this process, of the device that has this uuid, where this process sees it.
    pub fn ordinal_of(&self, uuid: &[u8; 16]) -> Option<u32> {
        self.facts.iter().position(|facts| facts.uuid == *uuid).map(|at| at as u32)
    }

    /// Whether copies on device `from` can touch memory of device `to`: the same one, or a peer of it. Makes no
    /// context.
    pub fn can_reach(&self, from: u32, to: u32) -> Result<bool, DeviceError> {
        let (from, to) = (self.facts_of(from)?.raw, self.facts_of(to)?.raw);
        Ok(from.ordinal == to.ordinal || self.driver.can_reach(from, to)?)
    }

    /// Where an address lies; one that CUDA does not know is the host's. Costs a call of the driver, without a context.
    pub fn locate(&self, addr: u64) -> Result<Place, DeviceError> {
        let facts = self.driver.pointer_facts(addr)?;
        Ok(match facts {
            PointerFacts { managed: true, .. } => Place::Managed,
            PointerFacts { on_device: true, ordinal, .. } => Place::Device(ordinal),
            _ => Place::Host,
        })
    }

    /// What backs a span of device memory, in order, cut where allocations and VMM chunks end. It is an error where a
    /// part of the span is not device memory, is managed, or lies on another device than its start.
    pub fn allocations(&self, span: Span) -> Result<Vec<Allocation>, DeviceError> {
        let end = span.end().ok_or_else(|| refused(span, "wraps"))?;
        let mut found: Vec<Allocation> = Vec::new();
        let mut at = span.addr;
        while at < end {
            let rest = Span { addr: at, len: end - at };
            let next = self.allocation_at(rest)?;
            if found.first().is_some_and(|first| first.device != next.device) {
                return Err(refused(span, &format!("changes from one device to another at {at:#x}")));
            }
            at += next.span.len;
            found.push(next);
        }
        Ok(found)
    }

    /// The allocation in which `rest` starts.
    fn allocation_at(&self, rest: Span) -> Result<Allocation, DeviceError> {
        let facts = self.driver.pointer_facts(rest.addr)?;
        if !facts.on_device || facts.managed {
            let kind = if facts.managed { "managed memory" } else { "not device memory" };
            return Err(refused(rest, &format!("is {kind}")));
        }
        let is_vmm = !facts.legacy && vmm::is_chunk(&self.driver, rest.addr);
        let whole = if is_vmm { facts.chunk() } else { facts.range };
        let left = whole.end().and_then(|end| end.checked_sub(rest.addr)).unwrap_or(0);
        if rest.addr < whole.addr || left == 0 {
            let detail = format!("the driver says that {:#x} lies in {whole}", rest.addr);
            return Err(DeviceError::ours("cuPointerGetAttributes", Some(facts.ordinal), detail));
        }
        let span = Span { addr: rest.addr, len: rest.len.min(left) };
        Ok(Allocation { span, whole, device: facts.ordinal, is_vmm })
    }

    /// The device with this ordinal. Its primary context, which it shares with the rest of the process, is made at the
    /// first call if there is none, and kept.
    pub fn device(&'static self, ordinal: u32) -> Result<Arc<Device>, DeviceError> {
        let facts = self.facts_of(ordinal)?;
        let mut devices = self.devices.lock();
        // Invariant: there are as many devices as facts of devices, and these have the ordinal.
        let known = &mut devices[ordinal as usize];
        if let Some(device) = known {
            return Ok(Arc::clone(device));
        }
        let device = Arc::new(Device::open(self, facts.clone())?);
        Ok(Arc::clone(known.insert(device)))
    }

    fn facts_of(&self, ordinal: u32) -> Result<&DeviceFacts, DeviceError> {
        self.facts.get(ordinal as usize).ok_or_else(|| {
            let detail = format!("this process sees {} devices", self.facts.len());
            DeviceError::ours("cuDeviceGet", Some(ordinal), detail)
        })
    }
}

impl fmt::Debug for Cuda {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CUDA {}", self.library())
    }
}

fn facts(driver: &Driver, ordinal: u32) -> Result<DeviceFacts, DeviceError> {
    let raw = driver.find_device(ordinal)?;
    let (uuid, name) = (driver.uuid_of(raw)?, driver.name_of(raw)?);
    Ok(DeviceFacts { raw, uuid, name, pci_bus_id: driver.pci_bus_id_of(raw)? })
}

fn refused(span: Span, why: &str) -> DeviceError {
    DeviceError::ours("allocations", None, format!("the span {span} {why}"))
}
