//! Each door's verdict over facts that are made up here.

use super::*;
use std::collections::BTreeSet;

const SHUTDOWN: &str = "_ZN12tensorrt_llm8executor8kv_cache17NixlTransferAgent8shutdownEv";

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

fn file(baton: Option<&str>, exports: &[&str]) -> Elf {
    Elf { baton: baton.map(str::to_owned), exports: names(exports), ..Elf::default() }
}

/// A door whose asker finds these files one after the other.
fn facts(runtime: Runtime, files: &[Elf]) -> DoorFacts {
    let imports = if runtime == Runtime::Python { names(&[SHUTDOWN]) } else { names(&[]) };
    let elf = Elf { imports, needed: vec![NIXL_WRAPPER.into()], ..Elf::default() };
    let rules = [Rule::Rpath("/p/libs/host.so".into()), Rule::LibraryPath];
    let hit = |(index, rule): (usize, &Rule)| Hit {
        path: format!("/{index}/{NIXL_WRAPPER}").into(),
        rule: rule.clone(),
        broken: None,
    };
    let hits = rules.iter().enumerate().map(hit).take(files.len()).collect();
    DoorFacts {
        asker: Some(Loaded { path: "/p/asker.so".into(), elf }),
        search: Search { hits, looked_in: vec![("/p/libs".into(), rules[0].clone())] },
        files: files.iter().cloned().map(Ok).collect(),
        nixl_package: Some("/site/nixl".into()),
        ..DoorFacts::default()
    }
}

fn judged(index: usize, facts: &DoorFacts) -> DoorReport {
    judge(DOORS[index], facts)
}

#[test]
fn the_first_file_serves_and_a_shadowed_baton_is_named() {
    let factory = "createNixlTransferAgent";
    let report = judged(0, &facts(Runtime::Cpp, &[file(Some("0.1.0"), &[factory])]));
    assert_eq!((report.serves, report.version.as_deref()), (Serves::Baton, Some("0.1.0")));
    assert_eq!(report.advice, None);
    let both = [file(None, &[factory]), file(Some("0.1.0"), &[factory])];
    let report = judged(0, &facts(Runtime::Cpp, &both));
    assert_eq!(report.serves, Serves::Stock);
    assert!(
        report.why.contains("Baton 0.1.0 at /1/") && report.why.contains("LD_LIBRARY_PATH"),
        "{report:?}"
    );
    assert_eq!(report.advice.as_deref(), Some("lay Baton's library over /0/libtensorrt_llm_nixl_wrapper.so"));
}

#[test]
fn a_wrapper_without_the_factory_serves_nobody() {
    let report = judged(0, &facts(Runtime::Cpp, &[file(Some("0.1.0"), &[])]));
    assert_eq!(report.serves, Serves::Nothing);
    assert!(report.why.ends_with("does not export createNixlTransferAgent"), "{}", report.why);
    let report = judged(0, &facts(Runtime::Cpp, &[]));
    assert_eq!(report.serves, Serves::Nothing);
    assert_eq!(report.advice.as_deref(), Some("put Baton's libtensorrt_llm_nixl_wrapper.so in /p/libs"));
}

#[test]
fn missing_classes_mean_the_silent_fallback() {
    let report = judged(1, &facts(Runtime::Python, &[file(Some("0.1.0"), &["createNixlTransferAgent"])]));
    assert_eq!((report.serves, report.file), (Serves::PyNixl, Some("/site/nixl".into())));
    for part in ["(Baton 0.1.0) lacks 1 of the 1 agent symbols", SHUTDOWN, "ImportError; the host logs"] {
        assert!(report.why.contains(part), "{part}: {}", report.why);
    }
    let mut without = facts(Runtime::Python, &[file(Some("0.1.0"), &[])]);
    without.nixl_package = None;
    assert_eq!(judged(1, &without).serves, Serves::Nothing);
    let whole = facts(Runtime::Python, &[file(Some("0.1.0"), &[SHUTDOWN])]);
    assert_eq!(judged(1, &whole).serves, Serves::Baton);
}

#[test]
fn another_spelling_of_the_namespace_is_told() {
    let other = "_ZN12tensorrt_llm3_v18executor8kv_cache17NixlTransferAgent8shutdownEv";
    let report = judged(1, &facts(Runtime::Python, &[file(Some("0.1.0"), &[other])]));
    assert_eq!(report.serves, Serves::PyNixl);
    assert!(report.why.contains("another spelling of the namespace"), "{}", report.why);
}

