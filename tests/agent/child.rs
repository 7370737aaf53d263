//! Another process with an agent: what can be killed, stopped and forked.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use baton::agent::{Agent, Transfer, TransferRequest, TransferState};
use baton::desc::{Descriptor, TransferOp};
use parking_lot::Mutex;
use rustix::process::{Resource, Signal};

use crate::pair::{Lane, Pool, WATCHDOG, agent, dram, eventually, named_agent, unique};

/// The other process. Killed when it is dropped.
pub struct Other {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its agent.
    pub name: String,
    info: String,
    pool: Descriptor,
    /// A process that it has forked.
    orphan: Option<i32>,
    /// Ends the tests if this is not dropped in time: whatever waits for the other process then waits for ever.
    _watchdog: Sender<()>,
}

/// Longest that a test may have another process.
const LIFE_MAX: Duration = Duration::from_secs(4 * WATCHDOG.as_secs());

impl Other {
    /// A process with an agent and a registered pool.
    pub fn spawn(lane: Lane, len: usize) -> Self {
        Self::spawn_as(&unique("other"), lane, len)
    }

    /// The same, with an agent of this name.
    pub fn spawn_as(name: &str, lane: Lane, len: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child::other_process", "--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the same program starts again");
        let (stdin, stdout) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let pool = Descriptor { addr: 0, len: len as u64, device: 0 };
        let (name, info) = (name.to_owned(), String::new());
        let (stdout, _watchdog) = (BufReader::new(stdout), watchdog());
        let mut other = Self { child, stdin, stdout, name, info, pool, orphan: None, _watchdog };
        let said = other.ask(&format!("{lane:?} {len} {}", other.name));
        let (info, addr) = said.split_once(' ').expect("both");
        other.info = info.to_owned();
        other.pool.addr = addr.parse().expect("an address");
        other
    }

    /// Loads it.
    pub fn load(&self, ours: &Agent) {
        self.try_load(ours).expect("loads");
    }

    /// Loads it, or says why not.
    pub fn try_load(&self, ours: &Agent) -> Result<(), String> {
        let name = ours.load_at(&self.info).map_err(|error| error.to_string())?;
        assert_eq!(name, self.name);
        Ok(())
    }

    /// A write of all of `from` into its pool.
    pub fn write_from(&self, from: &Pool) -> TransferRequest<'static> {
        let (peer, remote) = (self.name.clone(), dram(vec![self.pool]));
        TransferRequest { op: TransferOp::Write, local: from.all(), remote, peer, sync_message: None }
    }

    /// Sends a line and waits for the answer; the process's end ends the wait, too.
    pub fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").expect("it reads");
        loop {
            let mut answer = String::new();
            assert_ne!(self.stdout.read_line(&mut answer).expect("text"), 0, "the other process has ended");
            if let Some(answer) = answer.trim_end().strip_prefix('@') {
                return answer.to_owned();
            }
        }
    }

    /// Makes it fork a process that holds all that it has, and does nothing.
    pub fn fork(&mut self) {
        self.orphan = Some(self.ask("fork").parse().expect("a process id"));
    }

    /// Makes it leave by `exit`, with transfers under way to "name address"; how long that took, and its exit code.
    pub fn exit(&mut self, to: &str) -> (Duration, Option<i32>) {
        let begun = Instant::now();
        writeln!(self.stdin, "exit {to}").expect("it reads");
        let ended = eventually("the end of the process", || self.child.try_wait().expect("a child of ours"));
        (begun.elapsed(), ended.code())
    }

    /// Its process: readable once it has ended.
    pub fn process(&self) -> OwnedFd {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a child of ours")
    }

    pub fn kill(&self) -> Instant {
        let now = Instant::now();
        signal(self.child.id() as i32, libc::SIGKILL);
        now
    }

    /// Stops it; it has stopped when this returns.
    pub fn stop(&self) {
        let (pid, mut status) = (self.child.id() as i32, 0);
        signal(pid, libc::SIGSTOP);
        // SAFETY: `status` is writable; the child is ours.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, libc::WUNTRACED) }, pid);
        assert!(libc::WIFSTOPPED(status), "it has ended: {status:#x}");
    }
}

