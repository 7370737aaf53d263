//! What goes wrong, by itself or as told.

use std::ffi::CStr;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use crate::calls::*;
use crate::scene::*;
use crate::streams;

const NOT_INITIALIZED: u32 = 3;
const INVALID_CONTEXT: u32 = 201;
const ILLEGAL_ADDRESS: u32 = 700;
const NOT_PERMITTED: u32 = 800;

#[test]
fn a_call_needs_what_it_needs() {
    alone("faults::a_call_needs_what_it_needs", &[], || {
        let mut version = 0;
        ok(cuDriverGetVersion(&mut version));
        assert_eq!(version, 12080);
        assert_eq!(cuDeviceGetCount(&mut 0), NOT_INITIALIZED);
        ok(cuInit(0));
        assert_eq!(cuMemAlloc_v2(&mut 0, 1), INVALID_CONTEXT);
        let mut none = 1;
        ok(cuCtxGetCurrent(&mut none));
        assert_eq!(none, 0);
        let first = context();
        ok(cuCtxPushCurrent_v2(first));
        ok(cuCtxSetCurrent(0));
        let mut left = 0;
        ok(cuCtxPopCurrent_v2(&mut left));
        assert_eq!(left, first);
        assert_eq!(cuCtxPopCurrent_v2(&mut left), INVALID_CONTEXT);
        let mut name = std::ptr::null();
        ok(cuGetErrorName(700, &mut name));
        // SAFETY: a text with a NUL at its end, for good.
        assert_eq!(unsafe { CStr::from_ptr(name) }, c"CUDA_ERROR_ILLEGAL_ADDRESS");
    });
}

#[test]
fn functions_are_found_by_their_names() {
    let (mut function, mut status) = (0, 9);
    ok(cuGetProcAddress_v2(c"cuMemAlloc".as_ptr(), &mut function, 12080, 0, &mut status));
    // SAFETY: the type does not matter, for it is not called.
    let symbol =
        unsafe { library().get::<unsafe extern "C" fn()>(b"cuMemAlloc_v2") }.expect("it is exported");
    assert_eq!((function, status), (*symbol as usize, 0));
    ok(cuGetProcAddress_v2(c"cuNothing".as_ptr(), &mut function, 12080, 0, &mut status));
    assert_eq!((function, status), (0, 1));
}

#[test]
fn an_illegal_address_loses_the_context() {
    alone("faults::an_illegal_address_loses_the_context", &[], || {
        context();
        let address = device(&[1; 4096]);
        let (mut stream, mut event) = (0, 0);
        let calls = AtomicU32::new(0);
        extern "C" fn count(counter: *mut std::ffi::c_void) {
            // SAFETY: the counter lives until the process ends.
            unsafe { &*counter.cast::<AtomicU32>() }.fetch_add(1, Ordering::SeqCst);
        }
        ok(cuStreamCreateWithPriority(&mut stream, 1, 0));
        ok(cuEventCreate(&mut event, 2));
        // One byte more than there is.
        ok(streams::copy(stream, &[[address, address + 2048, 2049]]));
        // The stream may have come to the fault by now.
        let given =
            [cuLaunchHostFunc(stream, count, (&raw const calls).cast()), cuEventRecord(event, stream)];
        assert!(given.iter().all(|code| [0, ILLEGAL_ADDRESS].contains(code)));
        assert_eq!(cuStreamSynchronize(stream), ILLEGAL_ADDRESS);
        assert_eq!(cuEventQuery(event), ILLEGAL_ADDRESS);
        assert_eq!(cuMemAlloc_v2(&mut 0, 1), ILLEGAL_ADDRESS);
        assert_eq!(cuMemFree_v2(address), ILLEGAL_ADDRESS);
        assert_eq!(calls.load(Ordering::SeqCst), 0);
        ok(cuDevicePrimaryCtxRelease_v2(0));
        context();
        ok(cuMemAlloc_v2(&mut 0, 1));
    });
}

#[test]
fn a_function_of_the_host_may_not_call() {
    context();
    extern "C" fn ask(code: *mut std::ffi::c_void) {
        // SAFETY: the test waits for the stream before its number goes.
        unsafe { &*code.cast::<AtomicU32>() }.store(cuCtxSynchronize(), Ordering::SeqCst);
    }
    let (mut stream, code) = (0, AtomicU32::new(0));
    ok(cuStreamCreateWithPriority(&mut stream, 1, 0));
    ok(cuLaunchHostFunc(stream, ask, (&raw const code).cast()));
    ok(cuStreamSynchronize(stream));
    assert_eq!(code.load(Ordering::SeqCst), NOT_PERMITTED);
}

#[test]
fn a_child_has_no_driver() {
    alone("faults::a_child_has_no_driver", &[], || {
        context();
        // SAFETY: the child calls nothing but the stand-in, which returns at once, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_refused = cuInit(0) == NOT_INITIALIZED && cuDeviceGetCount(&mut 0) == NOT_INITIALIZED;
            // SAFETY: ends the child without what its parent has registered for its own end.
            unsafe { libc::_exit(i32::from(!is_refused)) };
        }
        let mut status = -1;
        // SAFETY: waits for the child of this process alone, which has it in `status`.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert_eq!(status, 0);
    });
}

#[test]
fn a_driver_that_cannot_start_says_so() {
    alone("faults::a_driver_that_cannot_start_says_so", &[("FAKE_CUDA_INIT", "803")], || {
        assert_eq!(cuInit(0), 803);
        assert_eq!(cuDeviceGetCount(&mut 0), NOT_INITIALIZED);
    });
}

#[test]
fn calls_fail_as_told_and_are_written_down() {
    let log = env::temp_dir().join(format!("fake-cuda-{}.log", process::id()));
    let failures = "cuMemAlloc:2:2,cuStreamQuery:1+:999";
    let settings = [("FAKE_CUDA_FAIL", failures), ("FAKE_CUDA_LOG", log.to_str().expect("text"))];
    alone("faults::calls_fail_as_told_and_are_written_down", &settings, || {
        context();
        let codes = [0, 1, 2].map(|_| cuMemAlloc_v2(&mut 0, 1));
        assert_eq!(codes, [0, 2, 0]);
        assert_eq!([0, 1].map(|_| cuStreamQuery(0)), [999, 999]);
    });
    if role().is_none() {
        let text = fs::read_to_string(&log).expect("it was written");
        let _ = fs::remove_file(&log);
        let allocations = text.lines().filter(|line| line.contains(" cuMemAlloc_v2 "));
        assert_eq!(allocations.map(|line| line.ends_with(" 2")).collect::<Vec<_>>(), [false, true, false]);
    }
}

#[test]
fn old_is_old() {
    // SAFETY: opening runs nothing of ours.
    let old = unsafe { libloading::Library::new(fake_cuda::old_library()) }.expect("it opens");
    // SAFETY: the type does not matter, for nothing is called.
    let found = |name: &[u8]| unsafe { old.get::<unsafe extern "C" fn()>(name) }.is_ok();
    assert!(found(b"cuInit") && !found(b"cuMemAlloc_v2"));
    assert!(fake_cuda::driver_folder().join("libcuda.so.1").exists());
}
