//! What a profiler finds here: a slot for each function of NVTX, empty until it puts its own there.
//!
//! Only five of them are ever called; the others are there because a profiler fills what it knows, module by module.

use std::ffi::{c_int, c_uint, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::abi::{self, Slot};

type Slots<const N: usize> = [AtomicPtr<c_void>; N];

static CORE: Slots<{ abi::CORE_SLOTS }> = empty();
static CUDA: Slots<{ abi::CUDA_SLOTS }> = empty();
static OPENCL: Slots<{ abi::OPENCL_SLOTS }> = empty();
static CUDART: Slots<{ abi::CUDART_SLOTS }> = empty();
static CORE2: Slots<{ abi::CORE2_SLOTS }> = empty();
static SYNC: Slots<{ abi::SYNC_SLOTS }> = empty();

static CORE_TABLE: Table<{ abi::CORE_SLOTS + 1 }> = table(&CORE);
static CUDA_TABLE: Table<{ abi::CUDA_SLOTS + 1 }> = table(&CUDA);
static OPENCL_TABLE: Table<{ abi::OPENCL_SLOTS + 1 }> = table(&OPENCL);
static CUDART_TABLE: Table<{ abi::CUDART_SLOTS + 1 }> = table(&CUDART);
static CORE2_TABLE: Table<{ abi::CORE2_SLOTS + 1 }> = table(&CORE2);
static SYNC_TABLE: Table<{ abi::SYNC_SLOTS + 1 }> = table(&SYNC);

static CALLBACKS: abi::Callbacks = abi::Callbacks { size: size_of::<abi::Callbacks>(), slots_of };
static VERSION: abi::Version = abi::Version {
    size: size_of::<abi::Version>(),
    version: abi::VERSION as u32,
    reserved: 0,
    note_profiler,
};

/// The slots of a module by number. The first and the last are null: a profiler that counts wrong crashes, and does not
/// write into what lies beside them.
#[repr(transparent)]
struct Table<const M: usize>([Slot; M]);

// SAFETY: addresses of statics, never written to.
unsafe impl<const M: usize> Sync for Table<M> {}

/// [`abi::ExportTable`].
pub(super) extern "C" fn export(number: u32) -> *const c_void {
    match number {
        abi::TABLE_CALLBACKS => ptr::from_ref(&CALLBACKS).cast(),
        abi::TABLE_VERSION => ptr::from_ref(&VERSION).cast(),
        _ => ptr::null(),
    }
}

unsafe extern "C" fn slots_of(module: c_uint, slots: *mut *const Slot, count: *mut c_uint) -> c_int {
    let found: &'static [Slot] = match module {
        abi::MODULE_CORE => &CORE_TABLE.0,
        abi::MODULE_CUDA => &CUDA_TABLE.0,
        abi::MODULE_OPENCL => &OPENCL_TABLE.0,
        abi::MODULE_CUDART => &CUDART_TABLE.0,
        abi::MODULE_CORE2 => &CORE2_TABLE.0,
        abi::MODULE_SYNC => &SYNC_TABLE.0,
        _ => return 0,
    };
    // SAFETY: the profiler passes places to write to, each null or valid.
    unsafe {
        if !slots.is_null() {
            slots.write(found.as_ptr());
        }
        if !count.is_null() {
            count.write(found.len() as c_uint - 1); // 17 at most; the null at the end is not counted
        }
    }
    1
}

extern "C" fn note_profiler(_version: u32) {}

const fn empty<const N: usize>() -> Slots<N> {
    [const { AtomicPtr::new(ptr::null_mut()) }; N]
}

const fn table<const N: usize, const M: usize>(slots: &'static Slots<N>) -> Table<M> {
    let mut table = [ptr::null(); M];
    let mut at = 1;
    while at < N {
        table[at] = &raw const slots[at];
        at += 1;
    }
    Table(table)
}

/// Declares what reads a slot as the function that is in it.
macro_rules! functions {
    ($($name:ident: $number:ident as $function:ident;)*) => { $(
        /// What the profiler has put there, if anything.
        pub(super) fn $name() -> Option<abi::$function> {
            let address = CORE2[abi::$number].load(Ordering::Acquire);
            // SAFETY: null, which is `None`, or the function that a profiler has put into the slot with this number,
            // which NVTX says is of this type; its library is never unloaded.
            unsafe { std::mem::transmute::<*mut c_void, Option<abi::$function>>(address) }
        }
    )* };
}

functions! {
    range_start: RANGE_START as RangeStart;
    range_end: RANGE_END as RangeEnd;
    name_category: NAME_CATEGORY as NameCategory;
    register_text: REGISTER_TEXT as RegisterText;
    domain_create: DOMAIN_CREATE as DomainCreate;
}
