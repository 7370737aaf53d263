//! Batches of copies against what a CPU would have done.

use std::sync::Arc;
use std::time::Duration;

use baton::desc::Segment;
use baton::device::{CopyQueue, Device, Started, Urgency};
use fake_cuda::in_a_process;

use crate::rig::{Random, Rings, WATCHDOG, copy, device, next_end, pinned, queue, start};

/// Segments that leave gaps, at any alignment, in random order on the destination's side.
fn scattered(random: &mut Random, count: usize, len_max: u64) -> (Vec<Segment>, usize, usize) {
    let (mut src, mut dst) = (random.below(64), random.below(64));
    let lens: Vec<u64> = (0..count).map(|_| random.below(len_max + 1)).collect();
    let mut order: Vec<usize> = (0..count).collect();
    (1..count).rev().for_each(|at| order.swap(at, random.below(at as u64 + 1) as usize));
    let mut places = vec![0; count];
    for at in order {
        places[at] = dst;
        dst += lens[at] + random.below(40);
    }
    let mut segments = Vec::new();
    for (len, dst) in lens.into_iter().zip(places) {
        segments.push(Segment { src, dst, len });
        src += len + random.below(40);
    }
    (segments, src as usize, dst as usize)
}

fn oracle(segments: &[Segment], from: &[u8], to: &mut [u8]) {
    for &Segment { src, dst, len } in segments {
        let (src, dst, len) = (src as usize, dst as usize, len as usize);
        to[dst..dst + len].copy_from_slice(&from[src..src + len]);
    }
}

fn moved(segments: &[Segment], src_base: u64, dst_base: u64) -> Vec<Segment> {
    let shift = |segment: &Segment| Segment {
        src: segment.src + src_base,
        dst: segment.dst + dst_base,
        len: segment.len,
    };
    segments.iter().map(shift).collect()
}

/// Copies within device memory, and compares all of the destination, gaps too.
fn agrees_with_oracle(device: &Arc<Device>, queue: &mut CopyQueue, seed: u64, count: usize, len_max: u64) {
    let mut random = Random(seed);
    let (segments, src_len, dst_len) = scattered(&mut random, count, len_max);
    let (from, mut expected) = (random.bytes(src_len), random.bytes(dst_len));
    let mut src = device.alloc(src_len).expect("memory");
    let mut dst = device.alloc(dst_len).expect("memory");
    src.write(0, &from).expect("written");
    dst.write(0, &expected).expect("written");
    // SAFETY: all within the two buffers, which live until the batch has ended; the destinations are apart.
    let outcome = unsafe { copy(queue, &moved(&segments, src.span().addr, dst.span().addr)) };
    assert_eq!(outcome, Ok(()), "seed {seed}");
    oracle(&segments, &from, &mut expected);
    let mut found = vec![0; dst_len];
    dst.read(0, &mut found).expect("read");
    let wrong = found.iter().zip(&expected).position(|(found, expected)| found != expected);
    assert_eq!(wrong, None, "seed {seed}: the first wrong byte of {count} segments up to {len_max}");
}

#[test]
fn thousands_of_scattered_segments_arrive() {
    let device = device();
    let mut queue = queue(&device);
    for seed in 1..=6 {
        agrees_with_oracle(&device, &mut queue, seed, 5000, 900);
    }
}

#[test]
fn layouts_of_all_sizes_arrive() {
    let device = device();
    let mut queue = queue(&device);
    for (seed, (count, len_max)) in
        [(0, 1), (1, 0), (1, 1), (3, 200_000), (64, 4096), (20, 70_000), (20_000, 24)].into_iter().enumerate()
    {
        agrees_with_oracle(&device, &mut queue, 100 + seed as u64, count, len_max);
    }
}

