//! Which room may use what: `docs/architecture.md` draws it, this holds it.

use crate::Violation;
use crate::shape::word;
use crate::source::{Source, Tree};

/// Each room (file or folder under `src/`), and the rooms of this crate that it may name besides itself.
const ARROWS: &[(&str, &[&str])] = &[
    ("desc", &[]),
    ("error", &["desc"]),
    ("trace", &[]),
    ("sync", &[]),
    ("host", &[]),
    ("nvtx", &[]),
    // Bugs on purpose, for the rooms that the simulation runs.
    ("planted", &[]),
    // Panics on purpose, for the test of the seam.
    ("panics", &[]),
    ("trust", &[]),
    ("config", &["desc", "error", "trust"]),
    ("proto", &["desc", "error", "planted"]),
    ("device", &["desc", "error"]),
    ("fabric", &["desc", "error", "sync", "trust", "device"]),
    ("agent", &["desc", "error", "sync", "panics", "trust", "config", "nvtx", "proto", "fabric", "device"]),
    ("connection", &["desc", "error", "sync", "trust", "config", "proto", "agent"]),
    ("transceiver", &["desc", "error", "config", "device", "agent"]),
    ("ffi", &["desc", "error", "panics", "config", "host", "trace", "agent", "connection", "transceiver"]),
    // The program sits on top; only the seams' bridge is not its business.
    (
        "bin",
        &[
            "desc",
            "error",
            "config",
            "host",
            "trace",
            "trust",
            "proto",
            "device",
            "fabric",
            "agent",
            "connection",
            "transceiver",
        ],
    ),
];

/// The fabrics. They do not know each other; only the list of modules, the registry and the one place that
/// fills in the registry's settings name them.
const FABRICS: &[&str] = &["ucx", "libfabric", "mpi", "local", "cuda", "stream", "sim"];
const NAMES_FABRICS: &[&str] = &["src/fabric/mod.rs", "src/fabric/registry.rs", "src/agent/open.rs"];

/// Crates that one room alone may use.
const CRATE_OWNERS: &[(&str, &str)] = &[
    ("cxx", "src/ffi/"),
    ("cudarc", "src/device/"),
    ("ucx_sys", "src/fabric/ucx"),
    ("tracing_subscriber", "src/trace.rs"),
    ("snow", "src/trust/"),
    ("ring", "src/trust/"),
];

/// What `proto` may not touch: it has no clock, thread, socket, file, environment or log.
const NOT_IN_PROTO: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "mpsc",
    "Instant::now",
    "SystemTime",
];
const CRATES_IN_PROTO: &[&str] = &["thiserror"];

