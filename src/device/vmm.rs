//! CUDA's virtual memory management: a chunk of physical memory by its handle, and a chunk mapped.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{
    CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationHandleType, CUmemAllocationProp,
    CUmemGenericAllocationHandle, CUmemLocation, CUmemLocationType,
};

use super::driver::Driver;
use super::{Device, DeviceError};

/// Handle types, as the bits of a chunk's properties.
pub(super) const POSIX_FD: u32 = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR.0;
pub(super) const FABRIC: u32 = CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_FABRIC.0;

/// A reference to a chunk of physical memory; the memory lives at least as long.
pub(super) struct Chunk<'a> {
    driver: &'a Driver,
    handle: CUmemGenericAllocationHandle,
}

/// Whether the memory at this address is a chunk: CUDA keeps a handle for those alone.
pub(super) fn is_chunk(driver: &Driver, addr: u64) -> bool {
    Chunk::at(driver, addr).is_ok()
}

impl<'a> Chunk<'a> {
    /// The chunk that is mapped at this address.
    pub fn at(driver: &'a Driver, addr: u64) -> Result<Self, DeviceError> {
        let mut handle = 0;
        // SAFETY: a valid place to write to; any address may be asked about, and none is touched.
        let code =
            unsafe { (driver.vmm_retain)(&mut handle, ptr::with_exposed_provenance_mut(addr as usize)) };
        driver.check("cuMemRetainAllocationHandle", None, code)?;
        Ok(Self { driver, handle })
    }

    /// The types of handle that it may be exported as, as bits.
    pub fn handle_types(&self) -> Result<u32, DeviceError> {
        let mut properties = MaybeUninit::<CUmemAllocationProp>::zeroed();
        // SAFETY: a valid place to write to, and a handle that we hold.
        let code = unsafe { (self.driver.vmm_properties)(properties.as_mut_ptr(), self.handle) };
        self.driver.check("cuMemGetAllocationPropertiesFromHandle", None, code)?;
        // SAFETY: within the struct, and initialised, to zero at least. Read as a number: a driver may know types, and
        // combinations, that cudarc does not.
        Ok(unsafe { (&raw const (*properties.as_ptr()).requestedHandleTypes).cast::<u32>().read() })
    }

    /// A file descriptor of it.
    pub fn export_fd(&self) -> Result<OwnedFd, DeviceError> {
        let mut number: i32 = -1;
        // SAFETY: an int is what this type of handle is written into.
        let code = unsafe { (self.driver.vmm_export)((&raw mut number).cast(), self.handle, POSIX_FD, 0) };
        self.driver.check("cuMemExportToShareableHandle", None, code)?;
        if number < 0 {
            let detail = format!("it gave the file descriptor {number}");
            return Err(DeviceError::ours("cuMemExportToShareableHandle", None, detail));
        }
        // SAFETY: open, and the caller's to close.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    /// A fabric handle of it.
    pub fn export_fabric(&self) -> Result<[u8; 64], DeviceError> {
        let mut bytes = [0; 64];
        // SAFETY: 64 bytes are what this type of handle is written into.
        let code = unsafe { (self.driver.vmm_export)(bytes.as_mut_ptr().cast(), self.handle, FABRIC, 0) };
        self.driver.check("cuMemExportToShareableHandle", None, code)?;
        Ok(bytes)
    }

    /// The chunk that a file descriptor stands for, which may be closed afterwards.
    pub fn import_fd(driver: &'a Driver, file: BorrowedFd<'_>) -> Result<Self, DeviceError> {
        let mut handle = 0;
        let number = ptr::without_provenance_mut(file.as_raw_fd() as usize);
        // SAFETY: a valid place to write to. This type of handle is passed by value in the pointer's place; what the
        // descriptor is, the driver checks.
        let code = unsafe { (driver.vmm_import)(&mut handle, number, POSIX_FD) };
        driver.check("cuMemImportFromShareableHandle", None, code)?;
        Ok(Self { driver, handle })
    }

    /// The chunk that a fabric handle stands for.
    pub fn import_fabric(driver: &'a Driver, bytes: &[u8; 64]) -> Result<Self, DeviceError> {
        let (mut handle, mut bytes) = (0, *bytes);
        // SAFETY: a valid place to write to; 64 bytes are what this type of handle is read from.
        let code = unsafe { (driver.vmm_import)(&mut handle, bytes.as_mut_ptr().cast(), FABRIC) };
        driver.check("cuMemImportFromShareableHandle", None, code)?;
        Ok(Self { driver, handle })
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        // SAFETY: our reference, given up here; mappings have their own.
        let code = unsafe { (self.driver.vmm_release)(self.handle) };
        if let Err(error) = self.driver.check("cuMemRelease", None, code) {
            tracing::debug!("{error}");
        }
    }
}

/// A chunk mapped into this process, readable and writable by one device. Undone when it is dropped.
pub(super) struct Mapped {
    device: Arc<Device>,
    pub addr: u64,
    len: usize,
    /// Whether there is a chunk at the address, which is reserved in any case.
    mapped: bool,
}

impl Mapped {
    /// Maps `len` bytes of the chunk, which is an error where it has fewer. Our context is current.
    pub fn new(device: &Arc<Device>, chunk: &Chunk<'_>, len: usize) -> Result<Self, DeviceError> {
        let driver = device.driver();
        let mut addr = 0;
        // SAFETY: a valid place to write to; 0 leaves alignment and address to the driver.
        let code = unsafe { (driver.vmm_reserve)(&mut addr, len, 0, 0, 0) };
        device.check("cuMemAddressReserve", code)?;
        let mut mapped = Self { device: Arc::clone(device), addr, len, mapped: false };
        // SAFETY: the address is reserved, and nothing is mapped there; the driver checks the length.
        let code = unsafe { (driver.vmm_map)(addr, len, 0, chunk.handle, 0) };
        device.check("cuMemMap", code)?;
        mapped.mapped = true;
        let access = CUmemAccessDesc {
            location: CUmemLocation {
                type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE,
                id: device.raw().device,
            },
            flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        // SAFETY: all of what is mapped there, and one description.
        let code = unsafe { (driver.vmm_set_access)(addr, len, &access, 1) };
        device.check("cuMemSetAccess", code)?;
        Ok(mapped)
    }

    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let Ok(_current) = self.device.enter() else { return };
        let driver = self.device.driver();
        if self.mapped {
            // SAFETY: mapped at once by us; no copy uses it any more, which whoever held it has seen to.
            let code = unsafe { (driver.vmm_unmap)(self.addr, self.len) };
            self.device.log_failure("cuMemUnmap", code);
        }
        // SAFETY: reserved at once by us, and nothing is mapped there any more.
        let code = unsafe { (driver.vmm_free)(self.addr, self.len) };
        self.device.log_failure("cuMemAddressFree", code);
    }
}