#[test]
fn what_keeps_the_binding_from_being_asked() {
    let mut forced = facts(Runtime::Python, &[file(Some("0.1.0"), &[SHUTDOWN])]);
    forced.python_forced = true;
    let report = judged(1, &forced);
    assert_eq!(report.serves, Serves::PyNixl);
    assert_eq!(report.advice.as_deref(), Some("unset TRTLLM_USE_PY_NIXL_KVCACHE"));
    let mut other = DoorFacts { nixl_package: Some("/site/nixl".into()), ..DoorFacts::default() };
    assert_eq!(judged(1, &other).serves, Serves::NotOffered);
    other.other_bindings = vec![format!("{AGENT_BINDING}.cpython-39-x86_64-linux-gnu.so")];
    assert_eq!(judged(1, &other).serves, Serves::PyNixl);
    let mut without_nixl = facts(Runtime::Python, &[file(Some("0.1.0"), &[SHUTDOWN])]);
    without_nixl.asker.as_mut().unwrap().elf.needed.clear();
    let report = judged(1, &without_nixl);
    assert!(report.why.contains("is built without libtensorrt_llm_nixl_wrapper.so"), "{}", report.why);
    assert_eq!(report.serves, Serves::PyNixl);
}

#[test]
fn a_broken_file_in_front_stops_the_loader() {
    let mut broken = facts(Runtime::Cpp, &[file(Some("0.1.0"), &["createNixlTransferAgent"])]);
    broken.search.hits[0].broken = Some("is no ELF file".into());
    let report = judged(0, &broken);
    assert_eq!(report.serves, Serves::Nothing);
    assert!(report.why.ends_with("cannot be loaded: is no ELF file"), "{}", report.why);
}

#[test]
fn a_library_for_a_newer_system_is_told() {
    let mut newer = facts(Runtime::Python, &[file(Some("0.1.0"), &[SHUTDOWN])]);
    newer.unmet = vec!["it needs GLIBC_2.99 of libc.so.6".into()];
    let report = judged(1, &newer);
    assert_eq!(report.serves, Serves::PyNixl);
    assert!(report.why.contains("cannot be loaded: it needs GLIBC_2.99 of libc.so.6"), "{}", report.why);
    assert!(report.advice.unwrap().starts_with("build Baton on a system no newer"));
}

#[test]
fn a_configuration_goes_through_its_own_doors() {
    let whole = facts(Runtime::Python, &[file(Some("0.1.0"), &[SHUTDOWN])]);
    let python = judged(1, &whole);
    assert!(is_used(&python, Some(Backend::Nixl), Some(transceiver::Runtime::Python)));
    assert!(is_used(&python, Some(Backend::Nixl), None));
    assert!(!is_used(&python, Some(Backend::Nixl), Some(transceiver::Runtime::Cpp)));
    assert!(!is_used(&python, Some(Backend::Ucx), None) && !is_used(&python, None, None));
    let absent = judged(1, &DoorFacts::default());
    assert!(!is_used(&absent, Some(Backend::Nixl), None));
    assert!(is_used(&absent, Some(Backend::Nixl), Some(transceiver::Runtime::Python)));
}

#[test]
fn a_host_library_that_cannot_be_read_is_not_called_absent() {
    let unreadable = Some("/p/libs/libtensorrt_llm.so: Invalid ELF header".to_owned());
    let facts = DoorFacts { unreadable, nixl_package: Some("/site/nixl".into()), ..DoorFacts::default() };
    let report = judged(0, &facts);
    assert_eq!((report.serves, report.why.contains("cannot be read")), (Serves::Nothing, true), "{report:?}");
    assert_eq!(judged(1, &facts).serves, Serves::PyNixl);
}

#[test]
fn a_wrapper_that_the_loader_passes_by_is_named() {
    let mut facts = facts(Runtime::Cpp, &[]);
    facts.passed_by = Some(PassedBy {
        path: "/p/libs/w.so".into(),
        why: "no path leads there".into(),
        advice: "lead it there".into(),
    });
    let report = judged(0, &facts);
    assert!(report.why.ends_with("; /p/libs/w.so lies there, but no path leads there"), "{}", report.why);
    assert_eq!(report.advice.as_deref(), Some("lead it there"));
}