/// Files that may say `unsafe`, and why each must.
const UNSAFE_FILES: &[(&str, &str)] = &[
    // The contract: registration is a promise about memory that only the caller can make. The trait declares
    // it, fabrics and the agent hand it on.
    ("src/agent/registration.rs", "hands the caller's promise about memory to the fabrics"),
    ("src/fabric/mod.rs", "declares the promise about memory"),
    ("src/fabric/local/mod.rs", "hands the promise on to its leaf"),
    ("src/fabric/cuda/mod.rs", "implements the trait's unsafe method; no block"),
    ("src/fabric/cuda/shelf.rs", "implements the trait's unsafe method; no block"),
    ("src/fabric/sim/fabric.rs", "hands the promise on to its leaf"),
    ("src/fabric/sim/mod.rs", "states a contract that its callers keep"),
    ("src/fabric/ucx/mod.rs", "hands the promise on to its leaf"),
    ("src/fabric/stream/mod.rs", "implements the trait's method"),
    // Leaves.
    ("src/agent/gpus.rs", "hands the promise on to the room below"),
    ("src/connection/memory.rs", "copies to and from memory that C++ names by address"),
    ("src/agent/staging.rs", "memory of our own, mapped for peers to write to"),
    ("src/agent/process.rs", "fork handlers and signal masks"),
    ("src/agent/loopback.rs", "states a contract that C++ keeps: memory that it names by address"),
    ("src/agent/loopback/direct.rs", "hands memory named by address to cuFile"),
    ("src/agent/loopback/positional.rs", "reads and writes files from and to memory named by address"),
    ("src/agent/loopback/staging.rs", "copies of a GPU from and to memory named by address"),
    ("src/connection/rendezvous/libmpi.rs", "calls the MPI that the host has loaded"),
    ("src/device/bounce.rs", "copies to and from device memory named by address"),
    ("src/fabric/cuda/launch.rs", "copies of a GPU into memory named by address"),
    ("src/fabric/local/pull.rs", "process_vm_readv into memory named by address"),
    ("src/fabric/sim/memory.rs", "copies between memories named by address"),
    ("src/fabric/credentials.rs", "SO_PEERCRED with process id 0 as a value"),
    ("src/fabric/stream/gear.rs", "implements the trait's method"),
    ("src/fabric/stream/copies.rs", "starts copies between its slots and GPU memory named by address"),
    ("src/fabric/stream/iovec.rs", "gathered and scattered socket calls on memory named by address"),
    ("src/fabric/ucx/events.rs", "is called by UCX"),
    ("src/fabric/ucx/memory.rs", "calls UCX on memory named by address"),
    ("src/fabric/ucx/probe.rs", "shares an address between threads"),
    ("src/device/cufile.rs", "calls libcufile, opened at run time"),
    ("src/device/gpu.rs", "pushes and pops CUDA's context"),
    ("src/device/memory.rs", "memory that CUDA gives, as slices"),
    ("src/device/program.rs", "loads and launches kernels"),
    ("src/device/queue.rs", "states a contract that its callers keep: what a batch of copies touches"),
    ("src/device/queue/transform.rs", "states the same contract for blocks of rows"),
    ("src/device/share.rs", "exports and opens CUDA's handles of memory"),
    ("src/device/stream.rs", "CUDA's streams and events, owned"),
    ("src/device/vmm.rs", "CUDA's virtual memory management, owned"),
    ("src/panics.rs", "functions that a test's host looks up by name"),
    ("src/ffi/calls.rs", "a function that a test's host looks up by name"),
    ("src/ffi/bridge.rs", "cxx's declarations of C++, and the host's promise about memory"),
    ("src/ffi/connections.rs", "hands the host's promise about a message's memory on"),
    ("src/ffi/convert.rs", "reads what C++ passes"),
    ("src/ffi/host_facts.rs", "asks the dynamic loader"),
];
/// Folders whose every file may: raw bindings, the calls into UCX, the table of CUDA's driver, what profilers fill in.
const UNSAFE_FOLDERS: &[&str] =
    &["crates/ucx-sys/src/", "src/fabric/ucx/engine/", "src/device/driver/", "src/nvtx/"];

/// Roots of programs and libraries: each denies unsafe code where no leaf allows it.
const CRATE_ROOTS: &[&str] = &["src/lib.rs", "src/bin/baton/main.rs"];

/// All rules of this file.
pub fn check(tree: &Tree) -> Vec<Violation> {
    let dependencies = dependencies(tree);
    let mut found = stale_unsafe_entries(tree);
    for source in tree
        .rust
        .iter()
        .filter(|source| source.path.starts_with("src/") || source.path.starts_with("crates/"))
    {
        found.extend(unsafe_outside_leaves(source));
        found.extend(environment(source));
        found.extend(crate_owners(source));
        if let Some(room) = room(source) {
            found.extend(arrows(source, room));
            found.extend(fabrics_apart(source));
        }
        if source.path.starts_with("src/proto/") {
            found.extend(proto_is_pure(source, &dependencies));
        }
        if CRATE_ROOTS.contains(&source.path.as_str()) {
            found.extend(root_denies_unsafe(source));
        }
    }
    found
}

fn violation(source: &Source, line: usize, rule: &'static str, text: String) -> Violation {
    Violation { path: source.path.clone(), line, rule, text }
}

