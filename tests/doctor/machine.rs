//! Section "lanes": tried on the machine that the test runs on.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::package::{doctor, findings};

fn lanes(variables: &[(&str, &str)]) -> (i32, Value) {
    let output = doctor(&["--section", "lanes", "--json"], variables);
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

fn lane<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["lanes"].as_array().unwrap().iter().find(|lane| lane["lane"] == name).unwrap()
}

#[test]
fn every_lane_says_whether_it_works_and_why() {
    let (code, report) = lanes(&[("TRTLLM_NIXL_INTERFACE", "lo")]);
    for name in ["local", "ucx", "cuda", "stream-unix", "stream-tcp", "libfabric", "mpi"] {
        assert!(!lane(&report, name)["why"].as_str().unwrap().is_empty(), "{name}");
    }
    for name in ["stream-unix", "stream-tcp"] {
        assert_eq!(lane(&report, name)["usable"], true, "{report:#}");
    }
    let why = lane(&report, "stream-tcp")["why"].as_str().unwrap();
    assert!(why.starts_with("peers are told 127.0.0.1: interface lo was asked for"), "{why}");
    // What is not to be had here has something to do beside it, and the exit code follows.
    let local = lane(&report, "local");
    assert_eq!(local["advice"].is_null(), local["usable"] == true, "{local:#}");
    assert_eq!(code == 0, local["usable"] == true, "{report:#}");
    for name in ["libfabric", "mpi"] {
        assert_eq!(
            (&lane(&report, name)["usable"], &lane(&report, name)["severity"]),
            (&false.into(), &Value::Null)
        );
    }
    assert!(report["machine"]["seccomp"].is_u64() && report["machine"]["uid"].is_u64(), "{report:#}");
}

#[test]
fn the_lanes_are_those_of_the_setting() {
    let (_, report) = lanes(&[("BATON_LANES", "stream-tcp"), ("TRTLLM_NIXL_INTERFACE", "lo")]);
    for (name, allowed) in [("local", false), ("ucx", false), ("stream-unix", false), ("stream-tcp", true)] {
        assert_eq!(lane(&report, name)["allowed"], allowed, "{name}");
    }
    let (code, report) = lanes(&[("BATON_LANES", "locl")]);
    assert_eq!(code, 1);
    assert!(findings(&report, "error")[0].contains("did you mean \"local\"?"), "{report:#}");
}

#[test]
fn gpus_are_listed_and_their_lane_is_tried() {
    let library = fake_cuda::library().display().to_string();
    let (_, report) = lanes(&[("BATON_CUDA_LIBRARY", &library), ("FAKE_CUDA_DEVICES", "2")]);
    let driver = report["gpus"]["driver"].as_str().unwrap();
    assert!(driver.contains(&library), "{driver}");
    let ordinals: Vec<_> =
        report["gpus"]["devices"].as_array().unwrap().iter().map(|gpu| &gpu["ordinal"]).collect();
    assert_eq!(ordinals, [0, 1]);
    assert_eq!(lane(&report, "cuda")["usable"], true, "{report:#}");

    // No driver is no fault of a machine, but of one that was told to use it.
    let nowhere = ("BATON_CUDA_LIBRARY", "/nowhere/libcuda.so.1");
    let (_, report) = lanes(&[nowhere]);
    let cuda = lane(&report, "cuda");
    assert!(cuda["why"].as_str().unwrap().contains("/nowhere/libcuda.so.1"), "{cuda:#}");
    let (_, report) = lanes(&[nowhere, ("BATON_LANES", "cuda,stream")]);
    let warnings = findings(&report, "warning");
    assert!(warnings.iter().any(|warning| warning.starts_with("cuda: ")), "{warnings:?}");
}

#[test]
fn what_cannot_be_had_is_an_error_with_a_cure() {
    let (code, report) = lanes(&[("TRTLLM_NIXL_INTERFACE", "no-such-nic")]);
    assert_eq!(code, 1);
    let errors = findings(&report, "error");
    assert!(errors[0].contains("interface no-such-nic does not exist here"), "{errors:?}");
    assert!(errors[0].contains("-> set TRTLLM_NIXL_INTERFACE"), "{errors:?}");

    let variables = [("BATON_UCX_LIBRARY", "/nonexistent/libucp.so.0"), ("BATON_LANES", "ucx")];
    let (code, report) = lanes(&variables);
    assert_eq!((code, &lane(&report, "ucx")["usable"]), (1, &false.into()));
    let why = lane(&report, "ucx")["why"].as_str().unwrap();
    assert!(why.contains("/nonexistent/libucp.so.0"), "{why}");
    let errors = findings(&report, "error");
    assert!(errors.iter().any(|error| error.contains("no agent can be created")), "{errors:?}");
}

/// Runs its arguments with process_vm_readv forbidden, as docker's default profile does it.
const FORBID: &str = r#"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <cstddef>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int, char** arguments)
{
    sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    sock_fprog program{4, rules};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
    {
        return 99;
    }
    execv(arguments[1], arguments + 1);
    return 98;
}
"#;

#[test]
fn a_seccomp_filter_is_told_from_the_other_causes() {
    let name = "a_seccomp_filter_is_told_from_the_other_causes";
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = |kind| folder.join(format!("doctor-forbid-{}{kind}", std::process::id()));
    fs::write(file(".cc"), FORBID).unwrap();
    let built = Command::new("c++").arg(file(".cc")).arg("-o").arg(file("")).status();
    let Ok(built) = built else { return println!("skipped: {name} (no c++)") };
    assert!(built.success());
    let output = Command::new(file(""))
        .args([env!("CARGO_BIN_EXE_baton"), "doctor", "--section", "lanes", "--json"])
        .env_clear()
        .env("TRTLLM_NIXL_INTERFACE", "lo")
        .output()
        .unwrap();
    for kind in [".cc", ""] {
        fs::remove_file(file(kind)).unwrap();
    }
    if matches!(output.status.code(), Some(99)) {
        return println!("skipped: {name} (seccomp filters are not to be had here)");
    }
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let local = lane(&report, "local");
    assert_eq!((output.status.code(), &local["usable"]), (Some(1), &false.into()), "{local:#}");
    assert!(
        local["why"].as_str().unwrap().starts_with("a seccomp filter forbids process_vm_readv"),
        "{local:#}"
    );
    assert!(local["advice"].as_str().unwrap().contains("--cap-add SYS_PTRACE"), "{local:#}");
    assert_eq!(report["machine"]["seccomp"], 2);
    assert_eq!(findings(&report, "warning").len(), 1, "{report:#}");
}
