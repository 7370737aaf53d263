//! Section "files": whose wrapper would be loaded, held against the real loader where that can be asked.

use std::path::PathBuf;
use std::process::Command;

use crate::package::{CLASSES, Dtag, FACTORY, Package, WRAPPER, doctor, door, findings};

const FILES: [&str; 2] = ["--section", "files"];
const SUFFIX: &str = ".cpython-312-x86_64-linux-gnu.so";

fn all() -> Vec<&'static str> {
    [FACTORY].into_iter().chain(CLASSES).collect()
}

#[test]
fn baton_in_place_serves_both_runtimes() {
    let Some(package) = Package::new("baton_in_place_serves_both_runtimes", Dtag::Rpath) else { return };
    let wrapper = package.libs().join(WRAPPER);
    package.baton(&wrapper, &all());
    package.binding(SUFFIX);
    let (code, report) = package.examine(&FILES, &[]);
    assert_eq!((code, &report["findings"]), (0, &serde_json::json!([])), "{report:#}");
    for (runtime, seam) in [("CPP", "S1"), ("PYTHON", "S2")] {
        let door = door(&report, "NIXL", runtime);
        assert_eq!((&door["serves"], &door["version"]), (&"baton".into(), &"9.9.9".into()), "{door:#}");
        assert_eq!((&door["seam"], &door["in_use"]), (&seam.into(), &true.into()));
        assert_eq!(door["file"], wrapper.to_str().unwrap());
        assert_eq!(door["found_by"]["rule"], "rpath");
    }
    assert_eq!(door(&report, "UCX", "CPP")["serves"], "nothing");
    assert_eq!(door(&report, "UCX", "CPP")["in_use"], false);

    let python = package.python(true);
    let page = doctor(&["--python", python.to_str().unwrap(), "--section", "files"], &[]);
    let page = String::from_utf8(page.stdout).unwrap();
    let expected = format!("backend NIXL, Python runtime: Baton 9.9.9 ({})", wrapper.display());
    assert!(page.contains(&expected), "{page}");
}

#[test]
fn the_stock_wrapper_is_an_error_that_names_the_file_to_replace() {
    let name = "the_stock_wrapper_is_an_error_that_names_the_file_to_replace";
    let Some(package) = Package::new(name, Dtag::Rpath) else { return };
    let wrapper = package.libs().join(WRAPPER);
    package.stock(&wrapper, &all());
    package.binding(SUFFIX);
    let (code, report) = package.examine(&FILES, &[]);
    assert_eq!(code, 1);
    assert_eq!(door(&report, "NIXL", "PYTHON")["serves"], "stock");
    let errors = findings(&report, "error");
    let advice = format!("-> lay Baton's library over {}", wrapper.display());
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors.iter().all(|error| error.contains("the stock") && error.ends_with(&advice)), "{errors:?}");
}

#[test]
fn the_doctor_and_the_loader_agree() {
    let name = "the_doctor_and_the_loader_agree";
    for dtag in [Dtag::Rpath, Dtag::Runpath, Dtag::None] {
        let Some(package) = Package::new(name, dtag) else { return };
        let (inside, over) = (package.libs().join(WRAPPER), package.root.join("over").join(WRAPPER));
        package.stock(&inside, &[FACTORY]);
        package.baton(&over, &[FACTORY]);
        let folder = over.parent().unwrap().to_str().unwrap().to_owned();
        let environments: [&[(&str, &str)]; 3] =
            [&[], &[("LD_LIBRARY_PATH", &folder)], &[("LD_PRELOAD", over.to_str().unwrap())]];
        for variables in environments {
            let (_, report) = package.examine(&FILES, variables);
            let said = door(&report, "NIXL", "CPP");
            let file = PathBuf::from(said["file"].as_str().unwrap_or_default());
            assert_eq!(file, package.really_loaded(variables), "{dtag:?} {variables:?}: {said:#}");
            let overridden = match (dtag, variables.first()) {
                (_, None) => false,
                (_, Some(("LD_PRELOAD", _))) | (Dtag::Runpath | Dtag::None, _) => true,
                (Dtag::Rpath, _) => false,
            };
            assert_eq!(said["serves"] == "baton", overridden, "{dtag:?} {variables:?}: {said:#}");
            let shadowed = said["why"].as_str().unwrap().contains("Baton 9.9.9 at");
            assert_eq!(
                shadowed,
                dtag == Dtag::Rpath && variables.first().is_some_and(|v| v.0 == "LD_LIBRARY_PATH")
            );
        }
    }
}

#[test]
fn a_wrapper_without_the_classes_is_passed_over_for_the_nixl_package() {
    let name = "a_wrapper_without_the_classes_is_passed_over_for_the_nixl_package";
    let Some(package) = Package::new(name, Dtag::Rpath) else { return };
    package.baton(&package.libs().join(WRAPPER), &[FACTORY, CLASSES[0]]);
    package.binding(SUFFIX);
    let (code, report) = package.examine(&FILES, &[]);
    let door = door(&report, "NIXL", "PYTHON");
    assert_eq!((code, &door["serves"]), (1, &"py-nixl".into()), "{door:#}");
    let why = door["why"].as_str().unwrap();
    assert!(
        why.contains(&format!(
            "lacks 1 of the 2 agent symbols that tensorrt_llm_transfer_agent_binding{SUFFIX}"
        )),
        "{why}"
    );
    assert!(why.contains(CLASSES[1]), "{why}");
    let errors = findings(&report, "error");
    assert!(
        matches!(errors.as_slice(), [one] if one.contains("the Python package nixl, not Baton")),
        "{errors:?}"
    );
}

