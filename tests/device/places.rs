//! What lies behind an address, and what the tests' own memory does.

use baton::desc::Span;
use baton::device::{Allocation, Place};
use fake_cuda::in_a_process;

use crate::raw::{self, Chunks, Handles};
use crate::rig::{cuda, device};

#[test]
fn addresses_are_told_apart() {
    let (cuda, device) = (cuda(), device());
    let (heap, pinned) = (vec![0_u8; 64], device.pinned(8192).expect("memory"));
    let buffer = device.alloc(1 << 20).expect("memory");
    let at = |addr: u64| cuda.locate(addr).expect("an answer");
    assert_eq!(at(heap.as_ptr() as u64), Place::Host);
    assert_eq!(at(0), Place::Host);
    assert_eq!(at(pinned.as_ptr() as u64 + 100), Place::Host);
    let span = buffer.span();
    assert_eq!([at(span.addr), at(span.addr + span.len - 1)], [Place::Device(0); 2]);
    raw::make_current(&device);
    assert_eq!(at(raw::managed(1 << 16) + 5), Place::Managed);
}

#[test]
fn devices_are_known_without_a_context() {
    let cuda = cuda();
    assert!(cuda.device_count() >= 1);
    let uuid = cuda.uuid(0).expect("there is one");
    assert_eq!(cuda.ordinal_of(&uuid), Some(0));
    assert_eq!((cuda.ordinal_of(&[0xee; 16]), cuda.uuid(cuda.device_count())), (None, None));
    assert_eq!(cuda.can_reach(0, 0), Ok(true));
    let text = cuda.device(77).map(drop).expect_err("there is none").to_string();
    assert!(text.starts_with("CUDA: cuDeviceGet on device 77: this process sees "), "{text}");
    assert!(cuda.library().contains(" ("), "{}", cuda.library());
    let device = device();
    assert_eq!((device.ordinal(), device.uuid()), (0, uuid));
    assert!(!device.name().is_empty() && device.pci_bus_id().contains(':'), "{device:?}");
    assert_eq!(device.can_reach(&device), Ok(true));
    device.flush_remote_writes().expect("nothing to do, or done");
}

#[test]
fn buffers_are_written_and_read() {
    let mut buffer = device().alloc(1000).expect("memory");
    buffer.write(0, &[0; 1000]).expect("written");
    buffer.write(10, b"abc").expect("written");
    let mut bytes = [1; 5];
    buffer.read(9, &mut bytes).expect("read");
    assert_eq!(&bytes, b"\0abc\0");
    for (at, len) in [(998, 3), (1001, 0), (u64::MAX, 1)] {
        buffer.read(at, &mut vec![0; len]).expect_err("outside");
        buffer.write(at, &vec![0; len]).expect_err("outside");
    }
    let error = device().alloc(1 << 50).map(drop).expect_err("more than there is");
    assert_eq!(error.kind(), baton::error::FabricErrorKind::NoResource);
    assert!(error.to_string().contains("1125899906842624 bytes; the device"), "{error}");
}

#[test]
fn a_span_is_backed_by_its_allocation() {
    let buffer = device().alloc(1 << 20).expect("memory");
    let whole = buffer.span();
    let span = Span { addr: whole.addr + 4096, len: 8192 };
    let found = cuda().allocations(span).expect("one");
    assert_eq!(found, [Allocation { span, whole, device: 0, is_vmm: false }]);
    assert_eq!(cuda().allocations(Span { len: 0, ..span }), Ok(vec![]));
}

#[test]
fn a_span_that_is_not_device_memory_is_refused() {
    let (heap, buffer) = (vec![0_u8; 64], device().alloc(4096).expect("memory"));
    let refused = |span: Span| cuda().allocations(span).expect_err("refused").to_string();
    let text = refused(Span { addr: heap.as_ptr() as u64, len: 64 });
    assert!(text.ends_with("+64 is not device memory"), "{text}");
    let past = Span { addr: buffer.span().addr, len: 1 << 40 };
    assert!(refused(past).contains("is not device memory"), "{}", refused(past));
    assert!(refused(Span { addr: 2, len: u64::MAX }).ends_with("wraps"));
    raw::make_current(&device());
    let text = refused(Span { addr: raw::managed(4096), len: 4096 });
    assert!(text.ends_with("is managed memory"), "{text}");
}

#[test]
fn chunks_are_told_apart() {
    let device = device();
    let chunks = Chunks::new(&[&*device; 3], Handles::Fd);
    let (base, chunk) = (chunks.base, chunks.chunk);
    let span = Span { addr: base + 4096, len: 2 * chunk };
    let found = cuda().allocations(span).expect("three");
    let part = |at: u64, addr: u64, end: u64| Allocation {
        span: Span { addr, len: end - addr },
        whole: Span { addr: base + at * chunk, len: chunk },
        device: 0,
        is_vmm: true,
    };
    assert_eq!(
        found,
        [
            part(0, base + 4096, base + chunk),
            part(1, base + chunk, base + 2 * chunk),
            part(2, base + 2 * chunk, base + 2 * chunk + 4096)
        ]
    );
    assert_eq!(cuda().locate(base + 2 * chunk), Ok(Place::Device(0)));
}

#[test]
fn a_span_over_two_devices_is_refused() {
    if fake_cuda::serves("a_span_over_two_devices_is_refused") {
        in_a_process("places::over_two_devices", &[("FAKE_CUDA_DEVICES", "2")]);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn over_two_devices() {
    let (first, second) = (device(), cuda().device(1).expect("the second device"));
    assert_eq!((cuda().can_reach(0, 1), cuda().device_count()), (Ok(true), 2));
    assert_ne!(first.uuid(), second.uuid());
    assert_eq!(cuda().ordinal_of(&second.uuid()), Some(1));
    let chunks = Chunks::new(&[&*first, &*second], Handles::None);
    let text = cuda().allocations(chunks.span()).expect_err("refused").to_string();
    assert!(text.contains("changes from one device to another at"), "{text}");
    let on_second = Span { addr: chunks.base + chunks.chunk, len: 4096 };
    let found = cuda().allocations(on_second).expect("one");
    assert_eq!(found[0].device, 1);
    let text = first.share(&found[0]).map(drop).expect_err("another device's").to_string();
    assert_eq!(text, "it lies on device 1");
}

#[test]
fn peers_may_be_out_of_reach() {
    if fake_cuda::serves("peers_may_be_out_of_reach") {
        let settings = [("FAKE_CUDA_DEVICES", "2"), ("FAKE_CUDA_PEERS", "0")];
        in_a_process("places::out_of_reach", &settings);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn out_of_reach() {
    assert_eq!(cuda().can_reach(0, 1), Ok(false));
    assert_eq!(cuda().can_reach(1, 1), Ok(true));
}

/// On a thread of its own: others leave contexts current.
#[test]
fn the_hosts_contexts_stay_as_they_are() {
    let host = std::thread::spawn(|| {
        let device = device();
        let buffer = device.alloc(4096).expect("memory");
        assert!(raw::current().is_null(), "no context is left behind");
        let context = raw::make_current(&device);
        buffer.read(0, &mut [0; 16]).expect("read");
        let queue = crate::rig::queue(&device);
        drop((queue, buffer));
        assert_eq!(raw::current(), context);
        assert_eq!(raw::capture_mode(), 0);
    });
    host.join().expect("as it was");
}
