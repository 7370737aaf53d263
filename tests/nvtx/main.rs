//! Transfers on a profiler's timeline: a process with a profiler of our own, which writes down what it is told.
//!
//! The profiler is compiled with NVIDIA's headers where there are some: in the folder that `BATON_NVTX_INCLUDE` names, in
//! `include` of `CUDA_HOME` or of `/usr/local/cuda`, or where the compiler looks. So the tables that Baton offers are held
//! against them.
#![allow(
    clippy::disallowed_methods,
    reason = "a test that starts itself again speaks to it by the environment"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use baton::agent::{Agent, AgentConfig, DescriptorList, TransferRequest, TransferState};
use baton::config::backend::Backend;
use baton::config::{EngineSettings, Environment, LaneChoice};
use baton::desc::{Descriptor, MemoryKind, TransferOp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

const WATCHDOG: Duration = Duration::from_secs(30);
const LEN: usize = 1 << 14;

#[test]
fn a_profiler_sees_the_phases_of_a_write_and_a_read() {
    let folder = folder("phases");
    let lines = profile(&build(&folder), &folder.join("lines"));
    let with = |begin: &str| lines.iter().filter(|line| line.starts_with(begin)).count();
    assert_eq!(with("domain baton"), 1, "{lines:#?}");
    assert_eq!(with("category baton 1 local"), 1, "{lines:#?}");
    assert_eq!(with("odd"), 0, "{lines:#?}");
    // Both are transfer 1.1 and 1.2 of the one agent, and each side names them so. The other side pulls a write.
    for (phase, category, times) in
        [("plan", 0, 2), ("transfer", 1, 2), ("post", 1, 2), ("copy", 1, 2), ("ack", 1, 2)]
    {
        assert_eq!(with(&format!("start baton {phase} {category} ff")), times, "{phase}: {lines:#?}");
        assert_eq!(with(&format!("end baton {phase}")), times, "{phase}: {lines:#?}");
    }
    for phase in ["transfer", "post", "copy", "ack"] {
        for id in ["10000000001", "10000000002"] {
            let of_it =
                |line: &&String| line.starts_with(&format!("start baton {phase} ")) && line.ends_with(id);
            assert_eq!(lines.iter().filter(of_it).count(), 1, "{phase} {id}: {lines:#?}");
        }
    }
    assert_eq!(with("end baton unknown"), 0, "{lines:#?}");
}

#[test]
fn a_profiler_that_does_not_start_changes_nothing() {
    let folder = folder("refuses");
    let lines = profile(&build(&folder), Path::new("/no/such/folder/lines"));
    assert_eq!(lines, Vec::<String>::new());
    let lines = profile(Path::new("/no/such/profiler.so"), &folder.join("lines"));
    assert_eq!(lines, Vec::<String>::new());
}

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nvtx").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    folder
}

/// Compiles the profiler.
fn build(folder: &Path) -> PathBuf {
    let library = folder.join("profiler.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nvtx/profiler.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-o"]).arg(&library).arg(source);
    match headers() {
        Some(include) => _ = compiler.arg("-DWITH_HEADERS").arg("-I").arg(include),
        None => println!("without NVIDIA's headers: the profiler has declarations of its own"),
    }
    let built = compiler.output().expect("the C compiler starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

/// A folder with `nvtx3/nvToolsExt.h`.
fn headers() -> Option<PathBuf> {
    let of_cuda = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("include"));
    let named = std::env::var_os("BATON_NVTX_INCLUDE").map(PathBuf::from);
    let usual = ["/usr/local/cuda/include", "/usr/include"].map(PathBuf::from);
    let folders = named.into_iter().chain(of_cuda).chain(usual);
    folders.into_iter().find(|folder| folder.join("nvtx3/nvToolsExt.h").is_file())
}

/// What the profiler writes down of a process that transfers.
fn profile(profiler: &Path, lines: &Path) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "write_and_read", "--ignored", "--nocapture"])
        .env("NVTX_INJECTION64_PATH", profiler)
        .env("NVTX_LINES", lines)
        .stdout(Stdio::null())
        .spawn()
        .expect("the same program starts again");
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("a pidfd");
    let within = Timespec::try_from(WATCHDOG).expect("a few seconds");
    let ended = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&within)).expect("polls");
    if ended == 0 {
        let _ = child.kill();
    }
    let status = child.wait().expect("it is our child");
    assert!(ended > 0, "the profiled process did not end within {WATCHDOG:?}");
    assert!(status.success(), "the profiled process: {status}");
    let text = std::fs::read_to_string(lines).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
#[ignore = "what the others start in a process of its own"]
fn write_and_read() {
    let environment = Environment::from_process();
    let (settings, _) = EngineSettings::from_environment(&environment, Backend::Nixl).expect("usable");
    let lanes = LaneChoice { ucx: false, cuda: false, ..LaneChoice::default() };
    let settings = EngineSettings { lanes, interface: Some("lo".into()), ..settings };
    let open = |name: &str| {
        let name = format!("{name}-{}", std::process::id());
        Agent::new(AgentConfig { name, settings: settings.clone() }).expect("an agent opens")
    };
    let (here, there) = (open("here"), open("there"));
    let [near, far] = [&here, &there].map(|agent| {
        let bytes = Box::leak(vec![0_u8; LEN].into_boxed_slice());
        let desc = Descriptor { addr: bytes.as_mut_ptr() as u64, len: LEN as u64, device: 0 };
        let list = DescriptorList { kind: MemoryKind::Dram, descs: vec![desc].into() };
        // SAFETY: the memory is leaked, so it stays mapped, and nobody looks at it.
        unsafe { agent.register(&list) }.expect("memory registers");
        list
    });
    here.load_blob(there.name(), &there.local_blob()).expect("loads");
    for op in [TransferOp::Write, TransferOp::Read] {
        let (local, remote, peer) = (near.clone(), far.clone(), there.name().to_owned());
        let transfer = here.submit(&TransferRequest { op, local, remote, peer, sync_message: None });
        let transfer = transfer.expect("the transfer is taken");
        assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
    }
}
