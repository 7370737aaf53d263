//! Compiles the C++ half of the bridge into the crate, and leaves its header where CMake picks it up
//! (`target/cxxbridge`). The shim in `cpp/` is CMake's: no Rust program needs it.

fn main() {
    cxx_build::bridge("src/ffi/bridge.rs")
        .include("cpp")
        .std("c++17")
        .flag("-fvisibility=hidden")
        .compile("baton-bridge");
    println!("cargo::rerun-if-changed=src/ffi/bridge.rs");
    println!("cargo::rerun-if-changed=cpp/abi/transfer_agent.h");
    println!("cargo::rerun-if-changed=cpp/cancel_flag.h");
}
