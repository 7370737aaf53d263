//! Where the programs of a run lie: the engine host of the seam and the library that it opens.
//!
//! Flags say so, or they lie where `make install` or a build puts them, seen from this executable.

use std::fs;
use std::path::{self, Path, PathBuf};

use super::DemoArgs;
use super::error::DemoError;
use super::seam::Seam;

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
pub fn find(args: &DemoArgs, seam: Seam, library: &'static str) -> Result<Programs, DemoError> {
    let here = fs::read_link("/proc/self/exe")
        .ok()
        .and_then(|executable| executable.parent().map(Path::to_path_buf))
        .unwrap_or_default();
    let near = |flag: &Option<PathBuf>, folders: &[&str]| match flag {
        Some(place) => vec![place.clone()],
        None => folders.iter().map(|folder| here.join(folder)).collect(),
    };
    let host = match seam {
        Seam::S1 | Seam::S3 => {
            let places = near(&args.host, &HOSTS);
            HostProgram::Native(first("the engine host", "--host", places, "")?)
        }
        Seam::S2 => HostProgram::Python {
            python: match &args.python {
                Some(python) => first("Python", "--python", vec![python.clone()], "")?,
                None => PathBuf::from(PYTHON), // looked for along PATH when it is started
            },
            folder: first(
                "the Python engine host",
                "--python-host",
                near(&args.python_host, &PYTHON_HOSTS),
                "__main__.py",
            )?,
            binding: first(
                "the Python binding",
                "--binding-dir",
                near(&args.binding_dir, &BINDINGS),
                "tensorrt_llm/__init__.py",
            )?,
        },
    };
    let library_folder = first(library, "--lib-dir", near(&args.lib_dir, &LIBRARY_FOLDERS), library)?;
    Ok(Programs { host, library_folder })
}

/// The first place that holds `file`, or that is a file itself where that is empty.
fn first(
    what: &'static str,
    flag: &'static str,
    places: Vec<PathBuf>,
    file: &str,
) -> Result<PathBuf, DemoError> {
    let holds = |place: &&PathBuf| match file {
        "" => place.is_file(),
        file => place.join(file).is_file(),
    };
    // Made absolute but not resolved: the library is found under the name of the link, in the link's folder.
    let found = places.iter().find(holds).and_then(|place| path::absolute(place).ok());
    found.ok_or(DemoError::Missing { what, flag, looked_at: places })
}

/// The interpreter where none is named.
pub const PYTHON: &str = "python3";
/// Where an installed or a freshly built engine host lies, seen from the `baton` executable.
const HOSTS: [&str; 3] =
    ["baton-engine-host", "../libexec/baton/baton-engine-host", "../../build/bin/baton-engine-host"];
/// The same for the Python engine host,
const PYTHON_HOSTS: [&str; 2] = ["../libexec/baton/python_engine_host", "../../examples/python_engine_host"];
/// for the binding that it imports,
const BINDINGS: [&str; 2] = ["../libexec/baton/python", "../../build/python/plain-open"];
/// and for the library.
const LIBRARY_FOLDERS: [&str; 6] =
    [".", "../lib", "../lib64", "../lib/x86_64-linux-gnu", "../lib/aarch64-linux-gnu", "../../build/lib"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_flag() {
        let error = first("the engine host", "--host", vec!["/nowhere/h".into()], "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "the engine host was not found (looked at /nowhere/h); name its place with --host"
        );
        let places = vec!["/nowhere".into(), "/".into()];
        let error = first("the Python engine host", "--python-host", places, "__main__.py").unwrap_err();
        assert!(error.to_string().contains("(looked at /nowhere, /); name its place with --python-host"));
    }
}
