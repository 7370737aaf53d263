//! Section "config": what a configuration comes to, and which doors it goes through.

use std::fs;

use crate::package::{Dtag, FACTORY, Package, WRAPPER, doctor, door, findings};

#[test]
fn a_configuration_goes_through_its_own_door_alone() {
    let name = "a_configuration_goes_through_its_own_door_alone";
    let Some(package) = Package::new(name, Dtag::Rpath) else { return };
    package.baton(&package.libs().join(WRAPPER), &[FACTORY]);
    let serve = package.root.join("serve.yaml");
    let sections = ["--section", "files,config", "--config", serve.to_str().unwrap()];

    fs::write(&serve, "backend: NIXL\ntransceiver_runtime: CPP\n").unwrap();
    let (code, report) = package.examine(&sections, &[]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(report["config"]["backend"]["resolved"], "NIXL");
    assert_eq!(door(&report, "NIXL", "PYTHON")["in_use"], false);

    fs::write(&serve, "backend: DEFAULT\ntransceiver_runtime: CPP\n").unwrap();
    let (code, report) = package.examine(&sections, &[("TRTLLM_USE_UCX_KVCACHE", "1")]);
    assert_eq!((code, &door(&report, "UCX", "CPP")["in_use"]), (1, &true.into()));
    assert_eq!(door(&report, "NIXL", "CPP")["in_use"], false);
    assert!(findings(&report, "error")[0].contains("no libtensorrt_llm_ucx_wrapper.so"), "{report:#}");

    // The Python runtime is asked for, and the package has no binding for it.
    fs::write(&serve, "backend: NIXL\ntransceiver_runtime: PYTHON\n").unwrap();
    let (code, report) = package.examine(&sections, &[]);
    assert_eq!((code, &door(&report, "NIXL", "PYTHON")["serves"]), (1, &"not-offered".into()));
    assert!(findings(&report, "error")[0].ends_with("-> use transceiver_runtime: CPP"), "{report:#}");
}

#[test]
fn what_never_comes_to_baton_is_an_error() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    for (text, part) in [
        ("backend: MPI\n", "backend MPI is compiled into TensorRT-LLM"),
        ("model: m\n", "disaggregated serving is off"),
        ("backend: UCX\ntransceiver_runtime: PYTHON\n", "Python transceiver"),
    ] {
        let file = folder.join(format!("doctor-{}-{}.yaml", std::process::id(), part.len()));
        fs::write(&file, text).unwrap();
        let output = doctor(&["--section", "config", "--json", "--config", file.to_str().unwrap()], &[]);
        fs::remove_file(&file).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{report:#}");
        assert!(findings(&report, "error").iter().any(|error| error.contains(part)), "{part}: {report:#}");
    }
}

#[test]
fn the_environment_alone_is_enough() {
    let output = doctor(&["--section", "config"], &[("TRTLLM_USE_MOONCAKE_KVCACHE", "1")]);
    let page = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{page}");
    for part in [
        "nothing wrong in the sections examined",
        "backend: DEFAULT resolves to MOONCAKE",
        "TRTLLM_USE_MOONCAKE_KVCACHE=1",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}

#[test]
fn json_has_every_part_and_help_teaches() {
    let output = doctor(&["--section", "config", "--json"], &[]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut keys: Vec<&str> = report.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let expected = [
        "config",
        "doors",
        "exit_code",
        "findings",
        "gpus",
        "host",
        "lanes",
        "machine",
        "package",
        "python",
        "unexamined",
        "verdict",
        "version",
    ];
    assert_eq!(keys, expected);
    let help = String::from_utf8(doctor(&["--help"], &[]).stdout).unwrap();
    for part in ["Examples:", "Exit code: 0", "--trtllm <FOLDER>", "--section lanes"] {
        assert!(help.contains(part), "{part}\n{help}");
    }
    assert!(!help.contains("neighbour"), "{help}");
}

#[test]
fn a_configuration_that_is_none_costs_no_other_section() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("doctor-{}-none.yaml", std::process::id()));
    fs::write(&file, "backend: NXIL\n").unwrap();
    for (path, code, part) in [
        (file.to_str().unwrap(), 1, "unknown backend \"NXIL\""),
        ("/nonexistent/serve.yaml", 2, "/nonexistent/serve.yaml: No such file"),
    ] {
        let output = doctor(&["--section", "lanes,config", "--json", "--config", path], &[]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{report:#}");
        assert!(findings(&report, "error").iter().any(|error| error.contains(part)), "{part}: {report:#}");
        assert_eq!(report["unexamined"].as_array().unwrap().len(), usize::from(code == 2));
        assert_eq!(report["lanes"].as_array().unwrap().len(), 7);
        assert!(report["config"].is_null());
    }
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_refused_setting_is_told_once() {
    for (name, value) in [("BATON_LANES", "locl"), ("BATON_TRTLLM_ABI", "p9")] {
        let output = doctor(&["--section", "lanes,config", "--json"], &[(name, value)]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let errors = findings(&report, "error");
        assert_eq!(errors.iter().filter(|error| error.starts_with(name)).count(), 1, "{errors:?}");
    }
}
