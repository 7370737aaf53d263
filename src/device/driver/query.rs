//! Questions to the driver whose answers are plain values. None needs a context.

use std::ffi::{CStr, c_char, c_int, c_void};

use cudarc::driver::sys::{CUdevice, CUdevice_attribute, CUmemorytype, CUpointer_attribute, CUuuid};

use super::Driver;
use crate::desc::Span;
use crate::device::DeviceError;
use crate::device::error::INVALID_VALUE;

/// A device, as the driver numbers it: what its calls take.
#[derive(Clone, Copy, Debug)]
pub(in crate::device) struct Raw {
    pub ordinal: u32,
    pub device: CUdevice,
}

/// What the driver knows of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::device) struct PointerFacts {
    /// Memory of a device, managed or not; otherwise host memory, or nothing that CUDA knows.
    pub on_device: bool,
    /// Managed memory: it moves between host and device.
    pub managed: bool,
    /// The device.
    pub ordinal: u32,
    /// Whether a legacy handle can be had for it.
    pub legacy: bool,
    /// The allocation.
    pub range: Span,
    /// What was mapped at once: for virtual memory management, the chunk.
    pub mapping: Span,
}

impl PointerFacts {
    /// Of memory that is mapped in chunks: the chunk. Which of the two ranges is a whole reservation is not said in the
    /// driver's documentation, so the shorter one that there is counts.
    pub fn chunk(&self) -> Span {
        match (self.mapping.len, self.range.len) {
            (0, _) => self.range,
            (mapping, range) if range == 0 || mapping <= range => self.mapping,
            _ => self.range,
        }
    }
}

impl Driver {
    /// How many devices there are.
    pub fn count_devices(&self) -> Result<u32, DeviceError> {
        let mut count = 0;
        // SAFETY: a valid place to write to.
        let code = unsafe { (self.device_count)(&mut count) };
        self.check("cuDeviceGetCount", None, code)?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// The device with this ordinal.
    pub fn find_device(&self, ordinal: u32) -> Result<Raw, DeviceError> {
        let mut device = 0;
        // SAFETY: a valid place to write to; an ordinal that there is not is an error.
        let code = unsafe { (self.device)(&mut device, c_int::try_from(ordinal).unwrap_or(-1)) };
        self.check("cuDeviceGet", Some(ordinal), code)?;
        Ok(Raw { ordinal, device })
    }

    /// Its name, such as `NVIDIA H200`.
    pub fn name_of(&self, raw: Raw) -> Result<String, DeviceError> {
        let mut text = [0; TEXT_BYTES];
        // SAFETY: the place to write to is as long as is said.
        let code = unsafe { (self.device_name)(text.as_mut_ptr(), TEXT_BYTES as c_int, raw.device) };
        self.check("cuDeviceGetName", Some(raw.ordinal), code)?;
        Ok(terminated(text))
    }

    /// Its place on the PCI bus, such as `0000:3b:00.0`.
    pub fn pci_bus_id_of(&self, raw: Raw) -> Result<String, DeviceError> {
        let mut text = [0; TEXT_BYTES];
        // SAFETY: the place to write to is as long as is said.
        let code = unsafe { (self.device_pci_bus_id)(text.as_mut_ptr(), TEXT_BYTES as c_int, raw.device) };
        self.check("cuDeviceGetPCIBusId", Some(raw.ordinal), code)?;
        Ok(terminated(text))
    }

    /// What it is known by in every process.
    pub fn uuid_of(&self, raw: Raw) -> Result<[u8; 16], DeviceError> {
        let mut uuid = CUuuid { bytes: [0; 16] };
        // SAFETY: a valid place to write to.
        let code = unsafe { (self.device_uuid)(&mut uuid, raw.device) };
        self.check("cuDeviceGetUuid", Some(raw.ordinal), code)?;
        Ok(uuid.bytes.map(|byte| byte as u8))
    }

    /// One of its attributes.
    pub fn attribute_of(&self, raw: Raw, attribute: CUdevice_attribute) -> Result<i32, DeviceError> {
        let mut value = 0;
        // SAFETY: a valid place to write to; an attribute that the driver does not know is an error.
        let code = unsafe { (self.device_attribute)(&mut value, attribute as u32, raw.device) };
        self.check("cuDeviceGetAttribute", Some(raw.ordinal), code)?;
        Ok(value)
    }

    /// Whether kernels on `from` can touch memory of `to`.
    pub fn can_reach(&self, from: Raw, to: Raw) -> Result<bool, DeviceError> {
        let mut can = 0;
        // SAFETY: a valid place to write to.
        let code = unsafe { (self.device_can_access_peer)(&mut can, from.device, to.device) };
        self.check("cuDeviceCanAccessPeer", Some(from.ordinal), code)?;
        Ok(can != 0)
    }

    /// What lies behind an address. One that CUDA does not know is host memory.
    pub fn pointer_facts(&self, addr: u64) -> Result<PointerFacts, DeviceError> {
        use CUpointer_attribute::*;
        const ASKED: [CUpointer_attribute; 8] = [
            CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
            CU_POINTER_ATTRIBUTE_IS_MANAGED,
            CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
            CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE,
            CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
            CU_POINTER_ATTRIBUTE_RANGE_SIZE,
            CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR,
            CU_POINTER_ATTRIBUTE_MAPPING_SIZE,
        ];
        // Every answer is at most eight bytes, the shorter ones in the first of them (little-endian).
        let mut answers = [0_u64; ASKED.len()];
        let asked = ASKED.map(|attribute| attribute as u32);
        let places = answers.each_mut().map(|answer| std::ptr::from_mut(answer).cast::<c_void>());
        // SAFETY: as many attributes as places, each with room for the longest answer; any address may be asked about.
        let code =
            unsafe { (self.pointer_attributes)(ASKED.len() as u32, asked.as_ptr(), places.as_ptr(), addr) };
        if code != INVALID_VALUE {
            self.check("cuPointerGetAttributes", None, code)?;
        }
        let [kind, managed, ordinal, legacy, base, len, mapping_base, mapping_len] = answers;
        let kind = kind as u32;
        let managed = managed as u32 != 0 || kind == CUmemorytype::CU_MEMORYTYPE_UNIFIED as u32;
        Ok(PointerFacts {
            on_device: managed || kind == CUmemorytype::CU_MEMORYTYPE_DEVICE as u32,
            managed,
            ordinal: ordinal as u32,
            legacy: legacy as u32 != 0,
            range: Span { addr: base, len },
            mapping: Span { addr: mapping_base, len: mapping_len },
        })
    }
}

/// Room for the texts that the driver writes.
const TEXT_BYTES: usize = 256;

/// The text up to its end.
fn terminated(mut text: [c_char; TEXT_BYTES]) -> String {
    text[TEXT_BYTES - 1] = 0;
    let bytes = text.map(|byte| byte as u8);
    CStr::from_bytes_until_nul(&bytes).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
