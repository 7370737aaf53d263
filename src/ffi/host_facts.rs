//! Gathers from this process the facts that [`crate::host`] decides by: the host's library, its version file, its
//! symbols.
//!
//! Hosts load `libtensorrt_llm.so` in local scope too (Python does), where a global symbol look-up misses it, so
//! the loaded objects are walked by name first. Reads only; keeps no handle open.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::host::age::{HostFacts, Markers};
use crate::host::markers::AGENT_DESC_GREW;
use crate::host::version_file::version_beside;

/// What this process shows of its host.
pub fn gather() -> HostFacts {
    let Some(library) = loaded_host_library().or_else(|| object_of(global_symbol(AGENT_DESC_GREW[0])?))
    else {
        return HostFacts::default();
    };
    let (version_file, version) = version_beside(&library);
    HostFacts {
        markers: markers_of(&library),
        library: Some(library.display().to_string()),
        version_file: Some(version_file.display().to_string()),
        version,
    }
}

/// Path of the shared object that holds this code.
pub fn own_path() -> Option<PathBuf> {
    object_of(own_path as *const c_void)
}

const LIBRARY: &[u8] = b"libtensorrt_llm.so";

fn loaded_host_library() -> Option<PathBuf> {
    let mut found: Option<PathBuf> = None;
    // SAFETY: `note_host_library` has the signature the call wants, takes `data` for the `Option<PathBuf>` it
    // is, which outlives the call and is used by nothing else, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(note_host_library), (&raw mut found).cast()) };
    found
}

unsafe extern "C" fn note_host_library(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the loader hands out a valid record for the time of this call; its name is NULL or a C string.
    let name = unsafe { (*info).dlpi_name };
    if name.is_null() {
        return 0;
    }
    // SAFETY: not null, so a C string of the loader's that lives while this call runs.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    if !path.file_name().is_some_and(is_host_library) {
        return 0;
    }
    // SAFETY: `data` is the caller's `Option<PathBuf>`, borrowed by nobody else during the walk.
    unsafe { *data.cast::<Option<PathBuf>>() = Some(path.to_owned()) };
    1
}

/// `libtensorrt_llm.so`, with or without a version behind it; not its wrappers and plugins.
fn is_host_library(file_name: &OsStr) -> bool {
    file_name.as_bytes().strip_prefix(LIBRARY).is_some_and(|rest| rest.is_empty() || rest[0] == b'.')
}

fn markers_of(library: &Path) -> Option<Markers> {
    let path = CString::new(library.as_os_str().as_bytes()).ok()?;
    // SAFETY: a C string and flags; NOLOAD runs no code of the library, it is loaded already.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    let markers = Markers::look_up(|name| symbol(handle, name).is_some());
    // SAFETY: the handle came from dlopen above and is not used again.
    unsafe { libc::dlclose(handle) };
    Some(markers)
}

fn global_symbol(name: &CStr) -> Option<*const c_void> {
    symbol(libc::RTLD_DEFAULT, name)
}

/// Address of a symbol in an open library (or RTLD_DEFAULT).
fn symbol(handle: *mut c_void, name: &CStr) -> Option<*const c_void> {
    // SAFETY: `handle` is open or RTLD_DEFAULT, at both call sites; `name` is a C string.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    (!address.is_null()).then_some(address.cast_const())
}

/// Path of the loaded object that holds `address`.
fn object_of(address: *const c_void) -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: dladdr takes any address and fills `info` when it returns non-zero.
    let known = unsafe { libc::dladdr(address, &raw mut info) } != 0;
    let name: *const c_char = info.dli_fname;
    if !known || name.is_null() {
        return None;
    }
    // SAFETY: a C string of the loader's; the object that holds running code stays loaded.
    Some(PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_library_is_told_from_its_neighbours() {
        for (name, expected) in [
            ("libtensorrt_llm.so", true),
            ("libtensorrt_llm.so.1", true),
            ("libtensorrt_llm_nixl_wrapper.so", false),
            ("libtensorrt_llm.sockets", false),
            ("libnvinfer_plugin_tensorrt_llm.so", false),
        ] {
            assert_eq!(is_host_library(OsStr::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn a_process_without_the_host_has_no_facts() {
        assert_eq!(gather(), HostFacts::default());
        assert!(own_path().is_some());
    }
}
