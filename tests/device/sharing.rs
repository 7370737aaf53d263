//! Memory of another process: exported there, mapped here, copied by kernels here.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use baton::desc::{Segment, Span};
use baton::device::{CopyQueue, Device, DeviceBuffer, HandleKind, SharedHandle};
use fake_cuda::in_a_process;
use rustix::process::Signal;

use crate::raw::{Chunks, Handles};
use crate::rig::{Random, WATCHDOG, copy, cuda, device, pinned, queue};

const LEN: u64 = 2 << 20;
const THEIRS: u64 = 21;
const OURS: u64 = 22;

/// A process that shares memory. Killed when it is dropped, or too late.
struct Exporter {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    _watchdog: Sender<()>,
}

impl Exporter {
    fn spawn() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "sharing::exporter", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the same program starts again");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { child, stdin, stdout: BufReader::new(stdout), _watchdog: watchdog() }
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").expect("it reads");
        loop {
            let mut answer = String::new();
            assert_ne!(self.stdout.read_line(&mut answer).expect("text"), 0, "the exporter has ended");
            if let Some(answer) = answer.trim_end().strip_prefix('@') {
                return answer.to_owned();
            }
        }
    }

    /// Memory of this kind, as a peer offers it.
    fn share(&mut self, kind: &str) -> SharedHandle {
        let said = self.ask(kind);
        let byte = |at: usize| u8::from_str_radix(&said[at..at + 2], 16).expect("hexadecimal");
        let bytes: Vec<u8> = (0..said.len()).step_by(2).map(byte).collect();
        SharedHandle::decode(&bytes).expect("a handle")
    }

    fn process(&self) -> OwnedFd {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a child of ours")
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process unless what it gives is dropped in time: whoever waits for an exporter then waits for ever.
fn watchdog() -> Sender<()> {
    let (held, watched) = channel();
    std::thread::spawn(move || {
        if watched.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
            eprintln!("sharing: an exporter did not end within {WATCHDOG:?}");
            std::process::abort();
        }
    });
    held
}

/// Not a test: the process that [`Exporter::spawn`] starts.
#[test]
#[ignore = "the other process of the tests"]
fn exporter() {
    let killed_with_parent = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    killed_with_parent.expect("a signal that there is");
    let device = device();
    let mut queue = queue(&device);
    let (mut buffers, mut offered, mut last) = (Vec::new(), Vec::new(), Span { addr: 0, len: 0 });
    for line in std::io::stdin().lines().map_while(Result::ok) {
        if line == "check" {
            let found = fetch(&device, &mut queue, last);
            println!("\n@{}", found == Random(OURS).bytes(last.len as usize));
            continue;
        }
        last = match line.as_str() {
            "legacy" => {
                buffers.push(device.alloc(LEN as usize).expect("memory"));
                buffers.last().map(DeviceBuffer::span).expect("just made")
            }
            "fd" => Chunks::new(&[&*device; 1], Handles::Fd).span(),
            "fabric" => Chunks::new(&[&*device; 1], Handles::FdOrFabric).span(),
            _ => panic!("{line:?} is no order"),
        };
        fill(&device, &mut queue, last, THEIRS);
        let found = cuda().allocations(last).expect("device memory");
        assert_eq!(found.len(), 1);
        let shared = device.share(&found[0]).expect("it can be shared");
        let hex: String = shared.handle().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        offered.push(shared);
        println!("\n@{hex}");
    }
}

/// Random bytes of this seed go there.
fn fill(device: &Arc<Device>, queue: &mut CopyQueue, to: Span, seed: u64) {
    let from = pinned(device, &Random(seed).bytes(to.len as usize));
    // SAFETY: both are as long as is said and nobody looks at them meanwhile.
    let filled = unsafe { copy(queue, &[Segment { src: from.device_addr(), dst: to.addr, len: to.len }]) };
    assert_eq!(filled, Ok(()));
}

fn fetch(device: &Arc<Device>, queue: &mut CopyQueue, from: Span) -> Vec<u8> {
    let to = device.pinned(from.len as usize).expect("memory");
    // SAFETY: both are as long as is said and nobody looks at them meanwhile.
    let fetched = unsafe { copy(queue, &[Segment { src: from.addr, dst: to.device_addr(), len: from.len }]) };
    assert_eq!(fetched, Ok(()));
    to.as_slice().to_vec()
}

/// Reads and writes memory of another process through a mapping of this kind.
fn moves_between_processes(kind: &str) -> HandleKind {
    let mut exporter = Exporter::spawn();
    let handle = exporter.share(kind);
    let device = device();
    assert_eq!(handle.uuid, device.uuid());
    let mapping = device.map(&handle, exporter.process().as_fd()).expect("it is mapped");
    assert_eq!((mapping.len(), mapping.device().ordinal()), (handle.whole.len, 0));
    let mut queue = queue(&device);
    let theirs = Span { addr: mapping.base(), len: mapping.len() };
    assert!(fetch(&device, &mut queue, theirs) == Random(THEIRS).bytes(theirs.len as usize), "{kind}");
    fill(&device, &mut queue, theirs, OURS);
    assert_eq!(exporter.ask("check"), "true", "{kind}: what is written here is there");
    drop(mapping);
    let again = device.map(&handle, exporter.process().as_fd()).expect("it is mapped again");
    drop(exporter); // before the mapping, which is harmless
    drop(again);
    handle.kind
}

