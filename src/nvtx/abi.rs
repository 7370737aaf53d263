//! NVTX's binary interface, version 3: what passes between a program and a profiler. It only ever grows at its ends.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// The version of the interface that attributes and tables are of.
pub(super) const VERSION: u16 = 3;

/// The function of a profiler's library that a program calls first.
pub(super) const INITIALIZE: &[u8] = b"InitializeInjectionNvtx2\0";

/// [`INITIALIZE`]: 0 where the profiler does not start.
pub(super) type InitializeInjection = unsafe extern "C" fn(ExportTable) -> c_int;

/// Hands out a table by its number; null for one that there is not.
pub(super) type ExportTable = extern "C" fn(u32) -> *const c_void;

/// Numbers of tables.
pub(super) const TABLE_CALLBACKS: u32 = 1;
pub(super) const TABLE_VERSION: u32 = 3;

/// The table by which a profiler finds the slots of the functions of a module.
#[repr(C)]
pub(super) struct Callbacks {
    pub size: usize,
    /// Module, where to put the slots, where to put how many those are; 0 for a module that there is not. The slots
    /// are counted from 0, which is never used.
    pub slots_of: unsafe extern "C" fn(c_uint, *mut *const Slot, *mut c_uint) -> c_int,
}

/// Where a function goes: the address of a pointer to it.
pub(super) type Slot = *const std::sync::atomic::AtomicPtr<c_void>;

/// The table that says which NVTX this is.
#[repr(C)]
pub(super) struct Version {
    pub size: usize,
    pub version: u32,
    pub reserved: u32,
    /// The profiler says its own.
    pub note_profiler: extern "C" fn(u32),
}

/// Modules and how many slots each has.
pub(super) const MODULE_CORE: c_uint = 1;
pub(super) const MODULE_CUDA: c_uint = 2;
pub(super) const MODULE_OPENCL: c_uint = 3;
pub(super) const MODULE_CUDART: c_uint = 4;
pub(super) const MODULE_CORE2: c_uint = 5;
pub(super) const MODULE_SYNC: c_uint = 6;
pub(super) const CORE_SLOTS: usize = 16;
pub(super) const CUDA_SLOTS: usize = 9;
pub(super) const OPENCL_SLOTS: usize = 15;
pub(super) const CUDART_SLOTS: usize = 7;
pub(super) const CORE2_SLOTS: usize = 16;
pub(super) const SYNC_SLOTS: usize = 7;

/// Slots of the second core module.
pub(super) const RANGE_START: usize = 2;
pub(super) const RANGE_END: usize = 3;
pub(super) const NAME_CATEGORY: usize = 8;
pub(super) const REGISTER_TEXT: usize = 10;
pub(super) const DOMAIN_CREATE: usize = 12;

pub(super) type RangeStart = unsafe extern "C" fn(DomainHandle, *const Attributes) -> u64;
pub(super) type RangeEnd = unsafe extern "C" fn(DomainHandle, u64);
pub(super) type NameCategory = unsafe extern "C" fn(DomainHandle, u32, *const c_char);
pub(super) type RegisterText = unsafe extern "C" fn(DomainHandle, *const c_char) -> TextHandle;
pub(super) type DomainCreate = unsafe extern "C" fn(*const c_char) -> DomainHandle;

/// A domain, as the profiler knows it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct DomainHandle(pub *mut c_void);

/// A text that the profiler has been told of.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct TextHandle(pub *mut c_void);

impl TextHandle {
    /// It has not been.
    pub const NONE: Self = Self(std::ptr::null_mut());
}

/// What is said of a range when it begins.
#[repr(C)]
pub(super) struct Attributes {
    version: u16,
    size: u16,
    category: u32,
    color_type: i32,
    color: u32,
    payload_type: i32,
    reserved: i32,
    payload: u64,
    message_type: i32,
    message: *const c_void,
}

const NOTHING: i32 = 0;
const COLOR_ARGB: i32 = 1;
const PAYLOAD_U64: i32 = 1;
const MESSAGE_ASCII: i32 = 1;
const MESSAGE_REGISTERED: i32 = 3;

impl Attributes {
    /// Of a range called `name`, by its handle where there is one.
    pub fn new(category: u32, color: u32, payload: Option<u64>, name: &CStr, handle: TextHandle) -> Self {
        let (message_type, message) = match handle.0.is_null() {
            true => (MESSAGE_ASCII, name.as_ptr().cast()),
            false => (MESSAGE_REGISTERED, handle.0.cast_const()),
        };
        Self {
            version: VERSION,
            size: size_of::<Self>() as u16, // 48
            category,
            color_type: COLOR_ARGB,
            color,
            payload_type: if payload.is_some() { PAYLOAD_U64 } else { NOTHING },
            reserved: 0,
            payload: payload.unwrap_or_default(),
            message_type,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn attributes_lie_where_a_profiler_looks() {
        assert_eq!((size_of::<Attributes>(), align_of::<Attributes>()), (48, 8));
        assert_eq!((offset_of!(Attributes, category), offset_of!(Attributes, color)), (4, 12));
        assert_eq!((offset_of!(Attributes, payload_type), offset_of!(Attributes, payload)), (16, 24));
        assert_eq!((offset_of!(Attributes, message_type), offset_of!(Attributes, message)), (32, 40));
    }
}