#[test]
fn large_pieces_arrive() {
    let device = device();
    let mut queue = queue(&device);
    let len = 9 << 20;
    let from = Random(7).bytes(len);
    let mut src = device.alloc(len).expect("memory");
    let mut dst = device.alloc(len).expect("memory");
    src.write(0, &from).expect("written");
    dst.write(0, &vec![0; len]).expect("written");
    let (head, tail) = (4_500_001, len as u64 - 4_500_001);
    let segments = [
        Segment { src: tail, dst: 0, len: head },
        Segment { src: 0, dst: head, len: tail },
        Segment { src: 0, dst: 0, len: 0 },
    ];
    for segments in [&segments[..2], &segments[..1]] {
        // SAFETY: within the two buffers, which live until the batch has ended; the destinations are apart.
        let outcome = unsafe { copy(&mut queue, &moved(segments, src.span().addr, dst.span().addr)) };
        assert_eq!(outcome, Ok(()));
        let mut found = vec![0; len];
        dst.read(0, &mut found).expect("read");
        assert!(
            found[..head as usize] == from[tail as usize..]
                && found[head as usize..] == from[..tail as usize]
        );
    }
}

#[test]
fn page_locked_memory_is_copied_both_ways() {
    let device = device();
    let mut queue = device.queue(Arc::new(|| ()), Urgency::Urgent).expect("a queue");
    let mut random = Random(11);
    let (segments, src_len, dst_len) = scattered(&mut random, 700, 5000);
    let bytes = random.bytes(src_len);
    let (from, back) = (pinned(&device, &bytes), pinned(&device, &vec![0; dst_len]));
    let mut buffer = device.alloc(dst_len).expect("memory");
    buffer.write(0, &vec![0; dst_len]).expect("written");
    let buffer_addr = buffer.span().addr;
    let all = [Segment { src: buffer_addr, dst: back.device_addr(), len: dst_len as u64 }];
    // SAFETY: within the buffers, which live until the batches have ended and are not looked at meanwhile.
    unsafe {
        assert_eq!(copy(&mut queue, &moved(&segments, from.device_addr(), buffer_addr)), Ok(()));
        assert_eq!(copy(&mut queue, &all), Ok(()));
    }
    let mut expected = vec![0; dst_len];
    oracle(&segments, &bytes, &mut expected);
    assert!(back.as_slice() == expected);
}

/// A pair of buffers for batches of which only the number counts.
struct Small {
    from: baton::device::DeviceBuffer,
    to: baton::device::DeviceBuffer,
}

impl Small {
    fn new(device: &Arc<Device>) -> Self {
        let buffer = || device.alloc(4096).expect("memory");
        Self { from: buffer(), to: buffer() }
    }

    fn segments(&self, count: u64) -> Vec<Segment> {
        let (src, dst) = (self.from.span().addr, self.to.span().addr);
        (0..count).map(|at| Segment { src: src + at % 4096, dst: dst + at % 4096, len: 1 }).collect()
    }
}

#[test]
fn batches_end_in_order_and_the_bell_rings_for_each() {
    let device = device();
    let rings = Arc::new(Rings::default());
    let mut queue = device.queue(rings.bell(), Urgency::Normal).expect("a queue");
    let small = Small::new(&device);
    assert_eq!((queue.ended(), queue.in_flight()), (None, 0));
    for token in 0..10 {
        // SAFETY: within the two buffers, which live until the batches have ended.
        unsafe { start(&mut queue, token, &small.segments(token * 100)) };
    }
    rings.wait(10);
    let ended: Vec<_> = std::iter::from_fn(|| queue.ended()).collect();
    let expected: Vec<_> = (0..10).map(|token| (token, Ok(()))).collect();
    assert_eq!((ended, queue.in_flight()), (expected, 0), "the bell rings behind the end");
}

