//! One host process: how it is started, told what to do, listened to, and ended.
//!
//! Commands and answers are lines with a number (`tests/chaos/host/main.cc`). Two threads read what it says, and end
//! with it. Only the process that was started here is ever signalled, by its id, and it is gone when this is dropped.

use crate::answers::{Answer, Pending, Reply, read_answers};
use crate::arena::{Arena, Shape};
use crate::bench::Bench;
use crate::clock::now_ns;
use crate::row::{Case, Lane, Seam};
use crate::watchdog;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ioctl_fionread};
use rustix::pipe::fcntl_setpipe_size;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How a host is started.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// The door by which it goes in.
    pub seam: Seam,
    /// The lane that it is restricted to.
    pub lane: Lane,
    /// How its memory is cut.
    pub shape: Shape,
    /// Variables, besides those that follow from the above.
    pub env: Vec<(String, String)>,
    /// Puts the process where it belongs, just before it is spawned.
    pub place: Option<Place>,
    /// Further arguments.
    pub args: Vec<String>,
    /// How much of what it writes to standard error waits for a reader; `None` as the system has it.
    pub pipe_bytes: Option<usize>,
}

/// See [`HostSpec::place`].
#[derive(Clone)]
pub struct Place(pub Arc<Hook>);

/// Changes a command before it is spawned.
pub type Hook = dyn Fn(&mut Command) -> io::Result<()> + Send + Sync;

impl std::fmt::Debug for Place {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("Place")
    }
}

impl HostSpec {
    /// As most runs have it: slots of some MiB, and a peer that is silent for this long is lost.
    pub fn usual(case: &Case, mebibytes: usize, peer_timeout: Duration) -> HostSpec {
        let millis = peer_timeout.as_millis().to_string();
        let env = [
            ("BATON_PEER_TIMEOUT_MS", millis.as_str()),
            ("BATON_CONNECT_TIMEOUT_MS", millis.as_str()),
            ("BATON_LOG", "info"),
        ];
        HostSpec {
            seam: case.seam,
            lane: case.lane,
            shape: crate::stage::shape(mebibytes),
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            place: None,
            args: Vec::new(),
            pipe_bytes: None,
        }
    }
}

/// A line of a host's standard error.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// When it arrived, on CLOCK_MONOTONIC.
    pub at_ns: u64,
    /// The line.
    pub text: String,
}

/// A running host.
#[derive(Debug)]
pub struct Host {
    /// Its memory.
    pub arena: Arc<Arena>,
    pid: Option<Pid>,
    child: Mutex<Child>,
    stdin: Mutex<Option<ChildStdin>>,
    pending: Arc<Pending>,
    log: Arc<Mutex<Vec<LogLine>>>,
    /// Where the log comes from.
    stderr: Option<Arc<ChildStderr>>,
    is_read: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
}

