//! Gathers the facts of each section and has them judged. What a fact means is decided elsewhere.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use baton::agent::address::advertised_address;
use baton::config::backend::{Backend, Frontend, resolve};
use baton::config::explain::{Question, explain};
use baton::config::serving::ServingConfig;
use baton::config::{EngineSettings, Environment, abi_override, transceiver};
use baton::host::age;

use super::doors::{self, DOORS, Door, DoorFacts, DoorReport, PassedBy, Runtime};
use super::elf::{self, Elf};
use super::gpus::Gpus;
use super::lanes::{self, Address, LaneFacts};
use super::loader::{self, Loaded, Surroundings};
use super::machine::Machine;
use super::neighbour::{self, Tried};
use super::package::{self, AGENT_BINDING, AGENT_CLASSES, HOST_LIBRARY, Package};
use super::python::{self, Python};
use super::report::{Finding, HostReport, Report, Section, Severity};
use crate::meeting::meet;

/// Why there is no serving configuration to examine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoConfig {
    /// It cannot be read.
    Unread(String),
    /// It was read, and a worker would not start with it.
    Refused(String),
}

/// What to examine.
pub struct Subject {
    /// The Python; `python3` where none is named.
    pub python: Option<OsString>,
    /// The package folder, instead of the Python's own.
    pub package: Option<PathBuf>,
    /// The serving configuration; where none is named, the environment alone decides.
    pub serving: Result<Option<ServingConfig>, NoConfig>,
    /// The sections.
    pub sections: Vec<Section>,
    /// The environment that the workers will have.
    pub environment: Environment,
}

/// What a worker would use of all that is there.
struct Use {
    backend: Option<Backend>,
    runtime: Option<transceiver::Runtime>,
}

/// Examines everything that was asked for.
pub fn examine(subject: &Subject) -> Report {
    let mut report = Report { version: env!("CARGO_PKG_VERSION"), ..Report::default() };
    let used = used(subject);
    let has = |section| subject.sections.contains(&section);
    if (has(Section::Files) || has(Section::Host))
        && let Some(package) = find_package(subject, &mut report)
    {
        if has(Section::Files) {
            files(subject, &package, &used, &mut report);
        }
        if has(Section::Host) {
            host(subject, &package, &mut report);
        }
    }
    if let Err(why) = &subject.serving {
        without_configuration(why, &mut report);
    } else if has(Section::Config) {
        configuration(subject, &used, &mut report);
    }
    if has(Section::Lanes) {
        lanes(subject, &used, &mut report);
    }
    report.conclude();
    report
}

fn used(subject: &Subject) -> Use {
    let (configured, runtime) = match &subject.serving {
        Ok(Some(serving)) => (serving.transceiver.backend, serving.transceiver.transceiver_runtime),
        Ok(None) => (Some(Backend::Default), None),
        Err(_) => (None, None),
    };
    let resolved = configured.map(|backend| resolve(backend, &subject.environment, Frontend::Python).backend);
    Use { backend: resolved, runtime }
}

/// The package folder and what is in it; the Python on the way to it goes into the report.
fn find_package(subject: &Subject, report: &mut Report) -> Option<Package> {
    match python::ask(subject.python.as_deref().unwrap_or(OsStr::new("python3"))) {
        Ok(python) => report.python = Some(python),
        Err(error) if subject.python.is_some() || subject.package.is_none() => {
            report.unexamined.push(error.to_string());
        }
        Err(error) => report.findings.push(Finding {
            severity: Severity::Note,
            section: Section::Files,
            text: format!("whether it has a nixl package to fall back to is not known: {error}"),
            advice: "name the Python that serves with --python".into(),
        }),
    }
    let own = report.python.as_ref().and_then(|python| python.tensorrt_llm.clone());
    let Some(folder) = subject.package.clone().or(own) else {
        if let Some(python) = &report.python {
            report.unexamined.push(format!(
                "{} has no package tensorrt_llm: name the Python that serves with --python, the folder with --trtllm, \
                 or leave this out with --section lanes,config",
                python.executable.display()
            ));
        }
        return None;
    };
    let suffixes = report.python.as_ref().map(|python| python.suffixes.as_slice()).unwrap_or_default();
    match Package::read(&folder, suffixes) {
        Ok(package) => {
            report.unexamined.extend(package.unreadable.iter().cloned());
            report.package = Some(folder);
            Some(package)
        }
        Err(error) => {
            report.unexamined.push(error);
            None
        }
    }
}