/// The first folder (or file) under `src/`; none for `lib.rs`, which declares all rooms.
fn room(source: &Source) -> Option<&str> {
    let inner = source.path.strip_prefix("src/")?;
    let room = inner.split('/').next()?.trim_end_matches(".rs");
    (room != "lib").then_some(room)
}

fn arrows(source: &Source, room: &str) -> Vec<Violation> {
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        let text = format!(
            "{room} is a new room: give it its arrows in tests/tidy/rooms.rs and docs/architecture.md"
        );
        return vec![violation(source, 1, "arrows", text)];
    };
    let is_room = |name: &str| ARROWS.iter().any(|(room, _)| *room == name);
    let mut found = Vec::new();
    for (line, path) in paths(source) {
        let Some(target) = path.first().filter(|target| is_room(target)) else { continue };
        if target != room && !allowed.contains(&target.as_str()) {
            let text = format!("{room} uses {target}; it may use: {}", allowed.join(", "));
            found.push(violation(source, line, "arrows", text));
        }
    }
    found
}

fn fabrics_apart(source: &Source) -> Vec<Violation> {
    if NAMES_FABRICS.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let module = source.module();
    let own = if module.first() == Some(&"fabric") { module.get(1).copied() } else { None };
    let foreign = |path: &[String]| {
        let [room, fabric, ..] = path else { return None };
        let named = room == "fabric" && FABRICS.contains(&fabric.as_str()) && Some(fabric.as_str()) != own;
        named.then(|| fabric.clone())
    };
    paths(source)
        .into_iter()
        .filter_map(|(line, path)| {
            let text = format!("{} is named outside the registry: ask its Limits instead", foreign(&path)?);
            Some(violation(source, line, "fabrics", text))
        })
        .collect()
}

fn proto_is_pure(source: &Source, dependencies: &[String]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, code) in source.product() {
        let banned = NOT_IN_PROTO.iter().copied().filter(|banned| word(code, banned).is_some());
        let crates = dependencies.iter().map(String::as_str).filter(|name| !CRATES_IN_PROTO.contains(name));
        let used = crates.filter(|name| uses_crate(code, name));
        for name in banned.chain(used) {
            found.push(violation(
                source,
                line,
                "proto",
                format!("proto is sans-IO and does not know {name}"),
            ));
        }
    }
    found
}

fn crate_owners(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, code) in source.product() {
        for (name, owner) in CRATE_OWNERS {
            if uses_crate(code, name)
                && !source.path.starts_with(owner)
                && !source.path.starts_with("crates/")
            {
                found.push(violation(source, line, "crates", format!("{owner} alone uses {name}")));
            }
        }
    }
    found
}

/// Whether a path on this line starts at the crate `name`.
fn uses_crate(code: &str, name: &str) -> bool {
    let Some(at) = word(code, name) else { return false };
    let (before, after) = (code[..at].trim_end(), &code[at + name.len()..]);
    let imported = before.ends_with("use") && (after.starts_with(';') || after.starts_with(" as "));
    (after.starts_with("::") && !before.ends_with("::")) || imported
}

fn environment(source: &Source) -> Vec<Violation> {
    let harmless =
        ["std::env::temp_dir", "std::env::current_exe", "std::env::consts", "std::env::current_dir"];
    let reads = |code: &str| {
        let rest = harmless.iter().fold(code.to_owned(), |code, name| code.replace(name, ""));
        word(&rest, "std::env").is_some() || rest.contains("std::{env") || word(&rest, "getenv").is_some()
    };
    let outside = !source.path.starts_with("src/config/");
    let lines = source.product().filter(|(_, code)| outside && reads(code));
    lines
        .map(|(line, _)| violation(source, line, "environment", "src/config alone reads it".to_owned()))
        .collect()
}

fn says_unsafe(source: &Source) -> Option<usize> {
    let mut lines = source.product();
    lines
        .find(|(_, code)| word(code, "unsafe").is_some() || code.contains("allow(unsafe_code)"))
        .map(|(line, _)| line)
}

