//! Which agent TensorRT-LLM would load through each of its doors, and why: a pure decision over facts.
//!
//! ```text
//!   backend    runtime   seam  asks              for
//!   NIXL       C++       S1    libtensorrt_llm   dlopen of libtensorrt_llm_nixl_wrapper.so, a factory
//!   NIXL       Python    S2    agent binding     DT_NEEDED of the same file, the classes it links to
//!   UCX        C++       S3    libtensorrt_llm   dlopen of libtensorrt_llm_ucx_wrapper.so, a factory
//!   MOONCAKE   C++       S1    libtensorrt_llm   dlopen of libtensorrt_llm_mooncake_wrapper.so, a factory
//! ```
//!
//! The Python runtime swallows the ImportError of its binding and goes on with the `nixl` package; one INFO line is all
//! that shows it. That is the failure this file is for.

use std::fmt;
use std::path::PathBuf;

use baton::config::backend::Backend;
use baton::config::transceiver;
use serde::Serialize;

use super::elf::Elf;
use super::loader::{Hit, Loaded, Rule, Search};
use super::package::{AGENT_BINDING, AGENT_CLASSES, HOST_LIBRARY};

/// A way by which TensorRT-LLM comes to an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// The backend that uses it.
    pub backend: Backend,
    /// The runtime that uses it.
    pub runtime: Runtime,
    /// Its name in docs/seams.md.
    pub seam: &'static str,
    /// The file that is asked for.
    pub library: &'static str,
    /// The function that is asked for; none where classes are linked.
    pub factory: Option<&'static str>,
}

/// The two runtimes of the transceiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Runtime {
    /// Compiled into `libtensorrt_llm.so`.
    #[serde(rename = "CPP")]
    Cpp,
    /// Python, which imports an agent.
    #[serde(rename = "PYTHON")]
    Python,
}

impl Runtime {
    /// As `transceiver_runtime` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Cpp => "CPP",
            Runtime::Python => "PYTHON",
        }
    }
}

/// All doors.
pub const DOORS: [Door; 4] = [
    Door {
        backend: Backend::Nixl,
        runtime: Runtime::Cpp,
        seam: "S1",
        library: NIXL_WRAPPER,
        factory: Some("createNixlTransferAgent"),
    },
    Door {
        backend: Backend::Nixl,
        runtime: Runtime::Python,
        seam: "S2",
        library: NIXL_WRAPPER,
        factory: None,
    },
    Door {
        backend: Backend::Ucx,
        runtime: Runtime::Cpp,
        seam: "S3",
        library: "libtensorrt_llm_ucx_wrapper.so",
        factory: Some("makeUcxConnectionManager"),
    },
    Door {
        backend: Backend::Mooncake,
        runtime: Runtime::Cpp,
        seam: "S1",
        library: "libtensorrt_llm_mooncake_wrapper.so",
        factory: Some("createMooncakeTransferAgent"),
    },
];

/// What was found behind a door.
#[derive(Clone, Debug, Default)]
pub struct DoorFacts {
    /// The object that asks; none where the package has none.
    pub asker: Option<Loaded>,
    /// Why the object that asks is there and cannot be read.
    pub unreadable: Option<String>,
    /// The package's own copy of the library, where the loader does not come to it.
    pub passed_by: Option<PassedBy>,
    /// Where the loader would look, and what is there.
    pub search: Search,
    /// What each hit of the search says, in its order.
    pub files: Vec<Result<Elf, String>>,
    /// What the first hit asks of its own libraries and would not get.
    pub unmet: Vec<String>,
    /// Agent bindings for other Pythons.
    pub other_bindings: Vec<String>,
    /// The folder of the Python package `nixl`.
    pub nixl_package: Option<PathBuf>,
    /// `TRTLLM_USE_PY_NIXL_KVCACHE=1`.
    pub python_forced: bool,
}

/// A file that is there and not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedBy {
    /// The file.
    pub path: PathBuf,
    /// Why the loader goes by it.
    pub why: String,
    /// What to do.
    pub advice: String,
}

impl fmt::Display for PassedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lies there, but {}", self.path.display(), self.why)
    }
}

/// Who would serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Serves {
    /// Baton.
    Baton,
    /// The wrapper that came with TensorRT-LLM.
    Stock,
    /// The Python package `nixl`, without any wrapper.
    PyNixl,
    /// Nobody: the host stops with an error.
    Nothing,
    /// This package has no such door.
    NotOffered,
}

/// The answer for one door.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DoorReport {
    /// The backend.
    pub backend: Backend,
    /// The runtime.
    pub runtime: Runtime,
    /// Its name in docs/seams.md.
    pub seam: &'static str,
    /// The file that is asked for.
    pub library: &'static str,
    /// Who would serve.
    pub serves: Serves,
    /// The file, or the folder of the package, that would.
    pub file: Option<PathBuf>,
    /// Baton's version, where it is Baton's.
    pub version: Option<String>,
    /// How the loader comes to it.
    pub found_by: Option<Rule>,
    /// Why.
    pub why: String,
    /// What to do to get Baton there.
    pub advice: Option<String>,
    /// Whether this configuration goes through here.
    pub in_use: bool,
}