impl Other {
    /// Lets it go on after [`Other::stop`].
    pub fn go_on(&self) {
        signal(self.child.id() as i32, libc::SIGCONT);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        if let Some(orphan) = self.orphan {
            signal(orphan, libc::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process unless what it gives is dropped in time.
fn watchdog() -> Sender<()> {
    let (held, watched) = channel();
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    std::thread::spawn(move || {
        if watched.recv_timeout(LIFE_MAX) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{test}: it did not end within {LIFE_MAX:?}");
            std::process::abort();
        }
    });
    held
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: no memory is involved; the process is one that this test has started and not waited for.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal} to process {pid}");
}

/// Not a test: the process that [`Other::spawn`] starts.
#[test]
#[ignore = "the other process of the tests"]
fn other_process() {
    // Stopped, it would outlive a test that is killed.
    let killed_with_parent = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    killed_with_parent.expect("a signal that there is");
    let mut lines = std::io::stdin().lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let words: Vec<&str> = first.split(' ').collect();
    let [lane, len, name] = words[..] else { panic!("{first}") };
    let lane = [Lane::Local, Lane::StreamUnix, Lane::StreamTcp, Lane::Ucx]
        .into_iter()
        .find(|known| format!("{known:?}") == lane)
        .expect("a lane");
    let agent = named_agent(name.into(), lane);
    let pool = Pool::new(len.parse().expect("a length"), 0xee);
    pool.register(&agent);
    println!("\n@{} {}", agent.connection_info(), pool.desc(0, 0).addr);
    for line in lines {
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("fork", _) => fork(|| {
                loop {
                    // SAFETY: waits for a signal, and touches nothing.
                    unsafe { libc::pause() };
                }
            })
            .to_string(),
            ("write", peer) => write(&agent, &pool, peer),
            ("exit", peer) => exit_with_work_in_flight(agent, &pool, peer),
            ("be_forked", peer) => be_forked(lane, &agent, &pool, peer),
            ("starve", peer) => starve(&agent, peer),
            ("shut", _) => {
                agent.shutdown();
                "shut".to_owned()
            }
            ("feed", _) => {
                limit_descriptors(None);
                "fed".to_owned()
            }
            ("lose", peer) => {
                eventually("the loss", || agent.loaded_link(peer).is_err().then_some(()));
                cpu_of_an_idle_agent(&agent).to_string()
            }
            ("load", info) => agent.load_at(info).expect("loads"),
            _ => panic!("{line:?} is no order"),
        };
        println!("@{answer}");
    }
}

/// Forks; `child` runs there and never returns. Killed by a clock if by nobody else.
fn fork(child: impl FnOnce()) -> i32 {
    // SAFETY: the child uses what its parent had, none of its threads, and ends by a signal or _exit.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: no memory is involved.
            unsafe { libc::alarm(WATCHDOG.as_secs() as u32) };
            child();
            // SAFETY: ends the process without running what the parent is to run.
            unsafe { libc::_exit(0) }
        }
        pid if pid > 0 => pid,
        _ => panic!("fork: {}", std::io::Error::last_os_error()),
    }
}

/// What a host has in static objects.
static AT_EXIT: Mutex<Option<(Vec<Transfer>, Agent)>> = Mutex::new(None);

extern "C" fn destroy_statics() {
    let mut held = AT_EXIT.lock();
    if let Some((transfers, agent)) = held.take() {
        drop(agent); // the agent first: transfers may outlive it
        drop(transfers);
    }
}

/// Leaves by `exit`, as hosts do whose static objects hold an agent: its destructor runs when those of this thread's own
/// storage have run.
fn exit_with_work_in_flight(agent: Agent, pool: &Pool, peer: &str) -> ! {
    let request = write_to(peer, pool);
    let transfers = (0..4).map(|_| agent.submit(&request).expect("taken")).collect();
    *AT_EXIT.lock() = Some((transfers, agent));
    // SAFETY: the handler is a plain function of this program.
    assert_eq!(unsafe { libc::atexit(destroy_statics) }, 0);
    std::process::exit(7)
}

/// Writes to "name address", or is refused; after " after", for as long as the news of a revocation takes.
fn write(agent: &Agent, pool: &Pool, peer: &str) -> String {
    let revoked = peer.strip_suffix(" after");
    let request = write_to(revoked.unwrap_or(peer), pool);
    let refused = || agent.submit(&request).is_err().then(|| "refused".to_owned());
    match revoked {
        Some(_) => eventually("the revocation", refused),
        None => {
            let transfer = eventually("the announcement", || agent.submit(&request).ok());
            format!("{:?}", transfer.wait(Some(WATCHDOG)))
        }
    }
}