fn unsafe_outside_leaves(source: &Source) -> Option<Violation> {
    let listed = UNSAFE_FILES.iter().any(|(path, _)| *path == source.path)
        || UNSAFE_FOLDERS.iter().any(|folder| source.path.starts_with(folder));
    let line = says_unsafe(source).filter(|_| !listed)?;
    let text = "unsafe belongs in a leaf module; a new leaf goes into tests/tidy/rooms.rs with its reason";
    Some(violation(source, line, "unsafe", text.to_owned()))
}

fn stale_unsafe_entries(tree: &Tree) -> Vec<Violation> {
    let uses =
        |path: &str| tree.rust.iter().any(|source| source.path == path && says_unsafe(source).is_some());
    let stale = UNSAFE_FILES.iter().filter(|(path, _)| !uses(path));
    stale
        .map(|(path, _)| Violation {
            path: (*path).to_owned(),
            line: 1,
            rule: "unsafe",
            text: "is listed in tests/tidy/rooms.rs but says no unsafe: take it off the list".to_owned(),
        })
        .collect()
}

fn root_denies_unsafe(source: &Source) -> Option<Violation> {
    let denies =
        |code: &String| code.contains("#![deny(unsafe_code)]") || code.contains("#![forbid(unsafe_code)]");
    let missing = !source.code.iter().any(denies);
    missing.then(|| violation(source, 1, "unsafe", "#![deny(unsafe_code)] is missing".to_owned()))
}

/// Names of the crates that this package depends on, as code spells them.
fn dependencies(tree: &Tree) -> Vec<String> {
    let Some(manifest) = tree.text.iter().find(|file| file.path == "Cargo.toml") else { return Vec::new() };
    let mut within = false;
    let mut names = Vec::new();
    for line in manifest.text.lines() {
        if line.starts_with('[') {
            within = line.trim() == "[dependencies]";
        } else if let (true, Some((name, _))) = (within, line.split_once('=')) {
            names.push(name.trim().replace('-', "_"));
        }
    }
    names
}

/// Every path into this crate that the product code names, from the crate's root, with its line.
fn paths(source: &Source) -> Vec<(usize, Vec<String>)> {
    // The program sees the library as `baton`; its own `crate` is another one.
    let roots: &[&str] = if source.path.starts_with("src/bin/") { &["baton"] } else { &["crate", "super"] };
    let text: String = source.product_with_breaks();
    let mut found = Vec::new();
    for root in roots {
        for (at, _) in text.match_indices(&format!("{root}::")) {
            let part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if text[..at].ends_with(part) {
                continue;
            }
            let line = text[..at].matches('\n').count() + 1;
            let mut base: Vec<String> = Vec::new();
            let mut rest = &text[at + root.len() + 2..];
            if *root == "super" {
                base = source.module().iter().map(|segment| (*segment).to_owned()).collect();
                base.pop();
                while let Some(further) = rest.strip_prefix("super::") {
                    rest = further;
                    base.pop();
                }
            }
            use_tree(rest, &base, &mut |path| found.push((line, path)));
        }
    }
    found
}