fn files(subject: &Subject, package: &Package, used: &Use, report: &mut Report) {
    let around = package::surroundings(&subject.environment);
    let python = report.python.clone();
    let judge = |door: Door| {
        let facts = door_facts(door, package, python.as_ref(), &around, &subject.environment);
        let judged = doors::judge(door, &facts);
        DoorReport { in_use: doors::is_used(&judged, used.backend, used.runtime), ..judged }
    };
    report.doors = DOORS.into_iter().map(judge).collect();
    report.add_door_findings();
    if let Some(backend) = used.backend.filter(|backend| *backend != Backend::Mpi)
        && !report.doors.iter().any(|door| door.in_use)
    {
        report.findings.push(Finding {
            severity: Severity::Error,
            section: Section::Files,
            text: format!("{} has no way to an agent for backend {backend}", package.folder.display()),
            advice: "use a complete tensorrt_llm package, or another backend or runtime".into(),
        });
    }
}

fn door_facts(
    door: Door,
    package: &Package,
    python: Option<&Python>,
    around: &Surroundings,
    environment: &Environment,
) -> DoorFacts {
    let asker = match door.runtime {
        Runtime::Cpp => package.host.clone(),
        Runtime::Python => package.agent_binding.clone(),
    };
    // Who loaded the asker: its DT_RPATH counts too.
    let line = match door.runtime {
        Runtime::Cpp => package.bindings.clone(),
        Runtime::Python => None,
    };
    let askers: Vec<_> =
        asker.clone().into_iter().chain(line).chain(python.and_then(package::program)).collect();
    let search = match asker.is_some() {
        true => loader::search(door.library, &askers, around, &elf::kind),
        false => loader::Search::default(),
    };
    let wanted = |name: &str| name.contains(AGENT_CLASSES) || Some(name) == door.factory;
    let files: Vec<_> = search.hits.iter().map(|hit| Elf::read(&hit.path, wanted)).collect();
    let first = search.hits.first().zip(files.first().and_then(|file| file.as_ref().ok()));
    let stem = match door.runtime {
        Runtime::Cpp => package.folder.join("libs").join(HOST_LIBRARY),
        Runtime::Python => package.folder.join(AGENT_BINDING),
    };
    let stem = stem.display().to_string();
    DoorFacts {
        unreadable: package.unreadable.iter().find(|text| text.starts_with(&stem)).cloned(),
        passed_by: passed_by(&package.folder.join("libs").join(door.library), asker.as_ref(), &search),
        unmet: first.map(|(hit, elf)| unmet(&hit.path, elf, &askers, around)).unwrap_or_default(),
        files,
        asker,
        search,
        other_bindings: package.other_agent_bindings.clone(),
        nixl_package: python.and_then(|python| python.nixl.clone()),
        python_forced: environment.is_on("TRTLLM_USE_PY_NIXL_KVCACHE"),
    }
}

/// The package's own copy, where the loader goes by it.
fn passed_by(path: &Path, asker: Option<&Loaded>, search: &loader::Search) -> Option<PassedBy> {
    let (asker, real) = (asker?, path.canonicalize().ok()?);
    if search.hits.iter().any(|hit| hit.path.canonicalize().is_ok_and(|hit| hit == real)) {
        return None;
    }
    let (why, advice) = match elf::kind(path) {
        elf::FileKind::OtherMachine => {
            ("it is for another processor".to_owned(), "replace it by one for x86-64".to_owned())
        }
        _ => (
            format!(
                "neither LD_LIBRARY_PATH nor a DT_RPATH or DT_RUNPATH that counts for {} leads there",
                asker.path.display()
            ),
            format!("put {} on the workers' LD_LIBRARY_PATH", path.parent().unwrap_or(path).display()),
        ),
    };
    Some(PassedBy { path: path.to_owned(), why, advice })
}

/// What Baton's own file asks of its libraries and would not get here. The stock wrapper's are its maker's business, and
/// some of them are in the process before it.
fn unmet(path: &Path, elf: &Elf, askers: &[Loaded], around: &Surroundings) -> Vec<String> {
    if elf.baton.is_none() {
        return Vec::new();
    }
    let own = Loaded { path: path.to_owned(), elf: elf.clone() };
    let line: Vec<_> = [own].into_iter().chain(askers.iter().cloned()).collect();
    let mut found = Vec::new();
    for library in &elf.needed {
        let search = loader::search(library, &line, around, &elf::kind);
        let Some(hit) = search.hits.first() else {
            found.push(format!("it needs {library}, which is not found"));
            continue;
        };
        let given = Elf::read(&hit.path, |_| false).map(|elf| elf.given_versions).unwrap_or_default();
        let wanted =
            elf.needed_versions.iter().filter(|(of, version)| of == library && !given.contains(version));
        found.extend(wanted.map(|(_, version)| {
            format!("it needs {version} of {library}, which {} does not have", hit.path.display())
        }));
    }
    found
}