/// Which agent `door` gives, and why.
pub fn judge(door: Door, facts: &DoorFacts) -> DoorReport {
    let verdict = match (door.runtime, &facts.asker) {
        (Runtime::Python, _) if facts.python_forced => {
            let reason = "TRTLLM_USE_PY_NIXL_KVCACHE=1 takes the nixl package whatever the wrapper is";
            fallback(facts, reason.to_owned(), "unset TRTLLM_USE_PY_NIXL_KVCACHE".to_owned())
        }
        (runtime, None) if facts.unreadable.is_some() => unreadable(runtime, facts),
        (Runtime::Python, None) if !facts.other_bindings.is_empty() => {
            let names = facts.other_bindings.join(", ");
            let reason = format!("{AGENT_BINDING} is there for another Python alone ({names}): ImportError");
            fallback(facts, reason, "name the Python that serves with --python".to_owned())
        }
        (Runtime::Python, None) => not_offered(format!("the package has no {AGENT_BINDING}*.so")),
        (Runtime::Cpp, None) => not_offered(format!("the package has no libs/{HOST_LIBRARY}")),
        (Runtime::Cpp, Some(_)) => through_factory(door, facts),
        (Runtime::Python, Some(binding)) => through_classes(door, binding, facts),
    };
    let Door { backend, runtime, seam, library, .. } = door;
    let Verdict { serves, file, version, found_by, why, advice } = verdict;
    DoorReport {
        backend,
        runtime,
        seam,
        library,
        serves,
        file,
        version,
        found_by,
        why,
        advice,
        in_use: false,
    }
}

/// Whether a backend and a runtime go through `door`. Where nobody has named a runtime, both may be meant: the default
/// differs between releases.
pub fn is_used(door: &DoorReport, backend: Option<Backend>, runtime: Option<transceiver::Runtime>) -> bool {
    let runtimes = match runtime {
        Some(transceiver::Runtime::Cpp) => door.runtime == Runtime::Cpp,
        Some(transceiver::Runtime::Python) => door.runtime == Runtime::Python,
        Some(transceiver::Runtime::Auto) | None => door.serves != Serves::NotOffered,
    };
    backend == Some(door.backend) && runtimes
}

#[derive(Debug)]
struct Verdict {
    serves: Serves,
    file: Option<PathBuf>,
    version: Option<String>,
    found_by: Option<Rule>,
    why: String,
    advice: Option<String>,
}

/// The C++ runtime: dlopen, then a factory. Where that fails the host throws.
fn through_factory(door: Door, facts: &DoorFacts) -> Verdict {
    let factory = door.factory.unwrap_or_default();
    match first_file(door, facts) {
        Err((why, advice)) => Verdict {
            serves: Serves::Nothing,
            file: None,
            version: None,
            found_by: None,
            why,
            advice: Some(advice),
        },
        Ok((hit, elf)) if !elf.exports.contains(factory) => Verdict {
            serves: Serves::Nothing,
            file: Some(hit.path.clone()),
            version: elf.baton.clone(),
            found_by: Some(hit.rule.clone()),
            why: format!("{} does not export {factory}", hit.path.display()),
            advice: Some(overlay(hit, elf)),
        },
        Ok((hit, elf)) => loaded(hit, elf, facts),
    }
}

/// The Python runtime: a module that is linked to the wrapper. Where that fails, the nixl package.
fn through_classes(door: Door, binding: &Loaded, facts: &DoorFacts) -> Verdict {
    if !binding.elf.needed.iter().any(|needed| needed == door.library) {
        let reason = format!("{} is built without {}: it has no agent", binding.path.display(), door.library);
        let advice = "use transceiver_runtime: CPP, or a TensorRT-LLM that is built with NIXL".to_owned();
        return fallback(facts, reason, advice);
    }
    match first_file(door, facts) {
        Err((why, advice)) => fallback(facts, format!("ImportError of the agent binding: {why}"), advice),
        Ok((hit, elf)) => {
            let missing: Vec<&String> = binding.elf.imports.difference(&elf.exports).collect();
            match missing.is_empty() {
                true => loaded(hit, elf, facts),
                false => fallback(facts, lacking(binding, hit, elf, &missing), overlay(hit, elf)),
            }
        }
    }
}

