//! GPU memory to files and back by the loopback agent, against what a CPU would have done.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

use baton::agent::DescriptorList;
use baton::agent::loopback::{Direction, FileSpan, LoopbackAgent, LoopbackError};
use baton::desc::{Descriptor, MemoryKind};
use baton::device::DeviceBuffer;
use fake_cuda::in_a_process;

use crate::rig::{Random, cuda, device};

/// A file without a name.
fn scratch() -> File {
    let fd = rustix::fs::memfd_create("baton-files", rustix::fs::MemfdFlags::CLOEXEC).expect("a file");
    File::from(fd)
}

/// The agent; the driver of the process is the tests', whatever an agent would open.
fn agent() -> LoopbackAgent {
    let _ = cuda();
    LoopbackAgent::new("disk0", None)
}

fn vram(descs: Vec<Descriptor>) -> DescriptorList<'static> {
    DescriptorList { kind: MemoryKind::Vram, descs: descs.into() }
}

fn execute(
    agent: &LoopbackAgent,
    memory: &DescriptorList<'_>,
    files: &[FileSpan],
    direction: Direction,
) -> Result<(), LoopbackError> {
    // SAFETY: the descriptors lie in buffers of the test, which outlive the call, and of which nobody has a reference; or
    // they are refused.
    unsafe { agent.execute(memory, files, direction) }
}

/// Pieces of a buffer, with gaps and at any alignment, shuffled: as `(offset, length)`.
fn scattered(random: &mut Random, count: u64, len_max: u64) -> (Vec<(u64, u64)>, usize) {
    let (mut pieces, mut end) = (Vec::new(), 0);
    for _ in 0..count {
        end += random.below(40);
        let len = 1 + random.below(len_max);
        pieces.push((end, len));
        end += len;
    }
    (1..pieces.len()).rev().for_each(|at| pieces.swap(at, random.below(at as u64 + 1) as usize));
    (pieces, end as usize)
}

fn noise(random: &mut Random, len: usize) -> Vec<u8> {
    let words = (0..len / 8 + 1).flat_map(|_| random.below(u64::MAX).to_le_bytes());
    words.take(len).collect()
}

/// Three files for so many bytes, none of them empty, all of uneven lengths.
fn three_files(total: u64) -> (Vec<File>, Vec<FileSpan>) {
    let files: Vec<File> = (0..3).map(|_| scratch()).collect();
    let lens = [total / 3 + 1, total / 5, total - total / 3 - 1 - total / 5];
    let spans = files.iter().zip(lens).map(|(file, len)| FileSpan { fd: file.as_raw_fd(), len }).collect();
    (files, spans)
}

fn contents(files: &[File], spans: &[FileSpan]) -> Vec<u8> {
    let mut all = Vec::new();
    for (file, span) in files.iter().zip(spans) {
        let mut bytes = vec![0; span.len as usize];
        file.read_exact_at(&mut bytes, 0).expect("the file is as long as it should be");
        all.extend(bytes);
    }
    all
}

/// Offloads pieces of a buffer, compares the files; wipes the pieces, loads them, compares all of the buffer.
fn there_and_back(agent: &LoopbackAgent, buffer: &mut DeviceBuffer, pieces: &[(u64, u64)], bytes: &[u8]) {
    buffer.write(0, bytes).expect("written");
    let base = buffer.span().addr;
    let descs = pieces.iter().map(|(at, len)| Descriptor { addr: base + at, len: *len, device: 0 });
    let memory = vram(descs.collect());
    let wanted: Vec<u8> =
        pieces.iter().flat_map(|&(at, len)| &bytes[at as usize..(at + len) as usize]).copied().collect();
    let (files, spans) = three_files(wanted.len() as u64);
    execute(agent, &memory, &spans, Direction::Offload).expect("offloaded");
    assert!(contents(&files, &spans) == wanted, "the files hold other bytes");
    let mut wiped = bytes.to_vec();
    for &(at, len) in pieces {
        wiped[at as usize..(at + len) as usize].fill(0xEE);
    }
    buffer.write(0, &wiped).expect("wiped");
    execute(agent, &memory, &spans, Direction::Load).expect("loaded");
    let mut back = vec![0; bytes.len()];
    buffer.read(0, &mut back).expect("read");
    assert!(back == bytes, "the memory holds other bytes, or something beside it was written");
}

#[test]
fn bytes_come_back_whatever_the_layout() {
    let (agent, mut random) = (agent(), Random(7));
    for (count, len_max) in [(5, 1), (1000, 300), (20_000, 3000), (6, 9 << 20)] {
        let (pieces, end) = scattered(&mut random, count, len_max);
        let bytes = noise(&mut random, end);
        let mut buffer = device().alloc(end).expect("memory");
        there_and_back(&agent, &mut buffer, &pieces, &bytes);
    }
}

#[test]
fn several_threads_use_one_agent() {
    let agent = agent();
    std::thread::scope(|scope| {
        for seed in 1..=6 {
            let agent = &agent;
            scope.spawn(move || {
                let mut random = Random(seed);
                let (pieces, end) = scattered(&mut random, 500, 60_000);
                let bytes = noise(&mut random, end);
                let mut buffer = device().alloc(end).expect("memory");
                there_and_back(agent, &mut buffer, &pieces, &bytes);
            });
        }
    });
}

