//! Section "host": the age of the TensorRT-LLM in a folder, and what cannot be examined.

use crate::package::{Dtag, Package, doctor, findings};

const HOST: [&str; 2] = ["--section", "host"];

#[test]
fn the_age_comes_from_the_files() {
    let Some(package) = Package::new("the_age_comes_from_the_files", Dtag::None) else { return };
    let (code, report) = package.examine(&HOST, &[]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(
        (&report["host"]["age"], &report["host"]["found_by"]),
        (&"P3".into(), &"version 1.3.0rc25".into())
    );
    let facts = report["host"]["facts"].as_str().unwrap();
    assert!(facts.contains("AgentDesc::serialize (P3 or later)"), "{facts}");
    // The symbols of the file overrule a version that leaves room.
    package.version("1.3.0rc12.post1");
    let (_, report) = package.examine(&HOST, &[]);
    assert_eq!(report["host"]["found_by"], "version 1.3.0rc12.post1 and its marker symbols");
}

#[test]
fn an_unknown_age_is_refused_and_the_override_named_and_honoured() {
    let name = "an_unknown_age_is_refused_and_the_override_named_and_honoured";
    let Some(package) = Package::new(name, Dtag::None) else { return };
    package.version("1.5.0");
    let (code, report) = package.examine(&HOST, &[]);
    assert_eq!((code, &report["host"]["age"]), (1, &serde_json::Value::Null));
    let errors = findings(&report, "error");
    assert!(errors[0].contains("TensorRT-LLM 1.5.0 is newer than"), "{errors:?}");
    assert!(errors[0].contains("BATON_TRTLLM_ABI=p0|p1|p2|p3|p4"), "{errors:?}");
    let (code, report) = package.examine(&HOST, &[("BATON_TRTLLM_ABI", "p4")]);
    assert_eq!((code, &report["host"]["age"]), (0, &"P4".into()));
    assert_eq!(report["host"]["found_by"], "BATON_TRTLLM_ABI=p4");
    assert_eq!(package.examine(&HOST, &[("BATON_TRTLLM_ABI", "p9")]).0, 1);
}

#[test]
fn what_cannot_be_examined_exits_2_and_is_named() {
    for (arguments, part) in [
        (&["--python", "/nonexistent/python3"][..], "/nonexistent/python3 does not start"),
        (&["--python", "/bin/true"], "/bin/true cannot say where its packages are"),
        (&["--trtllm", "/nonexistent/tensorrt_llm"], "/nonexistent/tensorrt_llm: No such file"),
        (&["--trtllm", "/usr"], "/usr has neither libs/libtensorrt_llm.so nor"),
    ] {
        let output = doctor(&[arguments, &HOST[..], &["--json"]].concat(), &[]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(report["exit_code"], 2);
        assert!(report["unexamined"].to_string().contains(part), "{part}: {}", report["unexamined"]);
    }
}