/// The file that the loader stops at, and what it says; or why there is none that it can use, and what to do.
fn first_file(door: Door, facts: &DoorFacts) -> Result<(&Hit, &Elf), (String, String)> {
    let folder = facts.search.looked_in.first().map(|(folder, _)| folder.display().to_string());
    let put = |place: String| format!("put Baton's {} in {place}", door.library);
    let Some(hit) = facts.search.hits.first() else {
        let why = format!("no {} in any folder that the loader looks into", door.library);
        if let Some(passed_by) = &facts.passed_by {
            return Err((format!("{why}; {passed_by}"), passed_by.advice.clone()));
        }
        return Err((why, put(folder.unwrap_or_else(|| "a folder on LD_LIBRARY_PATH".to_owned()))));
    };
    let broken = |why: &String| {
        (format!("{} cannot be loaded: {why}", hit.path.display()), format!("replace {}", hit.path.display()))
    };
    if let Some(why) = &hit.broken {
        return Err(broken(why));
    }
    match facts.files.first() {
        Some(Ok(_)) if !facts.unmet.is_empty() => {
            let advice = "build Baton on a system no newer than this one, and replace it";
            Err((broken(&facts.unmet.join(", ")).0, advice.to_owned()))
        }
        Some(Ok(elf)) => Ok((hit, elf)),
        Some(Err(why)) => Err(broken(why)),
        None => Err(broken(&"it was not read".to_owned())),
    }
}

fn loaded(hit: &Hit, elf: &Elf, facts: &DoorFacts) -> Verdict {
    let mut why = format!("found by {}", hit.rule);
    if let Some(passed_by) = &facts.passed_by {
        why.push_str(&format!("; {passed_by}"));
    }
    let is_ours = elf.baton.is_some();
    let shadowed = facts.search.hits.iter().zip(&facts.files).skip(1).find_map(|(hit, file)| {
        let version = file.as_ref().ok()?.baton.as_ref()?;
        Some((hit, version))
    });
    if let (false, Some((other, version))) = (is_ours, shadowed) {
        why.push_str(&format!(
            "; Baton {version} at {} ({}) comes after it and is not looked at",
            other.path.display(),
            other.rule
        ));
    }
    Verdict {
        serves: if is_ours { Serves::Baton } else { Serves::Stock },
        file: Some(hit.path.clone()),
        version: elf.baton.clone(),
        found_by: Some(hit.rule.clone()),
        why,
        advice: (!is_ours).then(|| overlay(hit, elf)),
    }
}

fn lacking(binding: &Loaded, hit: &Hit, elf: &Elf, missing: &[&String]) -> String {
    let name = binding.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let whose = elf.baton.as_ref().map_or(String::new(), |version| format!(" (Baton {version})"));
    let first = missing.first().map_or("", |first| first.as_str());
    let bare = |name: &str| name.replace("3_v1", "");
    let respelt = elf.exports.iter().any(|name| name.contains(AGENT_CLASSES) && bare(name) == bare(first));
    let spelling = if respelt { "; it has the class in another spelling of the namespace" } else { "" };
    format!(
        "{}{whose} lacks {} of the {} agent symbols that {name} imports, {first} first: ImportError{spelling}",
        hit.path.display(),
        missing.len(),
        binding.elf.imports.len()
    )
}

/// What the Python runtime does where it cannot import the binding.
fn fallback(facts: &DoorFacts, reason: String, advice: String) -> Verdict {
    let (serves, end) = match &facts.nixl_package {
        Some(_) => {
            (Serves::PyNixl, "the host logs \"Failed to import module\" as INFO and uses the nixl package")
        }
        None => (Serves::Nothing, "and this Python has no nixl package to fall back to"),
    };
    Verdict {
        serves,
        file: facts.nixl_package.clone(),
        version: None,
        found_by: None,
        why: format!("{reason}; {end}"),
        advice: Some(advice),
    }
}

/// The object that asks is broken: the C++ runtime cannot start, Python goes on without its binding.
fn unreadable(runtime: Runtime, facts: &DoorFacts) -> Verdict {
    let why = format!("it cannot be read: {}", facts.unreadable.as_deref().unwrap_or_default());
    let advice = "install this TensorRT-LLM again".to_owned();
    match runtime {
        Runtime::Python => fallback(facts, why, advice),
        Runtime::Cpp => Verdict { serves: Serves::Nothing, advice: Some(advice), ..not_offered(why) },
    }
}

fn not_offered(why: String) -> Verdict {
    Verdict { serves: Serves::NotOffered, file: None, version: None, found_by: None, why, advice: None }
}

/// What to do about the file that is loaded.
fn overlay(hit: &Hit, elf: &Elf) -> String {
    match (&hit.rule, &elf.baton) {
        (Rule::Preloaded, _) => format!("take {} out of LD_PRELOAD", hit.path.display()),
        (_, Some(version)) => {
            format!("replace {} (Baton {version}) by a Baton that has this seam", hit.path.display())
        }
        (_, None) => format!("lay Baton's library over {}", hit.path.display()),
    }
}

const NIXL_WRAPPER: &str = "libtensorrt_llm_nixl_wrapper.so";

#[cfg(test)]
mod tests;
