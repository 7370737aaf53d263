//! Compiles the kernels for the host into the stand-in; `old`, a libcuda that lacks nearly everything; a libcufile.
#![allow(clippy::disallowed_methods, reason = "cargo tells a build script by the environment where it is")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    kernels(&root);
    old_driver(&root, &out);
    cufile(&root, &out);
    driver_folder(&out);
    // Who asks for libcuda.so.1 once the stand-in is loaded gets it. Its threads never end: it is never unloaded.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}

fn kernels(root: &Path) {
    let folder = root.join("kernels");
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .flag("-fvisibility=hidden")
        .file(folder.join("host.cc"))
        .compile("baton-host-kernels");
    println!("cargo::rerun-if-changed={}", folder.display());
    // What host.cc includes.
    println!("cargo::rerun-if-changed={}", root.join("../../src/device/kernels").display());
}

fn old_driver(root: &Path, out: &Path) {
    small_library(&root.join("old/old.c"), "libcuda.so.1", &out.join("libcuda_old.so"));
}

/// In a folder of its own, under the name that it is looked up by.
fn cufile(root: &Path, out: &Path) {
    let folder = out.join("cufile");
    fs::create_dir_all(&folder).expect("OUT_DIR can be written");
    small_library(&root.join("cufile/cufile.c"), "libcufile.so.0", &folder.join("libcufile.so.0"));
}

fn small_library(source: &Path, soname: &str, library: &Path) {
    println!("cargo::rerun-if-changed={}", source.display());
    // The compiler alone: without the flags of a sanitizer, which such a library could not be opened with.
    let mut compiler = Command::new(cc::Build::new().get_compiler().path());
    compiler.args(["-shared", "-fPIC", "-O1"]).arg(format!("-Wl,-soname,{soname}"));
    compiler.arg("-o").arg(library).arg(source).arg("-ldl");
    let status = compiler.status().expect("the C compiler can be started");
    assert!(status.success(), "{compiler:?} ended with {status}");
}

/// A folder for LD_LIBRARY_PATH: the stand-in under libcuda's name. cargo leaves it in `deps`, beside `build`.
fn driver_folder(out: &Path) {
    let folder = out.join("driver");
    fs::create_dir_all(&folder).expect("OUT_DIR can be written");
    let link = folder.join("libcuda.so.1");
    let _ = fs::remove_file(&link);
    let deps = out.ancestors().nth(3).expect("OUT_DIR lies in target/PROFILE/build/NAME/out").join("deps");
    std::os::unix::fs::symlink(deps.join("libfake_cuda.so"), &link).expect("OUT_DIR can be written");
}