/// Walks `a::b`, `a::{b, c::d}` from its start, calls `found` with each full path, returns what follows.
fn use_tree<'a>(text: &'a str, base: &[String], found: &mut dyn FnMut(Vec<String>)) -> &'a str {
    let mut path = base.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = use_tree(group, &path, found).trim_start();
                let Some(next) = group.strip_prefix(',') else { break };
                group = next;
            }
            return group.strip_prefix('}').unwrap_or(group);
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 && &rest[..end] != "self" {
            path.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(more) => rest = more,
            None => break,
        }
    }
    if path.len() > base.len() || text.trim_start().starts_with("self") {
        found(path);
    }
    let end = rest.find([',', '}', ';', '\n']).unwrap_or(rest.len());
    &rest[end..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::TextFile;

    const MANIFEST: &str =
        "[dependencies]\ntracing = \"0.1\" # x\nserde-json = \"1\" # x\nthiserror = \"2\" # x\n";

    fn rules(path: &str, text: &str) -> Vec<(usize, &'static str)> {
        let manifest = TextFile { path: "Cargo.toml".to_owned(), text: MANIFEST.to_owned() };
        let tree = Tree::of_rust(vec![Source::parse(path, text)], vec![manifest]);
        let found = check(&tree).into_iter().filter(|violation| violation.path == path);
        found.map(|violation| (violation.line, violation.rule)).collect()
    }

    #[test]
    fn arrows_point_down() {
        assert_eq!(
            rules("src/proto/a.rs", "use crate::agent::Agent;\nuse crate::desc::Span;\n"),
            [(1, "arrows")]
        );
        assert_eq!(
            rules("src/fabric/a.rs", "use crate::{\n    desc::Span,\n    proto::{self, Plan},\n};\n"),
            [(1, "arrows"), (1, "arrows")]
        );
        assert_eq!(
            rules("src/fabric/a/b.rs", "fn f() { super::super::super::proto::g() }\n"),
            [(1, "arrows")]
        );
        assert_eq!(rules("src/bin/baton/a.rs", "use baton::ffi;\nuse crate::proto;\n"), [(1, "arrows")]);
        assert_eq!(rules("src/agent/a.rs", "use crate::{desc::Span, proto::Plan};\nuse super::other;\n"), []);
        assert_eq!(rules("src/attic/a.rs", ""), [(1, "arrows")]);
        assert_eq!(
            rules("src/proto/a.rs", "#[cfg(test)]\nmod tests {\n    use crate::agent::Agent;\n}\n"),
            []
        );
    }

    #[test]
    fn fabrics_do_not_know_each_other() {
        assert_eq!(rules("src/fabric/local/a.rs", "use super::super::stream::Stream;\n"), [(1, "fabrics")]);
        assert_eq!(rules("src/agent/a.rs", "use crate::fabric::{Fabric, sim};\n"), [(1, "fabrics")]);
        assert_eq!(
            rules("src/fabric/sim/link.rs", "use super::Fabric;\nuse crate::fabric::sim::memory;\n"),
            []
        );
        assert_eq!(rules("src/fabric/registry.rs", "use super::{local, stream};\n"), []);
    }

    #[test]
    fn proto_touches_nothing_outside() {
        assert_eq!(
            rules("src/proto/a.rs", "use std::time::Instant;\nfn f() { Instant::now(); }\n"),
            [(2, "proto")]
        );
        assert_eq!(
            rules("src/proto/a.rs", "use tracing::info;\nfn f() { serde_json::from_str() }\n"),
            [(1, "proto"), (2, "proto")]
        );
        assert_eq!(rules("src/proto/a.rs", "#[derive(thiserror::Error)]\nenum E {}\n"), []);
    }

    #[test]
    fn crates_the_environment_and_unsafe_have_their_place() {
        assert_eq!(rules("src/agent/a.rs", "use cxx::CxxString;\n"), [(1, "crates")]);
        assert_eq!(rules("src/ffi/a.rs", "use cxx::CxxString;\n"), []);
        assert_eq!(
            rules("src/agent/a.rs", "fn f() { std::env::var(\"X\"); std::env::temp_dir(); }\n"),
            [(1, "environment")]
        );
        assert_eq!(rules("src/agent/a.rs", "fn f() { std::env::temp_dir(); }\n"), []);
        assert_eq!(rules("src/config/a.rs", "use std::env;\n"), []);
        assert_eq!(rules("src/agent/a.rs", "// unsafe\nfn f() { unsafe { g() } }\n"), [(2, "unsafe")]);
        assert_eq!(rules("src/lib.rs", "//! Doc\n#![deny(unsafe_code)]\n"), []);
        assert_eq!(rules("src/lib.rs", "//! #![deny(unsafe_code)]\n"), [(1, "unsafe")]);
    }

    #[test]
    fn a_leaf_that_is_none_any_more_is_found() {
        let found = check(&Tree::of_rust(Vec::new(), Vec::new()));
        assert_eq!(found.len(), UNSAFE_FILES.len());
    }
}
