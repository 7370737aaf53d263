//! Streams, events, kernels and functions of the host.

use std::ffi::{CString, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};

use crate::calls::*;
use crate::scene::*;

const NOT_READY: u32 = 600;
const NON_BLOCKING: u32 = 1;
const KERNELS: &str = include_str!("../../../../src/device/kernels/baton.ptx");

/// A function of the host's that holds its stream up until something comes down the channel.
extern "C" fn hold(gate: *mut c_void) {
    // SAFETY: tests hand over a gate that lives until they have seen the stream go on.
    let gate = unsafe { &*gate.cast::<Mutex<mpsc::Receiver<()>>>() };
    let _ = gate.lock().expect("not poisoned").recv();
}

extern "C" fn count(counter: *mut c_void) {
    // SAFETY: tests hand over a counter that lives until they have waited for the stream.
    unsafe { &*counter.cast::<AtomicU32>() }.fetch_add(1, Ordering::SeqCst);
}

fn stream() -> usize {
    let mut stream = 0;
    ok(cuStreamCreateWithPriority(&mut stream, NON_BLOCKING, 0));
    stream
}

fn event() -> usize {
    let mut event = 0;
    ok(cuEventCreate(&mut event, 0));
    event
}

#[test]
fn work_is_done_later_and_in_order() {
    context();
    let bytes = pattern(10_000, 4);
    let (from, to) = (device(&bytes), device(&vec![0; bytes.len()]));
    let (one, other, started, copied) = (stream(), stream(), event(), event());
    let (open, gate) = mpsc::channel();
    let gate = Mutex::new(gate);

    ok(cuEventQuery(copied));
    ok(cuLaunchHostFunc(one, hold, (&raw const gate).cast()));
    ok(cuEventRecord(started, one));
    ok(cuMemcpyDtoDAsync_v2(to, from, 5000, one));
    ok(cuMemcpyAsync(to + 5000, from + 5000, 5000, one));
    ok(cuStreamWaitEvent(other, started, 0));
    ok(cuEventRecord(copied, one));
    assert_eq!(cuEventQuery(copied), NOT_READY);
    assert_eq!(cuStreamQuery(other), NOT_READY, "it waits for the event");
    assert_eq!(read(to, 1), [0], "nothing is ordered with a stream that does not block");
    open.send(()).expect("the stream waits");
    ok(cuEventSynchronize(copied));
    assert_eq!(read(to, bytes.len()), bytes);
    ok(cuStreamSynchronize(other));
    let mut milliseconds = -1.0;
    ok(cuEventElapsedTime(&mut milliseconds, started, copied));
    assert!(milliseconds >= 0.0);
    ok(cuEventDestroy_v2(started));
    ok(cuStreamDestroy_v2(one));
}

#[test]
fn the_null_stream_waits_for_blocking_ones() {
    context();
    let address = device(&[0; 8]);
    let mut blocking = 0;
    ok(cuStreamCreateWithPriority(&mut blocking, 0, 0));
    let calls = AtomicU32::new(0);
    let (open, gate) = mpsc::channel();
    let gate = Mutex::new(gate);
    ok(cuLaunchHostFunc(blocking, hold, (&raw const gate).cast()));
    ok(cuLaunchHostFunc(blocking, count, (&raw const calls).cast()));
    open.send(()).expect("the stream waits");
    assert_eq!(read(address, 8), [0; 8]);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_destroyed_stream_ends_its_work() {
    context();
    let stream = stream();
    let calls = AtomicU32::new(0);
    for _ in 0..3000 {
        ok(cuLaunchHostFunc(stream, count, (&raw const calls).cast()));
    }
    ok(cuStreamDestroy_v2(stream));
    ok(cuCtxSynchronize());
    assert_eq!(calls.load(Ordering::SeqCst), 3000);
    assert_eq!(cuStreamQuery(stream), 400);
}

/// What a launch of `baton_copy` with this list returns; the list is in pinned memory.
pub fn copy(stream: usize, segments: &[[u64; 3]]) -> u32 {
    let (mut module, mut function, mut list) = (0, 0, 0);
    let ptx = CString::new(KERNELS).expect("text");
    ok(cuModuleLoadData(&mut module, ptx.as_ptr()));
    ok(cuModuleGetFunction(&mut function, module, c"baton_copy".as_ptr()));
    assert_eq!(cuModuleGetFunction(&mut 0, module, c"baton_cop".as_ptr()), 500);
    ok(cuMemHostAlloc(&mut list, size_of_val(segments), 3));
    // SAFETY: fresh pinned memory of this size, which the host may write.
    unsafe { (list as *mut [u64; 3]).copy_from_nonoverlapping(segments.as_ptr(), segments.len()) };
    let number = segments.len() as u32;
    let parameters: [*const c_void; 2] = [(&raw const list).cast(), (&raw const number).cast()];
    cuLaunchKernel(function, 4, 1, 1, 256, 1, 1, 0, stream, parameters.as_ptr(), 0)
}

#[test]
fn kernels_run() {
    context();
    let bytes = pattern(1 << 20, 5);
    let (from, to, stream) = (device(&bytes), device(&vec![0; bytes.len()]), stream());
    let segments: Vec<[u64; 3]> =
        (0..1000).map(|at| [from + at * 1000, to + (999 - at) * 1000, 1000]).collect();
    ok(copy(stream, &segments));
    ok(cuStreamSynchronize(stream));
    let copied = read(to, bytes.len());
    for at in 0..1000 {
        assert_eq!(copied[(999 - at) * 1000..][..1000], bytes[at * 1000..][..1000]);
    }
    assert!(copied[1_000_000..].iter().all(|byte| *byte == 0));
}

#[test]
fn ptx_that_the_driver_does_not_know_is_refused() {
    context();
    let load = |version: &str, target: &str| {
        let ptx =
            CString::new(format!("// .version 1.0\n.version {version}\n.target {target}\n")).expect("text");
        cuModuleLoadData(&mut 0, ptx.as_ptr())
    };
    assert_eq!(load("8.7", "sm_90"), 0);
    assert_eq!(load("9.0", "sm_80"), 222);
    assert_eq!(load("7.8", "sm_100"), 209);
    assert_eq!(cuModuleLoadData(&mut 0, c"nothing".as_ptr()), 218);
}