/// A write of the whole pool to "name address".
fn write_to(peer: &str, pool: &Pool) -> TransferRequest<'static> {
    let (name, addr) = peer.split_once(' ').expect("a name and an address");
    let theirs = Descriptor { addr: addr.parse().expect("an address"), ..pool.all().descs[0] };
    let (local, remote) = (pool.all(), dram(vec![theirs]));
    TransferRequest { op: TransferOp::Write, local, remote, peer: name.to_owned(), sync_message: None }
}

/// Tries everything in a forked child, with a transfer under way; then the parent goes on. Says what was wrong.
fn be_forked(lane: Lane, agent: &Agent, pool: &Pool, peer: &str) -> String {
    let request = write_to(peer, pool);
    let name = request.peer.as_str();
    let transfer = agent.submit(&request).expect("taken");
    let child = fork(|| {
        let says_so = |text: String| text.contains("a forked child cannot use it");
        let good = [
            agent.submit(&request).is_err_and(|error| says_so(error.to_string())),
            agent.notify(name, b"x").is_err_and(|error| says_so(error.to_string())),
            agent.load_at("127.0.0.1:1").is_err_and(|error| says_so(error.to_string())),
            // SAFETY: refused; and a pool is leaked.
            unsafe { agent.register(&pool.all()) }.is_err_and(|error| says_so(error.to_string())),
            agent.take_notifications().is_empty() && agent.local_blob().is_empty(),
            !agent.check_remote(name, &request.remote),
            transfer.wait(Some(WATCHDOG)) != TransferState::InProgress,
            lane == Lane::Ucx || has_an_agent_of_its_own(lane), // UCX itself does not promise to work here
        ];
        agent.deregister(&pool.all());
        agent.invalidate(name);
        agent.shutdown();
        // SAFETY: this process ends without looking at either again.
        unsafe {
            drop(std::ptr::read(&raw const transfer));
            drop(std::ptr::read(agent));
        }
        let bad = good.iter().position(|good| !good).map_or(0, |at| at as i32 + 1);
        // SAFETY: ends the process without running what the parent is to run.
        unsafe { libc::_exit(bad) }
    });
    let mut status = 0;
    // SAFETY: `status` is writable; the child is ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    let unharmed = transfer.wait(Some(WATCHDOG)) == TransferState::Success
        && agent.submit(&request).expect("taken").wait(Some(WATCHDOG)) == TransferState::Success;
    match (libc::WIFEXITED(status), libc::WEXITSTATUS(status), unharmed) {
        (true, 0, true) => "well".to_owned(),
        (exited, code, unharmed) => format!("exited {exited} with {code}, parent unharmed {unharmed}"),
    }
}

/// Whether an agent can be made here, and used.
fn has_an_agent_of_its_own(lane: Lane) -> bool {
    let own = agent("own", lane);
    let pool = Pool::new(4096, 1);
    pool.register(&own);
    own.shutdown();
    own.check_running().is_err_and(|error| error.to_string().contains("has been shut down"))
}

/// Lets this process have no further descriptor, and does what needs some. Says how that went, and what it costs to
/// be without.
fn starve(agent: &Agent, peer: &str) -> String {
    if let Ok(lowest_free) = std::fs::File::open("/dev/null") {
        limit_descriptors(Some(lowest_free.as_raw_fd() as u64));
    }
    let error = agent.load_at(peer).expect_err("there is no descriptor for it");
    format!("{} {error}", cpu_of_an_idle_agent(agent))
}

/// The soft limit on descriptors: so many, or as many as may be.
fn limit_descriptors(limit: Option<u64>) {
    let mut limits = rustix::process::getrlimit(Resource::Nofile);
    limits.current = limit.or(limits.maximum);
    rustix::process::setrlimit(Resource::Nofile, limits).expect("a limit below the hard one");
}

/// Milliseconds of processor that all of this process uses in a third of a second in which nothing happens.
fn cpu_of_an_idle_agent(agent: &Agent) -> u128 {
    let used = || {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
    };
    let before = used();
    agent.park_for_notifications(Instant::now() + Duration::from_millis(300), || false);
    (used() - before).as_millis()
}
