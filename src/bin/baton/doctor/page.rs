//! The report as a person reads it: the answer first, then what it rests on, then what to do.

use std::fmt::Write as _;

use super::doors::{DoorReport, Serves};
use super::machine::Machine;
use super::report::{Report, Severity, headline};
use crate::table;

/// The whole page.
pub fn page(report: &Report) -> String {
    let mut text = format!("baton doctor {}: {}\n", report.version, report.verdict);
    files(&mut text, report);
    if let Some(host) = &report.host {
        let _ = match (&host.age, &host.found_by) {
            (Some(age), Some(how)) => writeln!(text, "\nTensorRT-LLM: age {age}, by {how}"),
            _ => writeln!(text, "\nTensorRT-LLM: refused"),
        };
        let _ = writeln!(text, "  found: {}", host.facts);
    }
    if !report.lanes.is_empty() {
        lanes(&mut text, report);
    }
    configuration(&mut text, report);
    findings(&mut text, report);
    text.trim_end().to_owned()
}

fn files(text: &mut String, report: &Report) {
    let used: Vec<&DoorReport> = report.doors.iter().filter(|door| door.in_use).collect();
    if !used.is_empty() {
        let _ = writeln!(text, "\nWhich agent would this TensorRT-LLM load?");
        for door in used {
            let _ = writeln!(text, "  {}", headline(door));
        }
    }
    if let Some(python) = &report.python {
        let _ = writeln!(text, "\nPython:  {} ({})", python.executable.display(), python.version);
    }
    if let Some(package) = &report.package {
        let _ = writeln!(text, "package: {}", package.display());
    }
    if report.doors.is_empty() {
        return;
    }
    let mut doors = table::new(["backend", "runtime", "seam", "in use", "serves", "file", "why"]);
    for door in &report.doors {
        let file = door.file.as_ref().map_or(String::new(), |file| file.display().to_string());
        doors.add_row([
            door.backend.name(),
            door.runtime.name(),
            door.seam,
            yes(door.in_use),
            &serves(door),
            &file,
            &door.why,
        ]);
    }
    let _ = writeln!(text, "{doors}");
}

fn serves(door: &DoorReport) -> String {
    match (door.serves, &door.version) {
        (Serves::Baton, version) => format!("Baton {}", version.as_deref().unwrap_or("?")),
        (Serves::Stock, _) => "stock".to_owned(),
        (Serves::PyNixl, _) => "Python package nixl".to_owned(),
        (Serves::Nothing, _) => "nothing".to_owned(),
        (Serves::NotOffered, _) => "(no such door)".to_owned(),
    }
}

fn lanes(text: &mut String, report: &Report) {
    let mut lanes = table::new(["lane", "allowed", "works", "why"]);
    for lane in &report.lanes {
        lanes.add_row([lane.lane, yes(lane.allowed), yes(lane.usable), &lane.why]);
    }
    let _ = writeln!(text, "\nLanes of this machine\n{lanes}");
    if let Some(machine) = &report.machine {
        let _ = writeln!(text, "  {}", facts(machine));
    }
    if let Some(gpus) = &report.gpus {
        let _ = writeln!(text, "  {}", gpus.line());
    }
}

fn facts(machine: &Machine) -> String {
    let unknown = || "unknown".to_owned();
    let yama = machine.yama_scope.map_or("none".to_owned(), |scope| format!("scope {scope}"));
    let seccomp = match machine.seccomp {
        Some(0) => "off".to_owned(),
        Some(1) => "strict".to_owned(),
        Some(2) => "filter".to_owned(),
        Some(other) => other.to_string(),
        None => unknown(),
    };
    let namespace = match machine.machine_pid_namespace {
        Some(true) => "the machine's".to_owned(),
        Some(false) => "a container's".to_owned(),
        None => unknown(),
    };
    let memlock = machine.memlock_bytes.map_or("no limit".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
    let ports: Vec<String> = machine
        .rdma
        .iter()
        .map(|port| format!("{} port {} {} ({})", port.device, port.port, port.state, port.link_layer))
        .collect();
    let rdma =
        if ports.is_empty() { "none".to_owned() } else { format!("{} (not used yet)", ports.join(", ")) };
    format!(
        "uid {}, Yama {yama}, seccomp {seccomp}, CAP_SYS_PTRACE {}, pid namespace {namespace}, memlock {memlock}, RDMA {rdma}",
        machine.uid,
        machine.may_ptrace.map_or("unknown", yes),
    )
}

fn configuration(text: &mut String, report: &Report) {
    let Some(config) = &report.config else { return };
    let backend = &config.backend;
    let of = config.file.as_deref().unwrap_or("the environment alone");
    let _ = writeln!(text, "\nConfiguration ({of})");
    let _ = match (backend.configured, backend.resolved) {
        (Some(configured), Some(resolved)) => {
            writeln!(text, "  backend: {configured} resolves to {resolved}: {}", backend.why)
        }
        _ => writeln!(text, "  backend: {}", backend.why),
    };
    for line in &backend.log_lines {
        let _ = writeln!(text, "  logs: {line}");
    }
    if let Some(rendezvous) = &config.rendezvous {
        let _ = writeln!(text, "  rendezvous: {rendezvous}");
    }
    for door in report.doors.iter().filter(|door| door.in_use) {
        let file = door.file.as_ref().map_or("no file".to_owned(), |file| file.display().to_string());
        let (runtime, seam, library) = (door.runtime.name(), door.seam, door.library);
        let _ =
            writeln!(text, "  runtime {runtime} -> seam {seam} -> {library} -> {file} ({})", serves(door));
    }
    let set = config.variables.iter().filter(|row| row.source == baton::config::explain::Source::Environment);
    for row in set {
        let _ = writeln!(text, "  {}={}: {}", row.name, row.value.as_str().unwrap_or_default(), row.meaning);
    }
}

fn findings(text: &mut String, report: &Report) {
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        let _ = writeln!(text, "\n{severity}: {}\n  do: {}", finding.text, finding.advice);
    }
}

fn yes(flag: bool) -> &'static str {
    if flag { "yes" } else { "no" }
}
