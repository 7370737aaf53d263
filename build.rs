//! Compiles the C++ half of the bridge into the crate, and leaves its header where CMake picks it up
//! (`target/cxxbridge`). The shim in `cpp/` is CMake's: no Rust program needs it.
//!
//! Compiles the GPU's kernels to PTX, too, if the machine has an nvcc: the one that `NVCC` names, or the first of
//! `PATH`, `CUDA_HOME` and `/usr/local/cuda`. Nobody needs one: the PTX that is committed beside them does the same.

#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts by the environment")]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    cxx_build::bridge("src/ffi/bridge.rs")
        .include("cpp")
        .std("c++17")
        .flag("-fvisibility=hidden")
        .compile("baton-bridge");
    println!("cargo::rerun-if-changed=src/ffi/bridge.rs");
    println!("cargo::rerun-if-changed=cpp/abi/transfer_agent.h");
    println!("cargo::rerun-if-changed=cpp/cancel_flag.h");
    kernels();
}

/// Writes `built_ptx.rs`: what nvcc made of the kernels here, or `None`. An nvcc that appears on the path later is not
/// noticed: shells differ in their paths, and each difference would build everything anew.
fn kernels() {
    println!("cargo::rerun-if-changed=src/device/kernels");
    for name in ["NVCC", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let ptx = out.join("baton.ptx");
    let value = match nvcc().map(|nvcc| compile(&nvcc, &ptx)) {
        Some(Ok(())) => "Some(include_str!(concat!(env!(\"OUT_DIR\"), \"/baton.ptx\")))",
        Some(Err(reason)) => {
            println!("cargo::warning=the kernels' committed PTX is used: {reason}");
            "None"
        }
        None => "None",
    };
    let text = format!(
        "/// The PTX that this build made of the kernels, if there was an nvcc.\n\
         pub const BUILT_PTX: Option<&str> = {value};\n"
    );
    fs::write(out.join("built_ptx.rs"), text).expect("OUT_DIR can be written");
}

fn nvcc() -> Option<PathBuf> {
    if let Some(named) = env::var_os("NVCC").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let homes =
        env::var_os("CUDA_HOME").map(PathBuf::from).into_iter().chain([PathBuf::from("/usr/local/cuda")]);
    let folders = env::split_paths(&path).chain(homes.map(|home| home.join("bin")));
    folders.map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file())
}

/// For the oldest GPU served: the driver compiles it for the one that is there.
fn compile(nvcc: &Path, ptx: &Path) -> Result<(), String> {
    let ran = Command::new(nvcc)
        .args(["-ptx", "-std=c++17", "-arch=compute_80", "src/device/kernels/baton.cu", "-o"])
        .arg(ptx)
        .output()
        .map_err(|error| format!("{} does not start: {error}", nvcc.display()))?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
    Err(format!("{} failed ({}): {first}", nvcc.display(), ran.status))
}
