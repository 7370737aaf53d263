//! What comes of a batch when CUDA fails: at the start, on the way, for good.

use baton::desc::Segment;
use baton::device::Started;
use fake_cuda::in_a_process;

use crate::rig::{copy, device, next_end, queue, start};

#[test]
fn a_lost_context_fails_every_batch() {
    in_a_process("failures::with_a_lost_context", &[]);
}

#[test]
#[ignore = "in a process of its own"]
fn with_a_lost_context() {
    let device = device();
    let (mut queue, mut other) = (queue(&device), queue(&device));
    let buffer = device.alloc(4096).expect("memory");
    let addr = buffer.span().addr;
    let nowhere = [Segment { src: 0x10_0000, dst: addr, len: 64 }];
    let good = [Segment { src: addr, dst: addr + 64, len: 64 }];
    // SAFETY: the first batch is what a peer that unmaps its memory makes of a good one: the context is lost, and nothing
    // is written.
    unsafe { start(&mut queue, 1, &nowhere) };
    // SAFETY: within the buffer.
    let second = unsafe { queue.start(2, good.iter().copied()) };
    let (token, outcome) = next_end(&mut queue);
    let error = outcome.expect_err("it cannot go well");
    assert_eq!((token, error.code), (1, 700), "{error}");
    assert!(
        error.is_sticky() && error.to_string().contains("this process's CUDA context is lost"),
        "{error}"
    );
    if second == Ok(Started::Accepted) {
        assert!(matches!(next_end(&mut queue), (2, Err(error)) if error.is_sticky()));
    }
    assert_eq!(queue.broken(), Some(&error));
    // SAFETY: refused.
    let third = unsafe { queue.start(3, good.iter().copied()) };
    assert_eq!((third, queue.in_flight()), (Err(error), 0));
    // SAFETY: refused, or told as failed.
    let elsewhere = unsafe { other.start(1, good.iter().copied()) };
    let failed = elsewhere.and_then(|_| next_end(&mut other).1.map(|()| Started::Full));
    assert!(failed.is_err_and(|error| error.is_sticky()), "other queues of the device as well");
    assert!(queue.drain(crate::rig::WATCHDOG), "nothing is copied any more");
}

/// Each in a process of its own: what is told to fail, and whether the batch is accepted all the same.
#[test]
fn calls_that_fail_break_the_queue() {
    if fake_cuda::serves("calls_that_fail_break_the_queue") {
        for (call, test) in [
            ("cuLaunchKernel:1:701", "failures::with_a_refused_start"),
            ("cuEventCreate:1:2", "failures::with_a_passing_shortage"),
            ("cuEventRecord:1:2", "failures::with_an_accepted_batch"),
            ("cuStreamWaitEvent:1:2", "failures::with_an_accepted_batch"),
            ("cuLaunchHostFunc:1:2", "failures::with_an_accepted_batch"),
            ("cuEventQuery:1:999", "failures::with_an_accepted_batch"),
        ] {
            in_a_process(test, &[("FAKE_CUDA_FAIL", call)]);
        }
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_a_refused_start() {
    let device = device();
    let mut queue = queue(&device);
    // SAFETY: refused.
    let refused = unsafe { queue.start(1, [Segment { src: 0, dst: 0, len: 1 }].into_iter()) };
    let error = refused.expect_err("told to fail");
    assert!((error.call, error.code, error.is_sticky()) == ("cuLaunchKernel", 701, false), "{error}");
    assert_eq!((queue.in_flight(), queue.ended(), queue.broken()), (0, None, Some(&error)));
}

#[test]
#[ignore = "in a process of its own"]
fn with_a_passing_shortage() {
    let device = device();
    let (mut queue, buffer) = (queue(&device), device.alloc(4096).expect("memory"));
    let good = [Segment { src: buffer.span().addr, dst: buffer.span().addr + 64, len: 64 }];
    // SAFETY: within the buffer, both times.
    let first = unsafe { queue.start(1, good.iter().copied()) };
    assert_eq!(first.map_err(|error| error.code), Err(2));
    // SAFETY: within the buffer.
    assert_eq!(unsafe { copy(&mut queue, &good) }, Ok(()));
}

#[test]
#[ignore = "in a process of its own"]
fn with_an_accepted_batch() {
    let device = device();
    let (mut queue, mut buffer) = (queue(&device), device.alloc(4096).expect("memory"));
    buffer.write(0, &[7; 64]).expect("written");
    let good = [Segment { src: buffer.span().addr, dst: buffer.span().addr + 64, len: 64 }];
    // SAFETY: within the buffer.
    unsafe { start(&mut queue, 1, &good) };
    let (token, outcome) = next_end(&mut queue);
    assert_eq!(token, 1);
    let error = outcome.expect_err("its end cannot be told from the others'");
    assert_eq!((queue.broken(), queue.in_flight()), (Some(&error), 0));
    let mut bytes = [0; 64];
    buffer.read(64, &mut bytes).expect("the context is well");
    assert_eq!(bytes, [7; 64], "told as failed, but only when nothing is copied any more");
}

#[test]
fn kernels_that_do_not_load_are_an_error() {
    if fake_cuda::serves("kernels_that_do_not_load_are_an_error") {
        let settings = [("FAKE_CUDA_FAIL", "cuModuleLoadDataEx:1+:218")];
        in_a_process("failures::without_kernels", &settings);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn without_kernels() {
    let made = device().queue(std::sync::Arc::new(|| ()), baton::device::Urgency::Normal);
    let text = made.map(drop).expect_err("told to fail").to_string();
    assert!(text.contains("cuModuleLoadDataEx on device 0: CUDA_ERROR_INVALID_PTX (218)"), "{text}");
}

#[test]
fn the_kernels_that_are_brought_along_serve_an_older_driver() {
    let test = "the_kernels_that_are_brought_along_serve_an_older_driver";
    if baton::device::kernels::BUILT_PTX.is_none() {
        eprintln!("{test}: left out, this build had no nvcc");
    } else if fake_cuda::serves(test) {
        in_a_process("failures::with_a_refused_build", &[("FAKE_CUDA_FAIL", "cuModuleLoadDataEx:1:222")]);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_a_refused_build() {
    let device = device();
    let buffer = device.alloc(4096).expect("memory");
    let good = [Segment { src: buffer.span().addr, dst: buffer.span().addr + 64, len: 64 }];
    // SAFETY: within the buffer.
    assert_eq!(unsafe { copy(&mut queue(&device), &good) }, Ok(()));
}
