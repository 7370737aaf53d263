//! The programs of a run: the engine host of the seam and the library that it opens.

use std::path::PathBuf;

use super::DemoArgs;
use super::seam::Seam;
use crate::installed::{LIBRARY_FOLDERS, Missing, Wanted};

/// The programs that a run consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// What plays the engine.
    pub host: HostProgram,
    /// The folder that holds the library under the name the host opens.
    pub library_folder: PathBuf,
}

/// An engine host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostProgram {
    /// `baton-engine-host`, which plays the C++ runtime.
    Native(PathBuf),
    /// The Python engine host, which plays the Python runtime.
    Python {
        /// The interpreter.
        python: PathBuf,
        /// The folder with the host's `__main__.py`.
        folder: PathBuf,
        /// The folder with the package `tensorrt_llm` that holds the binding.
        binding: PathBuf,
    },
}

/// Finds the engine host of a seam, and the library.
///
/// # Errors
/// What was not found, every place that was looked at, and the flag that names its place.
pub fn find(args: &DemoArgs, seam: Seam, library: &'static str) -> Result<Programs, Missing> {
    let host = match seam {
        Seam::S1 | Seam::S3 => HostProgram::Native(native_host(args)?),
        Seam::S2 => python_host(args)?,
    };
    let wanted = Wanted {
        what: library,
        flag: "--lib-dir",
        given: args.lib_dir.as_ref(),
        near: LIBRARY_FOLDERS,
        file: library,
    };
    Ok(Programs { host, library_folder: wanted.find()? })
}

fn native_host(args: &DemoArgs) -> Result<PathBuf, Missing> {
    let given = args.host.as_ref();
    Wanted { what: "the engine host", flag: "--host", given, near: HOSTS, file: "" }.find()
}

fn python_host(args: &DemoArgs) -> Result<HostProgram, Missing> {
    let given = args.python.as_ref();
    let python = Wanted { what: "Python", flag: "--python", given, near: &[], file: "" };
    let folder = Wanted {
        what: "the Python engine host",
        flag: "--python-host",
        given: args.python_host.as_ref(),
        near: PYTHON_HOSTS,
        file: "__main__.py",
    };
    let binding = Wanted {
        what: "the Python binding",
        flag: "--binding-dir",
        given: args.binding_dir.as_ref(),
        near: BINDINGS,
        file: "tensorrt_llm/__init__.py",
    };
    // An interpreter that is not named is looked for along PATH when it is started.
    let python = if given.is_some() { python.find()? } else { PathBuf::from(PYTHON) };
    Ok(HostProgram::Python { python, folder: folder.find()?, binding: binding.find()? })
}

/// The interpreter where none is named.
pub const PYTHON: &str = "python3";
/// Where an installed or a freshly built engine host lies, seen from the `baton` executable.
const HOSTS: &[&str] =
    &["baton-engine-host", "../libexec/baton/baton-engine-host", "../../build/bin/baton-engine-host"];
/// The same for the Python engine host,
const PYTHON_HOSTS: &[&str] = &["../libexec/baton/python_engine_host", "../../examples/python_engine_host"];
/// and for the binding that it imports.
const BINDINGS: &[&str] = &["../libexec/baton/python", "../../build/python/plain-open"];