fn host(subject: &Subject, package: &Package, report: &mut Report) {
    let facts = package.host_facts();
    let decided = age::decide(&facts, abi_override(&subject.environment).as_deref());
    let (age, found_by, refused) = match decided {
        Ok(decision) => (Some(decision.age.to_string()), Some(decision.how), None),
        Err(error) => (None, None, Some(error.to_string())),
    };
    if let Some(refused) = &refused {
        report.findings.push(Finding {
            severity: Severity::Error,
            section: Section::Host,
            text: format!("Baton refuses this TensorRT-LLM: {refused}"),
            advice: "docs/abi.md says how to find its age; then set BATON_TRTLLM_ABI".into(),
        });
    }
    report.host = Some(HostReport { age, found_by, refused, facts: facts.to_string() });
}

/// The file was named, so it counts whatever the sections are.
fn without_configuration(why: &NoConfig, report: &mut Report) {
    let (text, advice) = match why {
        NoConfig::Unread(text) => {
            report.unexamined.push(text.clone());
            (text, "name a file that can be read with --config")
        }
        NoConfig::Refused(text) => (text, "correct it: a worker would not start so"),
    };
    report.findings.push(Finding {
        severity: Severity::Error,
        section: Section::Config,
        text: text.clone(),
        advice: format!("{advice}; the other sections do not know what it uses"),
    });
}

fn configuration(subject: &Subject, used: &Use, report: &mut Report) {
    let found = |severity, text: String, advice: &str| Finding {
        severity,
        section: Section::Config,
        text,
        advice: advice.to_owned(),
    };
    let serving = subject.serving.clone().unwrap_or_default();
    match explain(serving, &subject.environment, Question::default(), meet) {
        Ok(explanation) => {
            let advice = "baton config explain says what each setting does";
            // Of MPI there is an error below.
            let warnings = explanation.warnings.iter().filter(|text| !text.starts_with("backend MPI "));
            report.findings.extend(warnings.map(|text| found(Severity::Note, text.clone(), advice)));
            report.config = Some(explanation);
        }
        Err(errors) => {
            let advice = "correct it: a worker would not start so";
            errors.into_iter().for_each(|text| report.add_refused_setting(Section::Config, text, advice));
        }
    }
    match used.backend {
        Some(Backend::Mpi) => report.findings.push(found(
            Severity::Error,
            "backend MPI is compiled into TensorRT-LLM: Baton is never asked".into(),
            "set cache_transceiver_config.backend to NIXL, and unset TRTLLM_USE_MPI_KVCACHE",
        )),
        None => report.findings.push(found(
            Severity::Error,
            "no backend is configured, so disaggregated serving is off".into(),
            "set cache_transceiver_config.backend to NIXL",
        )),
        Some(_) => {}
    }
}

fn lanes(subject: &Subject, used: &Use, report: &mut Report) {
    let serves_as = used.backend.unwrap_or(Backend::Nixl);
    let settings = match EngineSettings::from_environment(&subject.environment, serves_as) {
        Ok((settings, _)) => settings,
        Err(error) => {
            let advice = "correct it: no agent starts so; the lanes were tried with the defaults";
            report.add_refused_setting(Section::Lanes, error.to_string(), advice);
            EngineSettings::default()
        }
    };
    let facts = lane_facts(&settings);
    report.lanes = lanes::judge(&facts, &settings, serves_as);
    report.findings.extend(lanes::rdma_limit(&facts.machine).map(|(text, advice)| Finding {
        severity: Severity::Note,
        section: Section::Lanes,
        text,
        advice,
    }));
    report.machine = Some(facts.machine);
    report.gpus = Some(facts.gpus);
    report.add_lane_findings();
}

/// Tries every lane, also those that `BATON_LANES` leaves out.
fn lane_facts(settings: &EngineSettings) -> LaneFacts {
    let address = advertised_address(settings.interface.as_deref());
    let ip = address.as_ref().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip);
    let opens = |lane| {
        let opened = neighbour::open(lane, settings, ip);
        Tried { error: opened.and_then(|opened| opened.outcome.err()), ..Tried::default() }
    };
    let (local, cuda, ucx) = std::thread::scope(|scope| {
        let local = scope.spawn(|| neighbour::try_lane("local", settings));
        let cuda = scope.spawn(|| neighbour::try_lane("cuda", settings));
        let ucx = neighbour::try_lane("ucx", settings);
        (local.join().unwrap_or_default(), cuda.join().unwrap_or_default(), ucx)
    });
    LaneFacts {
        machine: Machine::gather(),
        gpus: Gpus::gather(settings),
        local,
        ucx,
        cuda,
        stream_unix: opens("stream-unix"),
        stream_tcp: opens("stream-tcp"),
        address: Some(address.map_err(|error| error.to_string()).map(|address| Address {
            ip: address.ip.to_string(),
            is_loopback: address.ip.is_loopback(),
            reason: address.reason,
        })),
    }
}
