//! Raw bindings to UCX (its `ucp` layer), opened at run time: nothing links to UCX, and a machine without it
//! gets an [`OpenError`].
//!
//! [`bindings`] is generated from the headers of UCX 1.13 by `regenerate.sh`; later versions only append to
//! those structs, behind field masks, so one set of bindings serves them all. [`Library::open`] finds the
//! library, resolves every function and says which file and version it got.
//!
//! This crate adds no safety: who calls a function answers for UCX's own rules. It is not the place for
//! decisions about lanes or workers.
//!
//! Threads: [`Library`] is a table of function pointers and may be shared; UCX's objects may not.

use std::ffi::{CStr, OsStr, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use libloading::os::unix;
use thiserror::Error;

#[allow(missing_docs, non_camel_case_types, clippy::undocumented_unsafe_blocks, clippy::missing_safety_doc)]
#[rustfmt::skip]
pub mod bindings;

/// The name that the dynamic linker knows UCX by.
pub const SONAME: &str = "libucp.so.0";

/// The oldest version whose structs are laid out as [`bindings`] says.
pub const OLDEST: Version =
    Version { major: bindings::UCP_API_MAJOR, minor: bindings::UCP_API_MINOR, release: 0 };

/// A version of UCX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
    /// Third number.
    pub release: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.release)
    }
}

/// Where the library was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The process had it loaded: a second copy would not work beside it.
    AlreadyLoaded,
    /// At the path that the caller named.
    Override,
    /// Where the dynamic linker looks.
    SystemPath,
}

/// Why UCX could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is no such library, or it does not load.
    #[error("cannot load {name}: {reason}")]
    NotLoaded {
        /// Path or soname that was tried.
        name: String,
        /// What the dynamic linker said.
        reason: String,
    },
    /// It loads but lacks a function: it is not UCX, or a broken build of it.
    #[error("{path}: {reason}", path = path.display())]
    MissingSymbol {
        /// The file.
        path: PathBuf,
        /// What the dynamic linker said; names the function.
        reason: String,
    },
    /// It is older than [`OLDEST`].
    #[error("{path} is UCX {found}; {OLDEST} or newer is needed", path = path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: Version,
    },
}

/// UCX, open. Never unloaded: its helper libraries keep threads and signal handlers that outlive a `dlclose`.
pub struct Library {
    functions: ManuallyDrop<bindings::Functions>,
    version: Version,
    path: PathBuf,
    found: Found,
}

impl Library {
    /// Opens UCX: the copy this process has already, else the file at `override_path`, else the system's.
    pub fn open(override_path: Option<&Path>) -> Result<Self, OpenError> {
        let (handle, found) = load(override_path)?;
        let path = path_of(&handle);
        let missing =
            |error: libloading::Error| OpenError::MissingSymbol { path: path.clone(), reason: chain(&error) };
        let version = version_of(&handle).map_err(missing)?;
        if version < OLDEST {
            return Err(OpenError::TooOld { path, found: version });
        }
        // SAFETY: the library exports UCX's version query and is at least as new as the headers that the
        // signatures were generated from; UCX has not changed a signature since.
        let functions = unsafe { bindings::Functions::from_library(handle) }.map_err(missing)?;
        Ok(Self { functions: ManuallyDrop::new(functions), version, path, found })
    }

    /// The version it reports.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it was found.
    pub fn found(&self) -> Found {
        self.found
    }

    /// UCX's text for a status code.
    pub fn status_text(&self, status: bindings::ucs_status_t) -> String {
        // SAFETY: the function takes any value and returns a static or thread-local C string.
        let text = unsafe { (self.functions.ucs_status_string)(status) };
        if text.is_null() {
            return format!("status {status}");
        }
        // SAFETY: not null, and a C string that lives until this thread's next call.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }
}

impl Deref for Library {
    type Target = bindings::Functions;

    fn deref(&self) -> &bindings::Functions {
        &self.functions
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UCX {} at {}", self.version, self.path.display())
    }
}

fn load(override_path: Option<&Path>) -> Result<(libloading::Library, Found), OpenError> {
    if let Ok(loaded) = dlopen(OsStr::new(SONAME), libc::RTLD_NOLOAD) {
        return Ok((loaded, Found::AlreadyLoaded));
    }
    let (name, found) = match override_path {
        Some(path) => (path.as_os_str(), Found::Override),
        None => (OsStr::new(SONAME), Found::SystemPath),
    };
    match dlopen(name, 0) {
        Ok(library) => Ok((library, found)),
        Err(error) => {
            Err(OpenError::NotLoaded { name: name.to_string_lossy().into_owned(), reason: chain(&error) })
        }
    }
}

fn dlopen(name: &OsStr, extra_flags: i32) -> Result<libloading::Library, libloading::Error> {
    // SAFETY: loading UCX runs its constructors, which set up its own state and may be run in any process
    // (1.13 also sets a handler for SIGSEGV, 1.22 does not).
    let library =
        unsafe { unix::Library::open(Some(name), unix::RTLD_NOW | unix::RTLD_LOCAL | extra_flags) }?;
    Ok(library.into())
}

fn version_of(library: &libloading::Library) -> Result<Version, libloading::Error> {
    type GetVersion = unsafe extern "C" fn(*mut u32, *mut u32, *mut u32);
    // SAFETY: a function of this name has had this signature in every UCX.
    let query = unsafe { library.get::<GetVersion>(b"ucp_get_version\0") }?;
    let mut version = Version { major: 0, minor: 0, release: 0 };
    // SAFETY: three valid places to write to; the call does nothing else.
    unsafe { query(&mut version.major, &mut version.minor, &mut version.release) };
    Ok(version)
}

fn path_of(library: &libloading::Library) -> PathBuf {
    let unknown = || PathBuf::from(SONAME);
    // SAFETY: only the function's address is used; it is never called as this type.
    let Ok(symbol) = (unsafe { library.get::<unsafe extern "C" fn()>(b"ucp_get_version\0") }) else {
        return unknown();
    };
    // SAFETY: all fields are plain data for which zero is valid.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let address = *symbol as *const c_void;
    // SAFETY: `info` is a valid place to write to; any address may be asked about.
    let known = unsafe { libc::dladdr(address, &mut info) };
    if known == 0 || info.dli_fname.is_null() {
        return unknown();
    }
    // SAFETY: not null, and the loader's own C string, which lives as long as the library: for ever.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    path.canonicalize().unwrap_or(path)
}

/// libloading keeps the linker's own words in the error's source.
fn chain(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}
