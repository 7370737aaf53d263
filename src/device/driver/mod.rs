//! The driver's library, opened at run time: found, checked for age, every function resolved.
//!
//! Two layers say `unsafe` freely: [`table`], the functions as they are, and [`query`], questions whose answers are
//! plain values. What owns something of CUDA's has a file of its own one floor up.
//!
//! Threads: the table is read-only and CUDA's driver may be called by any thread; which context a call means is each
//! caller's business.
#![allow(unsafe_code)]

mod query;
mod table;

use std::ffi::{CStr, OsStr, c_char, c_void};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::ptr;

use libloading::os::unix::{self, Library};

pub(super) use self::query::{PointerFacts, Raw};
pub(super) use self::table::Functions;
use super::DeviceError;

/// The name that the dynamic linker knows the driver by.
const SONAME: &str = "libcuda.so.1";
const NAMED_ADVICE: &str = "have BATON_CUDA_LIBRARY name the driver's libcuda.so.1, or unset it";

/// The oldest driver that is served, as CUDA counts: 12.0. What it lacks, Baton does not use.
const OLDEST: i32 = 12_000;

/// The driver, open and started. Never closed: it keeps threads that outlive a `dlclose`.
pub(super) struct Driver {
    functions: Functions,
    version: i32,
    path: PathBuf,
}

impl Deref for Driver {
    type Target = Functions;

    fn deref(&self) -> &Functions {
        &self.functions
    }
}

impl Driver {
    /// Opens the driver, the copy that this process has already, else the file at `override_path`, else the system's,
    /// and starts it.
    pub fn open(override_path: Option<&Path>) -> Result<Self, DeviceError> {
        let library = load(override_path)?;
        let path = path_of(&library).unwrap_or_else(|| override_path.unwrap_or(Path::new(SONAME)).to_owned());
        let missing = |symbol: &'static str| {
            let detail = format!(
                "{} has no function {symbol}: it is no CUDA driver, or one before CUDA {}",
                path.display(),
                version_text(OLDEST)
            );
            DeviceError::ours("dlsym", None, detail)
        };
        let functions = Functions::load(&library).map_err(missing)?;
        std::mem::forget(library);
        let mut driver = Self { functions, version: 0, path };
        driver.start()?;
        Ok(driver)
    }

    fn start(&mut self) -> Result<(), DeviceError> {
        let mut version = 0;
        // SAFETY: a valid place to write to; may be called before cuInit.
        let code = unsafe { (self.driver_version)(&mut version) };
        self.check("cuDriverGetVersion", None, code)?;
        self.version = version;
        if version < OLDEST {
            let detail = format!(
                "{} is the driver of CUDA {}; {} or newer is needed: update it",
                self.path.display(),
                version_text(version),
                version_text(OLDEST)
            );
            return Err(DeviceError::ours("cuDriverGetVersion", None, detail));
        }
        // SAFETY: 0 is the one value that there is; any thread may call it, any number of times.
        let code = unsafe { (self.init)(0) };
        self.check("cuInit", None, code)
    }

    /// The version and the file, for log lines: `12.8 (/usr/lib/libcuda.so.1)`.
    pub fn description(&self) -> String {
        format!("{} ({})", version_text(self.version), self.path.display())
    }

    /// What a call has returned, as a result.
    pub fn check(&self, call: &'static str, device: Option<u32>, code: u32) -> Result<(), DeviceError> {
        match code {
            0 => Ok(()),
            code => {
                Err(DeviceError { call, code, name: self.error_name(code), device, detail: String::new() })
            }
        }
    }

    fn error_name(&self, code: u32) -> String {
        let mut name: *const c_char = ptr::null();
        // SAFETY: any code may be asked about; an unknown one leaves null. The place to write to is valid.
        let outcome = unsafe { (self.error_name)(code, &mut name) };
        if outcome != 0 || name.is_null() {
            return String::new();
        }
        // SAFETY: not null: a C string that is part of the library, which is never unloaded.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }
}

/// 12080 is 12.8.
fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

fn load(override_path: Option<&Path>) -> Result<Library, DeviceError> {
    if let Ok(loaded) = dlopen(OsStr::new(SONAME), libc::RTLD_NOLOAD) {
        return Ok(loaded);
    }
    // One without a slash the linker looks for in its own folders.
    if let Some(path) = override_path.filter(|path| path.components().count() > 1)
        && path.exists()
        && !path.is_file()
    {
        let detail = format!("cannot load {}: it is no regular file; {NAMED_ADVICE}", path.display());
        return Err(DeviceError::ours("dlopen", None, detail)); // a pipe would be waited for
    }
    let name = override_path.map_or(OsStr::new(SONAME), Path::as_os_str);
    dlopen(name, 0).map_err(|error| {
        // libloading keeps the linker's own words in the error's source.
        let reason = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        let advice = match override_path {
            Some(_) => NAMED_ADVICE,
            None => "install NVIDIA's driver, or let the container see the host's, to move GPU memory",
        };
        DeviceError::ours(
            "dlopen",
            None,
            format!("cannot load {}: {reason}; {advice}", name.to_string_lossy()),
        )
    })
}

fn dlopen(name: &OsStr, extra_flags: i32) -> Result<Library, libloading::Error> {
    // SAFETY: loading the driver runs its constructors, which set up its own state and may be run in any process.
    unsafe { Library::open(Some(name), unix::RTLD_NOW | unix::RTLD_LOCAL | extra_flags) }
}

/// The file that the library is, if it is a driver.
fn path_of(library: &Library) -> Option<PathBuf> {
    // SAFETY: only the function's address is used; it is never called as this type.
    let symbol = unsafe { library.get::<unsafe extern "C" fn()>(b"cuInit\0") }.ok()?;
    // SAFETY: all fields are plain data for which zero is valid.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid place to write to; any address may be asked about.
    let known = unsafe { libc::dladdr(*symbol as *const c_void, &mut info) };
    if known == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: not null, and the loader's own C string, which lives as long as the library: for ever.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    let path = PathBuf::from(name.to_string_lossy().into_owned());
    Some(path.canonicalize().unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_written_as_people_write_them() {
        assert_eq!(
            ["12.0", "12.8", "13.0"],
            [12_000, 12_080, 13_000].map(version_text).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn a_library_that_is_no_driver_is_refused_by_a_function_that_it_lacks() {
        let error = Driver::open(Some(Path::new("libc.so.6"))).err().expect("no driver");
        assert!(error.to_string().contains("libc.so.6 has no function cuInit"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Driver::open(Some(Path::new("/nowhere/libcuda.so.1"))).err().expect("no such file");
        let text = error.to_string();
        assert!(text.contains("/nowhere/libcuda.so.1") && text.contains("BATON_CUDA_LIBRARY"), "{text}");
    }
}
