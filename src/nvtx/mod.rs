//! NVTX ranges: stretches of time that a profiler such as Nsight Systems draws on its timeline.
//!
//! ```text
//!   profiler starts us with NVTX_INJECTION64_PATH=<its library>
//!        |
//!   [`attach`] ---- opens it, hands it ----> [`tables`]   empty slots, one for each function of NVTX
//!        |          <--- which it fills ----
//!   [`domain`] ---- calls what is in the slots: [`Domain::start`], [`Domain::end`]
//! ```
//!
//! Without a profiler there is no domain, and asking for one is a load. Whatever a profiler leaves empty does nothing.
//!
//! NVTX itself is headers alone: the code that finds the profiler is compiled into each program. These are those few
//! hundred lines as Rust, for the six functions that we use, so that building Baton takes neither NVIDIA's headers nor
//! libclang. `tests/nvtx` holds them against the headers where a machine has them.
//!
//! # Threads
//! Any thread may start a range, and any other may end it.
#![allow(unsafe_code)]

mod abi;
mod tables;

use std::ffi::{CStr, CString, c_int};
use std::path::Path;
use std::ptr;

use libloading::os::unix::{self, Library};
use once_cell::sync::OnceCell;
use parking_lot::Mutex;

use self::abi::{Attributes, DomainHandle, InitializeInjection, TextHandle};

static DOMAIN: OnceCell<Domain> = OnceCell::new();

/// Lets the profiler whose library this is see the ranges of this process, under the domain `name`. They are called as
/// `names` says: [`Start::name`] counts in it. The first success in a process stands; later calls return without a look.
///
/// # Errors
/// A library that does not load, is no profiler's, or does not want ranges: a text that says which.
pub fn attach(library: &Path, name: &CStr, names: &[&'static CStr]) -> Result<(), String> {
    DOMAIN.get_or_try_init(|| open(library, name, names)).map(|_| ())
}

/// Where ranges go, once a profiler is attached.
pub fn domain() -> Option<&'static Domain> {
    DOMAIN.get()
}

/// Where our ranges go.
#[derive(Debug)]
pub struct Domain {
    handle: DomainHandle,
    names: Vec<(&'static CStr, TextHandle)>,
    /// Named so far; a category is its place in it, from 1.
    categories: Mutex<Vec<&'static str>>,
}

/// A range that begins.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// What it is called: a place in the names given to [`attach`].
    pub name: usize,
    /// What it is grouped by.
    pub category: Option<&'static str>,
    /// Its colour, as `0xAARRGGBB`.
    pub color: u32,
    /// A number that is shown with it.
    pub payload: Option<u64>,
}

/// A range that has begun, for [`Domain::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeId(u64);

impl Domain {
    /// Begins a range. It may end on another thread.
    pub fn start(&self, start: Start) -> RangeId {
        let category = start.category.map_or(0, |name| self.category(name));
        let (name, text) = self.names.get(start.name).copied().unwrap_or((c"", TextHandle::NONE));
        let attributes = Attributes::new(category, start.color, start.payload, name, text);
        // SAFETY: the domain is one that this profiler made; the attributes are whole, say their size and version, and
        // they and the text in them live until it returns.
        let id = tables::range_start().map(|call| unsafe { call(self.handle, &attributes) });
        RangeId(id.unwrap_or_default())
    }

    /// Ends a range.
    pub fn end(&self, range: RangeId) {
        if let Some(call) = tables::range_end() {
            // SAFETY: the domain is one that this profiler made. The number is the one that it gave the range; an unknown
            // one it ignores.
            unsafe { call(self.handle, range.0) };
        }
    }

    /// The number of a category; named on first use.
    fn category(&self, name: &'static str) -> u32 {
        let mut known = self.categories.lock();
        let at = known.iter().position(|known| *known == name).unwrap_or_else(|| {
            known.push(name);
            self.name_category(known.len() as u32, name); // as many as there are lanes
            known.len() - 1
        });
        at as u32 + 1
    }

    fn name_category(&self, number: u32, name: &str) {
        let Some((call, name)) = tables::name_category().zip(CString::new(name).ok()) else { return };
        // SAFETY: the domain is one that this profiler made; it copies the text, which lives until it returns.
        unsafe { call(self.handle, number, name.as_ptr()) };
    }
}

// SAFETY: the handles are the profiler's, which takes them from any thread; they are never read through.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

fn open(path: &Path, name: &CStr, names: &[&'static CStr]) -> Result<Domain, String> {
    let said = |error: libloading::Error| {
        // libloading keeps the linker's own words in the error's source.
        std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
    };
    // SAFETY: loading it runs its constructors, which is what whoever named it in this process's environment wants.
    let library = unsafe { Library::open(Some(path), unix::RTLD_LAZY | unix::RTLD_LOCAL) }.map_err(said)?;
    // SAFETY: a library that has a function of this name has it of this type: the name is NVTX's.
    let initialize = *unsafe { library.get::<InitializeInjection>(abi::INITIALIZE) }.map_err(said)?;
    // SAFETY: what NVTX's own code does with it: called once for each user of NVTX, with the function that hands out
    // that user's tables, which are static.
    let accepted: c_int = unsafe { initialize(tables::export) };
    if accepted == 0 {
        return Err("it does not start here".into()); // dropping the library closes it, as NVTX does
    }
    std::mem::forget(library); // its functions are called from now on
    let create = tables::domain_create().ok_or("it takes no domains")?;
    tables::range_start().zip(tables::range_end()).ok_or("it takes no ranges")?;
    // SAFETY: it copies the name, which lives until it returns.
    let handle = unsafe { create(name.as_ptr()) };
    let registered = names.iter().map(|name| (*name, register(handle, name)));
    Ok(Domain { handle, names: registered.collect(), categories: Mutex::default() })
}

fn register(domain: DomainHandle, text: &'static CStr) -> TextHandle {
    // SAFETY: the domain is one that this profiler made; the text is static.
    tables::register_text().map_or(TextHandle(ptr::null_mut()), |call| unsafe { call(domain, text.as_ptr()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_profiler_is_an_error_and_no_domain() {
        let missing = attach(Path::new("/no/such/profiler.so"), c"baton", &[]).unwrap_err();
        assert!(missing.contains("profiler.so"), "{missing}");
        let other = attach(Path::new("libc.so.6"), c"baton", &[]).unwrap_err();
        assert!(other.contains("InitializeInjectionNvtx2"), "{other}");
        assert!(domain().is_none());
    }
}