impl Host {
    /// Starts one; its log goes to `folder`. The thread that calls this has to outlive it: the host dies with it.
    pub fn start(bench: &Bench, spec: &HostSpec, name: &str, folder: &Path) -> io::Result<Host> {
        let arena = Arc::new(Arena::new(spec.shape)?);
        let mut command = command(bench, spec, &arena);
        if let Some(Place(place)) = &spec.place {
            place(&mut command)?;
        }
        let mut child = command.spawn()?;
        let pending = Arc::new(Pending::default());
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let pending = Arc::clone(&pending);
            readers.push(thread::spawn(move || read_answers(stdout, &pending)));
        }
        let is_read = Arc::new(AtomicBool::new(true));
        let stderr = child.stderr.take().map(Arc::new);
        if let Some(stderr) = stderr.clone() {
            if let Some(bytes) = spec.pipe_bytes {
                fcntl_setpipe_size(&*stderr, bytes)?;
            }
            let file = File::create(folder.join(format!("{name}.log")))?;
            let (log, is_read) = (Arc::clone(&log), Arc::clone(&is_read));
            readers.push(thread::spawn(move || read_log(&stderr, &log, &is_read, file)));
        }
        let stdin = Mutex::new(child.stdin.take());
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        pid.into_iter().for_each(watchdog::watch);
        let child = Mutex::new(child);
        Ok(Host { arena, pid, child, stdin, pending, log, stderr, is_read, readers })
    }

    /// Gives a command.
    pub fn tell(&self, command: &str) -> Reply {
        let (sender, coming) = channel();
        let number = self.pending.add(sender);
        let line = format!("{number} {command}\n");
        let written = lock(&self.stdin).as_mut().map(|stdin| stdin.write_all(line.as_bytes()));
        if !matches!(written, Some(Ok(()))) {
            self.pending.take(number); // nobody will answer
        }
        Reply::to(command, coming)
    }

    /// Gives a command and waits for its answer.
    pub fn ask(&self, command: &str, limit: Duration) -> Answer {
        self.tell(command).within(limit)
    }

    /// The process.
    pub fn pid(&self) -> io::Result<Pid> {
        self.pid.ok_or_else(|| io::Error::other("no process id"))
    }

    /// Signals it. It has not been waited for, or the signal goes nowhere: its id is nobody else's meanwhile.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match lock(&self.child).try_wait()? {
            None => Ok(kill_process(self.pid()?, signal)?),
            Some(status) => Err(io::Error::other(format!("it has ended: {status}"))),
        }
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> Vec<LogLine> {
        lock(&self.log).clone()
    }

    /// Whether its standard error is read from now on; at first it is.
    pub fn read_log(&self, is_read: bool) {
        self.is_read.store(is_read, Ordering::Release);
    }

    /// Waits until the log has all that the host has written so far. An answer comes another way, and may overtake what was
    /// logged before it.
    pub fn catch_up(&self) {
        let (Some(stderr), begin) = (&self.stderr, Instant::now()) else { return };
        let is_behind = || {
            let _log = lock(&self.log);
            ioctl_fionread(stderr).is_ok_and(|bytes| bytes > 0)
        };
        while is_behind() && begin.elapsed() < CATCH_UP_LIMIT {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The first line with all of `parts` that came at or after a moment.
    pub fn logged(&self, since_ns: u64, parts: &[&str]) -> Option<LogLine> {
        let log = lock(&self.log);
        log.iter()
            .find(|line| line.at_ns >= since_ns && parts.iter().all(|part| line.text.contains(part)))
            .cloned()
    }

    /// The name under which peers know its agent: at seam S3 the library makes one up.
    pub fn agent(&self) -> Option<String> {
        let line = self.logged(0, &["listening; peers are told", "agent="])?;
        Some(line.text.split("agent=").nth(1)?.split(' ').next()?.to_owned())
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> io::Result<Option<ExitStatus>> {
        lock(&self.child).try_wait()
    }

    /// Lets it end by itself, and says how it did; `None` if it did not in time.
    pub fn close(&self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        lock(&self.stdin).take();
        self.await_end(limit)
    }

    /// Waits for its end; `None` if that did not come in time.
    pub fn await_end(&self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.ended()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            thread::sleep(Duration::from_millis(1)); // no wait for a child has a limit
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
        drop(child);
        lock(&self.stdin).take();
        self.read_log(true);
        for reader in self.readers.drain(..) {
            let _ = reader.join(); // a reader that panicked has said so
        }
    }
}

/// The command line of a host.
fn command(bench: &Bench, spec: &HostSpec, arena: &Arena) -> Command {
    let mut words = Vec::new();
    match (&spec.seam, &bench.python) {
        (Seam::S2, Some((python, _))) => {
            words.push(python.display().to_string());
            words.push(bench.source_dir.join("host.py").display().to_string());
        }
        _ => words.push(bench.host.display().to_string()),
    }
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Shape { piece_bytes, pieces, slots } = spec.shape;
    command.args(["--seam", spec.seam.name(), "--memory", &arena.path()]);
    command.args(["--piece-bytes", &piece_bytes.to_string(), "--pieces", &pieces.to_string()]);
    command.args(["--slots", &slots.to_string(), "--parent", &std::process::id().to_string()]);
    command.args(&spec.args);
    if let (Seam::S2, Some((_, binding))) = (&spec.seam, &bench.python) {
        command.env("PYTHONPATH", binding).env("PYTHONDONTWRITEBYTECODE", "1").env_remove("BATON_TRTLLM_ABI");
    } else {
        command.env("LD_LIBRARY_PATH", &bench.lib_dir);
    }
    command.env("BATON_LANES", spec.lane.name()).env("CHAOS_CLOCK", arena.path());
    command.envs(spec.env.iter().map(|(name, value)| (name, value)));
    command
}

/// What has left the pipe is in the log, but for a line that has no end yet: both happen under the log's lock.
fn read_log(stderr: &ChildStderr, log: &Mutex<Vec<LogLine>>, is_read: &AtomicBool, mut file: File) {
    let mut keep = |log: &mut Vec<LogLine>, line: &[u8]| {
        let text = String::from_utf8_lossy(line).into_owned();
        let _ = writeln!(file, "{text}"); // a full disk loses the copy, not the run
        log.push(LogLine { at_ns: now_ns(), text });
    };
    let (mut some, mut rest) = ([0; READ_AHEAD], Vec::new());
    loop {
        let _ = poll(&mut [PollFd::new(stderr, PollFlags::IN)], None); // where it fails, reading waits
        let mut log = lock(log);
        match rustix::io::read(stderr, &mut some) {
            Ok(0) => break,
            Ok(count) => rest.extend_from_slice(&some[..count]),
            Err(Errno::INTR) => continue,
            Err(_) => break,
        }
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            keep(&mut log, &rest[..end]);
            rest.drain(..=end);
        }
        drop(log);
        while !is_read.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    if !rest.is_empty() {
        keep(&mut lock(log), &rest);
    }
}

/// Little, so that what nobody reads waits in the pipe.
const READ_AHEAD: usize = 512;
/// A log that is not read for so long is judged as it is.
const CATCH_UP_LIMIT: Duration = Duration::from_secs(5);

/// What a panicked thread left is still whole: every change under these locks is one step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