#[test]
fn a_full_queue_says_so_and_goes_on() {
    let device = device();
    let mut queue = queue(&device);
    let small = Small::new(&device);
    let segments = small.segments(50);
    let mut token = 0;
    let mut try_start = |queue: &mut CopyQueue| {
        // SAFETY: within the two buffers, which live until the batches have ended.
        let started = unsafe { queue.start(token, segments.iter().copied()) }.expect("not an error");
        token += u64::from(started == Started::Accepted);
        started
    };
    while try_start(&mut queue) == Started::Accepted {
        assert!(queue.in_flight() <= CopyQueue::BATCHES_MAX);
    }
    assert_eq!(queue.in_flight(), CopyQueue::BATCHES_MAX);
    for expected in 0..100 {
        assert_eq!(next_end(&mut queue), (expected, Ok(())));
        assert_eq!(try_start(&mut queue), Started::Accepted, "room for one");
    }
    assert!(queue.drain(WATCHDOG));
    assert_eq!(std::iter::from_fn(|| queue.ended()).count(), CopyQueue::BATCHES_MAX);
}

#[test]
fn a_full_list_says_so_and_goes_on() {
    let device = device();
    let mut queue = queue(&device);
    let small = Small::new(&device);
    let segments = small.segments(4096);
    let longest = segments.iter().copied().cycle().take(CopyQueue::SEGMENTS_MAX);
    let longest: Vec<Segment> = longest.collect();
    let mut accepted = 0;
    // SAFETY: within the two buffers, which live until the batches have ended; every byte is written with itself alone.
    while unsafe { queue.start(accepted, longest.iter().copied()) } == Ok(Started::Accepted) {
        accepted += 1;
    }
    assert!((2..CopyQueue::BATCHES_MAX as u64).contains(&accepted), "{accepted}");
    assert_eq!(next_end(&mut queue), (0, Ok(())));
    // SAFETY: as above.
    unsafe { start(&mut queue, accepted, &longest) };
    assert!(queue.drain(WATCHDOG));
}

#[test]
fn too_many_segments_are_an_error_of_that_batch() {
    let device = device();
    let mut queue = queue(&device);
    let many = vec![Segment { src: 0, dst: 0, len: 1 }; CopyQueue::SEGMENTS_MAX + 1];
    // SAFETY: refused.
    let error = unsafe { queue.start(1, many.iter().copied()) }.expect_err("refused");
    assert!(error.to_string().contains("65537 segments in a batch, more than 65536"), "{error}");
    assert_eq!((queue.in_flight(), queue.broken()), (0, None));
    agrees_with_oracle(&device, &mut queue, 3, 10, 100);
}

#[test]
fn a_bell_that_panics_hurts_nobody() {
    let device = device();
    let mut queue = device.queue(Arc::new(|| panic!("on purpose")), Urgency::Normal).expect("a queue");
    agrees_with_oracle(&device, &mut queue, 4, 10, 100);
    agrees_with_oracle(&device, &mut queue, 5, 10, 100);
}

#[test]
fn a_queue_that_is_dropped_waits_for_its_copies() {
    let device = device();
    let rings = Arc::new(Rings::default());
    let small = Small::new(&device);
    let mut queue = device.queue(rings.bell(), Urgency::Normal).expect("a queue");
    // SAFETY: within the two buffers, which outlive the queue.
    unsafe { start(&mut queue, 1, &small.segments(1000)) };
    drop(queue);
    assert_eq!(Arc::strong_count(&rings), 1, "the bell is free");
}

#[test]
fn draining_has_a_bound() {
    if fake_cuda::serves("draining_has_a_bound") {
        in_a_process("copies::with_slow_copies", &[("FAKE_CUDA_DELAY_US", "300000")]);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_slow_copies() {
    let device = device();
    let mut queue = queue(&device);
    let small = Small::new(&device);
    // SAFETY: within the two buffers, which outlive the queue.
    unsafe { start(&mut queue, 1, &small.segments(10)) };
    assert!(!queue.drain(Duration::from_millis(1)), "it takes longer");
    assert_eq!((queue.ended(), queue.in_flight()), (None, 1));
    assert!(queue.drain(WATCHDOG));
    assert_eq!(queue.in_flight(), 1, "it has not been told yet");
    assert_eq!(next_end(&mut queue), (1, Ok(())));
}
