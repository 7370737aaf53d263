//! No driver, an old one, a broken one, one without a device: each an error that says what to do.

use std::path::{Path, PathBuf};

use baton::device::{Cuda, DeviceConfig};
use fake_cuda::in_a_process;
use rustix::fs::{CWD, FileType, Mode, mknodat};

fn refusal(library: PathBuf) -> String {
    let error = Cuda::open(&DeviceConfig { library: Some(library) }).expect_err("it is refused");
    error.to_string()
}

#[test]
fn a_missing_library() {
    in_a_process("refusals::with_a_missing_library", &[]);
}

#[test]
#[ignore = "in a process of its own"]
fn with_a_missing_library() {
    let text = refusal(Path::new("/nowhere/libcuda.so.1").into());
    assert!(text.starts_with("CUDA: dlopen: cannot load /nowhere/libcuda.so.1: "), "{text}");
    assert!(
        text.ends_with("; have BATON_CUDA_LIBRARY name the driver's libcuda.so.1, or unset it"),
        "{text}"
    );
    assert_eq!(refusal(fake_cuda::library()), text, "the outcome of the first call stays");
}

/// Opening a pipe takes as long as nobody writes to it.
#[test]
fn a_pipe_for_a_library() {
    in_a_process("refusals::with_a_pipe_for_a_library", &[]);
}

#[test]
#[ignore = "in a process of its own"]
fn with_a_pipe_for_a_library() {
    let pipe = std::env::temp_dir().join(format!("baton-pipe-{}", std::process::id()));
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &pipe, FileType::Fifo, mode, 0).expect("a pipe");
    let text = refusal(pipe.clone());
    std::fs::remove_file(pipe).expect("it is still there");
    assert!(text.contains(": it is no regular file; have BATON_CUDA_LIBRARY name"), "{text}");
}

#[test]
fn a_machine_without_a_driver() {
    in_a_process("refusals::without_a_driver", &[("LD_LIBRARY_PATH", "")]);
}

#[test]
#[ignore = "in a process of its own"]
fn without_a_driver() {
    match Cuda::open(&DeviceConfig { library: None }) {
        Ok(cuda) => eprintln!("left out: this machine has {cuda:?}"),
        Err(error) => {
            let text = error.to_string();
            let expected = ["CUDA: dlopen: cannot load libcuda.so.1: ", "install NVIDIA's driver"];
            // A machine may have a driver and no GPU.
            assert!(error.call != "dlopen" || expected.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}

#[test]
fn a_library_that_lacks_a_function() {
    in_a_process("refusals::with_an_old_library", &[]);
}

#[test]
#[ignore = "in a process of its own"]
fn with_an_old_library() {
    let text = refusal(fake_cuda::old_library());
    assert!(text.contains("libcuda_old.so has no function cu"), "{text}");
    assert!(text.contains("one before CUDA 12.0"), "{text}");
}

#[test]
fn an_old_driver() {
    if fake_cuda::serves("an_old_driver") {
        in_a_process("refusals::with_an_old_driver", &[("FAKE_CUDA_DRIVER", "11080")]);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_an_old_driver() {
    let text = refusal(fake_cuda::library());
    assert!(text.contains("is the driver of CUDA 11.8; 12.0 or newer is needed: update it"), "{text}");
}

#[test]
fn a_driver_that_does_not_start() {
    if fake_cuda::serves("a_driver_that_does_not_start") {
        for code in ["100", "803", "804", "999", "4711"] {
            let settings = [("FAKE_CUDA_INIT", code), ("BATON_TEST_CODE", code)];
            in_a_process("refusals::with_a_failing_start", &settings);
        }
    }
}

#[test]
#[ignore = "in a process of its own"]
#[allow(clippy::disallowed_methods)] // the other half of a test hands this over
fn with_a_failing_start() {
    let code = std::env::var("BATON_TEST_CODE").expect("the other half sets it");
    let expected = match code.as_str() {
        "100" => "CUDA: cuInit: CUDA_ERROR_NO_DEVICE (100); no GPU is visible",
        "803" => {
            "CUDA: cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803); libcuda and the kernel module are of different"
        }
        "804" => {
            "CUDA: cuInit: CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE (804); the forward-compatibility libcuda"
        }
        "999" => "CUDA: cuInit: CUDA_ERROR_UNKNOWN (999); look at dmesg",
        _ => "CUDA: cuInit: error 4711",
    };
    let text = refusal(fake_cuda::library());
    assert!(text.starts_with(expected), "{text}");
}

#[test]
fn a_driver_without_a_device() {
    if fake_cuda::serves("a_driver_without_a_device") {
        in_a_process("refusals::with_no_device", &[("FAKE_CUDA_DEVICES", "0")]);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_no_device() {
    let text = refusal(fake_cuda::library());
    assert!(text.contains("no GPU is visible") || text.contains("the driver has no device"), "{text}");
}

#[test]
fn a_driver_that_fails_later() {
    if fake_cuda::serves("a_driver_that_fails_later") {
        let settings = [("FAKE_CUDA_FAIL", "cuDevicePrimaryCtxRetain:1:2,cuMemHostAlloc:1:2")];
        in_a_process("refusals::with_no_memory_left", &settings);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_no_memory_left() {
    let cuda = crate::rig::cuda();
    let text = cuda.device(0).expect_err("told to fail").to_string();
    assert!(
        text.starts_with("CUDA: cuDevicePrimaryCtxRetain on device 0: CUDA_ERROR_OUT_OF_MEMORY (2)"),
        "{text}"
    );
    let device = cuda.device(0).expect("it is tried again");
    let error = device.pinned(4096).map(drop).expect_err("told to fail");
    assert_eq!(error.kind(), baton::error::FabricErrorKind::NoResource);
    let text = error.to_string();
    assert!(
        text.contains("cuMemHostAlloc") && text.contains("4096 bytes; the device, or page-locked"),
        "{text}"
    );
    device.pinned(4096).expect("now it goes well");
}