#[test]
fn legacy_handles_reach_another_process() {
    assert!(matches!(moves_between_processes("legacy"), HandleKind::Ipc(_)));
}

#[test]
fn file_descriptors_reach_another_process() {
    assert!(matches!(moves_between_processes("fd"), HandleKind::Fd(_)));
}

#[test]
fn fabric_handles_reach_another_process() {
    if fake_cuda::serves("fabric_handles_reach_another_process") {
        in_a_process("sharing::with_fabric_handles", &[("FAKE_CUDA_FABRIC", "1")]);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_fabric_handles() {
    assert!(matches!(moves_between_processes("fabric"), HandleKind::Fabric(_)));
}

#[test]
fn a_descriptor_serves_where_a_fabric_handle_is_refused() {
    if fake_cuda::serves("a_descriptor_serves_where_a_fabric_handle_is_refused") {
        let settings = [("FAKE_CUDA_FABRIC", "1"), ("FAKE_CUDA_FAIL", "cuMemExportToShareableHandle:1:919")];
        in_a_process("sharing::with_a_refused_fabric_handle", &settings);
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_a_refused_fabric_handle() {
    assert!(matches!(moves_between_processes("fabric"), HandleKind::Fd(_)));
}

#[test]
fn what_is_opened_is_closed_once() {
    if fake_cuda::serves("what_is_opened_is_closed_once") {
        let log = std::env::temp_dir().join(format!("baton-device-calls-{}", std::process::id()));
        let path = log.to_str().expect("a path in ASCII").to_owned();
        in_a_process("sharing::with_two_mappings", &[("FAKE_CUDA_LOG", &path)]);
        let calls = std::fs::read_to_string(&log).expect("calls were written down");
        std::fs::remove_file(&log).expect("it is there");
        let times = |call: &str| calls.lines().filter(|line| line.split(' ').nth(1) == Some(call)).count();
        assert_eq!((times("cuIpcOpenMemHandle_v2"), times("cuIpcCloseMemHandle")), (1, 1), "{calls}");
        assert_eq!(times("cuMemImportFromShareableHandle"), 1);
        // Those of the exporter's test memory are never undone.
        assert_eq!([times("cuMemMap"), times("cuMemUnmap"), times("cuMemAddressFree")], [2, 1, 1]);
        let failed: Vec<&str> = calls.lines().filter(|line| !line.contains(" 0")).collect();
        assert!(
            failed.iter().all(|line| line.contains("Query 600") || line.contains("Retain")),
            "{failed:?}"
        );
    }
}

#[test]
#[ignore = "in a process of its own"]
fn with_two_mappings() {
    let mut exporter = Exporter::spawn();
    for kind in ["legacy", "fd"] {
        let handle = exporter.share(kind);
        drop(device().map(&handle, exporter.process().as_fd()).expect("it is mapped"));
    }
}

#[test]
fn a_peer_that_lies_is_refused() {
    let mut exporter = Exporter::spawn();
    let (device, process) = (device(), exporter.process());
    for kind in ["legacy", "fd"] {
        let honest = exporter.share(kind);
        let whole = Span { len: honest.whole.len * 2, ..honest.whole };
        let error = device.map(&SharedHandle { whole, ..honest }, process.as_fd()).map(drop);
        let text = error.expect_err("longer than it is").to_string();
        assert!(text.contains(&format!("{} of {} bytes", honest.kind.name(), whole.len)), "{text}");
        device.map(&honest, process.as_fd()).expect("no harm is done");
    }
    let fd = exporter.share("fd");
    for number in [0, 9999] {
        let other = SharedHandle { kind: HandleKind::Fd(number), ..fd };
        device.map(&other, process.as_fd()).map(drop).expect_err("no memory");
    }
    let garbage = SharedHandle { kind: HandleKind::Ipc([0xee; 64]), ..fd };
    device.map(&garbage, process.as_fd()).map(drop).expect_err("no handle");
}

#[test]
fn a_handle_of_our_own_is_refused() {
    let device = device();
    let buffer = device.alloc(4096).expect("memory");
    let found = cuda().allocations(buffer.span()).expect("device memory");
    let shared = device.share(&found[0]).expect("it can be shared");
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    let error = device.map(shared.handle(), own.expect("this process").as_fd()).map(drop);
    assert_eq!(error.expect_err("CUDA does not do that").call, "cuIpcOpenMemHandle");
}

#[test]
fn chunks_without_a_handle_say_why() {
    let device = device();
    let chunks = Chunks::new(&[&*device], Handles::None);
    let found = cuda().allocations(chunks.span()).expect("device memory");
    let text = device.share(&found[0]).map(drop).expect_err("nobody asked for one").to_string();
    assert_eq!(
        text,
        "VMM memory that cannot be exported: its allocator has asked for no handle (CUmemAllocationProp::requestedHandleTypes)"
    );
}