#[test]
fn a_forced_nixl_package_is_told_with_the_variable() {
    let Some(package) = Package::new("a_forced_nixl_package_is_told_with_the_variable", Dtag::Rpath) else {
        return;
    };
    package.baton(&package.libs().join(WRAPPER), &all());
    package.binding(SUFFIX);
    let (code, report) = package.examine(&FILES, &[("TRTLLM_USE_PY_NIXL_KVCACHE", "1")]);
    assert_eq!((code, &door(&report, "NIXL", "PYTHON")["serves"]), (1, &"py-nixl".into()));
    assert_eq!(door(&report, "NIXL", "CPP")["serves"], "baton");
    let errors = findings(&report, "error");
    assert!(errors[0].ends_with("-> unset TRTLLM_USE_PY_NIXL_KVCACHE"), "{errors:?}");
    assert_eq!(package.examine(&FILES, &[("TRTLLM_USE_PY_NIXL_KVCACHE", "0")]).0, 0);
}

#[test]
fn a_binding_of_another_python_counts_as_none() {
    let Some(package) = Package::new("a_binding_of_another_python_counts_as_none", Dtag::Rpath) else {
        return;
    };
    package.baton(&package.libs().join(WRAPPER), &all());
    package.binding(".cpython-310-x86_64-linux-gnu.so");
    let (code, report) = package.examine(&FILES, &[]);
    let door = door(&report, "NIXL", "PYTHON");
    assert_eq!((code, &door["serves"]), (1, &"py-nixl".into()));
    assert!(door["why"].as_str().unwrap().contains("cpython-310"), "{door:#}");
}

#[test]
fn a_real_python_is_asked_without_importing_anything() {
    let name = "a_real_python_is_asked_without_importing_anything";
    let Some(package) = Package::new(name, Dtag::Rpath) else { return };
    let found =
        Command::new("python3").args(["-c", "import os; print(os.path.realpath('/proc/self/exe'))"]).output();
    let Some(python) = found.ok().filter(|found| found.status.success()) else {
        return println!("skipped: {name} (no python3)");
    };
    let python = String::from_utf8(python.stdout).unwrap();
    package.baton(&package.libs().join(WRAPPER), &all());
    package.binding(".abi3.so");
    let site = package.root.join("site");
    let arguments = ["--python", python.trim(), "--section", "files", "--json"];
    let output = doctor(&arguments, &[("PYTHONPATH", site.to_str().unwrap())]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}"); // __init__.py raises when it is imported
    assert_eq!(report["package"], package.folder().to_str().unwrap());
    assert_eq!(report["python"]["executable"], python.trim());
    assert_eq!(door(&report, "NIXL", "PYTHON")["serves"], "baton");
}

#[test]
fn a_library_for_a_newer_system_is_not_loaded_and_the_version_named() {
    let name = "a_library_for_a_newer_system_is_not_loaded_and_the_version_named";
    let Some(package) = Package::new(name, Dtag::Rpath) else { return };
    package.baton_for_a_newer_system(&package.libs().join(WRAPPER));
    let (code, report) = package.examine(&FILES, &[]);
    let door = door(&report, "NIXL", "CPP");
    assert_eq!((code, &door["serves"]), (1, &"nothing".into()), "{door:#}");
    let why = door["why"].as_str().unwrap();
    assert!(why.contains("it needs NEEDS_2 of libneeds.so.1, which"), "{why}");
    assert_eq!(package.really_loaded(&[]), PathBuf::new(), "the loader refuses it too");
}

#[test]
fn the_library_that_was_built_is_recognised() {
    let name = "the_library_that_was_built_is_recognised";
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("build/lib").join(WRAPPER);
    if !built.exists() {
        return println!("skipped: {name} (make build has not been run)");
    }
    let Some(package) = Package::new(name, Dtag::Rpath) else { return };
    std::os::unix::fs::symlink(&built, package.libs().join(WRAPPER)).unwrap();
    let (code, report) = package.examine(&FILES, &[]);
    let door = door(&report, "NIXL", "CPP");
    assert_eq!(
        (code, &door["serves"], &door["version"]),
        (0, &"baton".into(), &env!("CARGO_PKG_VERSION").into()),
        "{door:#}"
    );
}

#[test]
fn a_host_library_that_is_cut_off_is_not_called_absent() {
    let name = "a_host_library_that_is_cut_off_is_not_called_absent";
    let Some(package) = Package::new(name, Dtag::Rpath) else { return };
    let host = package.libs().join("libtensorrt_llm.so");
    std::fs::OpenOptions::new().write(true).open(&host).unwrap().set_len(4096).unwrap();
    let (code, report) = package.examine(&FILES, &[]);
    let door = door(&report, "NIXL", "CPP");
    assert_eq!((code, &door["serves"]), (2, &"nothing".into()), "{door:#}");
    let why = door["why"].as_str().unwrap();
    assert!(why.starts_with(&format!("it cannot be read: {}: ", host.display())), "{why}");
}

#[test]
fn a_wrapper_without_a_path_to_it_is_named() {
    let Some(package) = Package::new("a_wrapper_without_a_path_to_it_is_named", Dtag::None) else { return };
    let wrapper = package.libs().join(WRAPPER);
    package.baton(&wrapper, &[FACTORY]);
    let (code, report) = package.examine(&FILES, &[]);
    let door = door(&report, "NIXL", "CPP");
    assert_eq!((code, &door["serves"]), (1, &"nothing".into()), "{door:#}");
    let why = door["why"].as_str().unwrap();
    assert!(why.contains(&format!("{} lies there, but neither LD_LIBRARY_PATH", wrapper.display())), "{why}");
    assert!(door["advice"].as_str().unwrap().contains("LD_LIBRARY_PATH"), "{door:#}");
    assert_eq!(package.really_loaded(&[]), PathBuf::new(), "the loader goes by it too");
}
