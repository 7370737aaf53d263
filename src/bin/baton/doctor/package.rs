//! What lies in a TensorRT-LLM package folder, and what the loader has around it. Files are read, never loaded.

use std::fs;
use std::path::{Path, PathBuf};

use baton::config::Environment;
use baton::host::age::{HostFacts, Markers};
use baton::host::{markers, version_file};

use super::elf::Elf;
use super::ld_cache;
use super::loader::{Loaded, Surroundings};
use super::python::Python;

/// A package folder.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// The folder.
    pub folder: PathBuf,
    /// `libs/libtensorrt_llm.so`: what opens the wrappers for the C++ runtime.
    pub host: Option<Loaded>,
    /// `bindings*.so`: what loads that library.
    pub bindings: Option<Loaded>,
    /// `tensorrt_llm_transfer_agent_binding*.so`: what the Python runtime imports.
    pub agent_binding: Option<Loaded>,
    /// Agent bindings that are there, but for another Python.
    pub other_agent_bindings: Vec<String>,
    /// Files that could not be read, with the reason.
    pub unreadable: Vec<String>,
}

impl Package {
    /// Reads a folder; `suffixes` are those of the Python's extension modules, or nothing where there is no Python.
    ///
    /// # Errors
    /// There is no such folder, or no TensorRT-LLM in it.
    pub fn read(folder: &Path, suffixes: &[String]) -> Result<Self, String> {
        let names = file_names(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut package = Self { folder: folder.to_owned(), ..Self::default() };
        let library = folder.join("libs").join(HOST_LIBRARY);
        if library.exists() {
            package.host = package.load(&library, is_marker);
        }
        let agent = extension(&names, AGENT_BINDING, suffixes);
        package.agent_binding =
            agent.and_then(|name| package.load(&folder.join(name), |name| name.contains(AGENT_CLASSES)));
        package.bindings = extension(&names, "bindings", suffixes)
            .and_then(|name| package.load(&folder.join(name), |_| false));
        if agent.is_none() {
            package.other_agent_bindings =
                names.iter().filter(|name| is_extension(name, AGENT_BINDING)).cloned().collect();
        }
        if package.host.is_none() && package.agent_binding.is_none() && package.unreadable.is_empty() {
            return Err(format!(
                "{} has neither libs/{HOST_LIBRARY} nor {AGENT_BINDING}*.so: it is no installed tensorrt_llm package",
                folder.display()
            ));
        }
        Ok(package)
    }

    fn load(&mut self, path: &Path, wanted: impl Fn(&str) -> bool) -> Option<Loaded> {
        match Elf::read(path, wanted) {
            Ok(elf) => Some(Loaded { path: path.to_owned(), elf }),
            Err(error) => {
                self.unreadable.push(format!("{}: {error}", path.display()));
                None
            }
        }
    }

    /// What tells the host's age, as the library would find it in the process.
    pub fn host_facts(&self) -> HostFacts {
        let library = self.folder.join("libs").join(HOST_LIBRARY);
        let (file, version) = version_file::version_beside(&library);
        let has = |host: &Loaded, name: &std::ffi::CStr| {
            name.to_str().is_ok_and(|name| host.elf.exports.contains(name))
        };
        HostFacts {
            library: self.host.as_ref().map(|host| host.path.display().to_string()),
            version_file: Some(file.display().to_string()),
            version,
            markers: self.host.as_ref().map(|host| Markers::look_up(|name| has(host, name))),
        }
    }
}

/// The program of a Python, which is the last in every line of askers.
pub fn program(python: &Python) -> Option<Loaded> {
    let elf = Elf::read(&python.executable, |_| false).ok()?;
    Some(Loaded { path: python.executable.clone(), elf })
}

/// What the loader would go by in this environment.
pub fn surroundings(environment: &Environment) -> Surroundings {
    let list = |name, separators: &[char]| {
        let text = environment.shown(name).unwrap_or_default();
        let entries = text.split(separators).map(PathBuf::from);
        entries.collect::<Vec<_>>()
    };
    let library_path = match environment.shown("LD_LIBRARY_PATH").is_some_and(|text| !text.is_empty()) {
        // An empty entry is the current folder.
        true => list("LD_LIBRARY_PATH", &[':', ';'])
            .into_iter()
            .map(|entry| if entry.as_os_str().is_empty() { PathBuf::from(".") } else { entry })
            .collect(),
        false => Vec::new(),
    };
    let preloads = list("LD_PRELOAD", &[':', ' ']).into_iter().filter(|entry| !entry.as_os_str().is_empty());
    let soname = |path: &Path| Elf::read(path, |_| false).ok().and_then(|elf| elf.soname);
    Surroundings {
        library_path,
        preloaded: preloads.map(|path| (path.clone(), soname(&path))).collect(),
        cache: fs::read(LD_CACHE).map(|bytes| ld_cache::parse(&bytes)).unwrap_or_default(),
    }
}

fn file_names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names: Vec<String> =
        fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// The file that `import stem` takes.
fn extension<'a>(names: &'a [String], stem: &str, suffixes: &[String]) -> Option<&'a String> {
    if suffixes.is_empty() {
        return names.iter().find(|name| is_extension(name, stem));
    }
    suffixes.iter().find_map(|suffix| names.iter().find(|name| **name == format!("{stem}{suffix}")))
}

fn is_extension(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".so"))
}

fn is_marker(name: &str) -> bool {
    markers::names().any(|marker| marker.to_bytes() == name.as_bytes())
}

/// What the names of the agent's classes have in common, in every spelling of their namespace.
pub const AGENT_CLASSES: &str = "NixlTransfer";
/// The host's own library.
pub const HOST_LIBRARY: &str = "libtensorrt_llm.so";
/// The module of the Python runtime's agent.
pub const AGENT_BINDING: &str = "tensorrt_llm_transfer_agent_binding";
const LD_CACHE: &str = "/etc/ld.so.cache";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_the_one_of_this_python() {
        let names: Vec<String> = [
            "bindings.cpython-310-x86_64-linux-gnu.so",
            "bindings.cpython-312-x86_64-linux-gnu.so",
            "bindings.pyi",
        ]
        .map(str::to_owned)
        .into();
        let suffixes = [".cpython-312-x86_64-linux-gnu.so".to_owned(), ".so".to_owned()];
        assert_eq!(extension(&names, "bindings", &suffixes), Some(&names[1]));
        assert_eq!(extension(&names, "bindings", &[]), Some(&names[0]));
        assert_eq!(extension(&names, "bindings", &[".abi3.so".to_owned()]), None);
        assert_eq!(extension(&names, "bind", &[]), None);
    }

    #[test]
    fn the_loaders_lists_are_split_as_it_splits_them() {
        let environment =
            Environment::from_map([("LD_LIBRARY_PATH", "/a::/b;/c"), ("LD_PRELOAD", "/x.so  /y.so")]);
        let around = surroundings(&environment);
        assert_eq!(around.library_path, ["/a", ".", "/b", "/c"].map(PathBuf::from));
        assert_eq!(around.preloaded.len(), 2);
        assert!(surroundings(&Environment::from_map([("LD_LIBRARY_PATH", "")])).library_path.is_empty());
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let text = Package::read(Path::new("/nonexistent/tensorrt_llm"), &[]).unwrap_err();
        assert!(text.starts_with("/nonexistent/tensorrt_llm: No such file"), "{text}");
    }
}