#[test]
fn what_is_wrong_is_named_and_nothing_of_it_stays() {
    let (agent, file) = (agent(), scratch());
    let mut buffer = device().alloc(20 << 20).expect("memory");
    let bytes = noise(&mut Random(3), 20 << 20);
    buffer.write(0, &bytes).expect("written");
    let base = buffer.span().addr;
    let of = |addr: u64, len: u64, device: u32| vram(vec![Descriptor { addr, len, device }]);
    let span = |len: u64| [FileSpan { fd: file.as_raw_fd(), len }];
    let refused = |memory: DescriptorList<'_>, len: u64, direction, parts: &[&str]| {
        let text = execute(&agent, &memory, &span(len), direction).expect_err("refused").to_string();
        parts.iter().for_each(|part| assert!(text.contains(part), "{text:?} lacks {part:?}"));
    };
    let host = vec![0_u8; 4096];
    refused(
        of(host.as_ptr() as u64, 4096, 0),
        4096,
        Direction::Offload,
        &["disk0: VRAM ", "not device memory"],
    );
    refused(of(base, 64, 9), 64, Direction::Offload, &["lies on device 0, not on device 9"]);
    refused(of(base, (20 << 20) + 1, 0), (20 << 20) + 1, Direction::Offload, &["not device memory"]);
    assert_eq!(file.metadata().expect("a file").len(), 0, "what is refused has written nothing");

    // In the midst of it: the file ends in the second buffer of three.
    execute(&agent, &of(base, 10 << 20, 0), &span(10 << 20), Direction::Offload).expect("offloaded");
    refused(of(base, 20 << 20, 0), 20 << 20, Direction::Load, &["ends at offset 10485760"]);
    let readonly = File::open("/dev/null").expect("there");
    let null = [FileSpan { fd: readonly.as_raw_fd(), len: 20 << 20 }];
    let error = execute(&agent, &of(base, 20 << 20, 0), &null, Direction::Offload).expect_err("read-only");
    assert!(error.to_string().contains("Bad file descriptor"), "{error}");
    there_and_back(&agent, &mut buffer, &[(5, 15 << 20)], &bytes);
}

/// Each in a process of its own, with a libcufile of the tests: what is set, and whether it moves the bytes.
#[test]
fn large_pieces_go_by_cufile_where_it_does_them() {
    if !fake_cuda::serves("large_pieces_go_by_cufile_where_it_does_them") {
        return;
    }
    let folder = fake_cuda::cufile_folder().display().to_string();
    for (setting, by_cufile) in [
        (("FAKE_CUFILE_OPEN", "0"), true),
        (("FAKE_CUFILE_OPEN", "5001"), false),
        (("FAKE_CUFILE_REGISTER", "5008"), false),
    ] {
        let log = scratch_path(setting.1);
        let wanted = if by_cufile { "yes" } else { "no" };
        let settings =
            [("LD_LIBRARY_PATH", folder.as_str()), setting, ("FAKE_CUFILE_LOG", &log), (BY_CUFILE, wanted)];
        in_a_process("files::with_a_libcufile", &settings);
        // Where it refuses there may be no log at all.
        let _ = std::fs::remove_file(&log);
    }
}

#[test]
#[ignore = "in a process of its own"]
#[allow(clippy::disallowed_methods)] // settings of the test
fn with_a_libcufile() {
    let said = |name| std::env::var(name).expect("the test that starts this one sets it");
    let (log, by_cufile) = (said("FAKE_CUFILE_LOG"), said(BY_CUFILE) == "yes");
    let calls = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    let (agent, mut random) = (agent(), Random(11));
    let bytes = noise(&mut random, 21 << 20);
    let mut buffer = device().alloc(bytes.len()).expect("memory");
    there_and_back(&agent, &mut buffer, &[(4097, 9 << 20), (12 << 20, 8 << 20)], &bytes);
    let large = calls();
    assert_eq!(large > 0, by_cufile, "{large} calls");
    // The same file twice in a list, which cuFile would refuse to know twice.
    let file = scratch();
    let twice = [4 << 20, 5 << 20].map(|len| FileSpan { fd: file.as_raw_fd(), len });
    let memory = vram(vec![Descriptor { addr: buffer.span().addr, len: 9 << 20, device: 0 }]);
    execute(&agent, &memory, &twice, Direction::Offload).expect("offloaded");
    // A file that ends too early is told by the other way.
    let long = [FileSpan { fd: file.as_raw_fd(), len: 9 << 20 }];
    let text = execute(&agent, &memory, &long, Direction::Load).expect_err("too short").to_string();
    assert!(text.contains("ends at offset 5242880"), "{text}");
    // Small pieces are not worth a call each.
    let before = calls();
    let (pieces, end) = scattered(&mut random, 2000, 4096);
    there_and_back(&agent, &mut buffer, &pieces, &bytes[..end]);
    assert_eq!(calls(), before);
}

/// A path that nobody has, beside the test's other output.
fn scratch_path(name: &str) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.join(format!("files-{}-{name}.log", std::process::id())).display().to_string()
}

const BY_CUFILE: &str = "BATON_TEST_BY_CUFILE";

/// A device that refuses one launch costs one request.
#[test]
fn a_failed_copy_is_an_error_of_one_request() {
    if fake_cuda::serves("a_failed_copy_is_an_error_of_one_request") {
        in_a_process("files::with_a_refused_launch", &[("FAKE_CUDA_FAIL", "cuLaunchKernel:1:701")]);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_a_refused_launch() {
    let (agent, file) = (agent(), scratch());
    let mut buffer = device().alloc(4096).expect("memory");
    let memory = vram(vec![Descriptor { addr: buffer.span().addr, len: 4096, device: 0 }]);
    let span = [FileSpan { fd: file.as_raw_fd(), len: 4096 }];
    let text = execute(&agent, &memory, &span, Direction::Offload).expect_err("it fails").to_string();
    assert!(text.starts_with("loopback agent disk0: CUDA: cuLaunchKernel on device 0"), "{text}");
    there_and_back(&agent, &mut buffer, &[(0, 4096)], &noise(&mut Random(1), 4096));
}
