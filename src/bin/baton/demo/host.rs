//! One engine host process: how it is started, what it says, how it is spoken to.
//!
//! Two threads read its output and feed one channel that all hosts of a run share; they end with the
//! process. Commands are single lines on its stdin; closing stdin ends it.

use baton::config::backend::Backend;
use indicatif::ProgressBar;
use serde::Deserialize;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use super::error::DemoError;
use super::meeting::Meetings;
use super::memory::Memories;
use super::plan::Run;
use super::programs::{HostProgram, PYTHON, Programs};
use super::seam::Seam;
use super::settings::LaneOption;
use crate::installed::Missing;
use crate::shape::Layout;

/// Which phase a rank serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Phase {
    /// It computed the KV cache and sends it
    Context,
    /// It decodes with the KV cache and receives it
    Generation,
}

impl Phase {
    /// The role's name on the host's command line.
    pub fn role(self) -> &'static str {
        match self {
            Phase::Context => "context",
            Phase::Generation => "generation",
        }
    }

    /// A rank of this phase, for people.
    pub fn label(self, rank: u32) -> String {
        format!("{} {rank}", self.role())
    }
}

/// An event of a host, as its line protocol names it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// It has registered its memory and can be reached.
    Ready {
        /// Its agent's name.
        name: String,
        /// Its agent's address.
        connection_info: String,
    },
    /// A request's KV stands in its pool.
    Prepared {
        /// The request.
        request: u64,
    },
    /// The transfers of a request have been submitted.
    Submitted {
        /// The request.
        request: u64,
    },
    /// They are done, as far as the sender can see.
    Sent {
        /// The request.
        request: u64,
    },
    /// The done notification of every sender has come.
    Received {
        /// The request.
        request: u64,
        /// First submit, on the clock that all processes share.
        submitted_ns: u64,
        /// Last done notification, on the same clock.
        done_ns: u64,
        /// Bytes that landed here.
        bytes: u64,
        /// Descriptors they came in.
        descriptors: u64,
    },
    /// Every byte has been held against what it must be.
    Checked {
        /// The request.
        request: u64,
        /// Blocks with a wrong byte.
        wrong_blocks: u64,
        /// Where the first one is; empty if none.
        first_wrong: String,
    },
    /// It is done and waits for its stdin to close.
    Summary {},
    /// It gives up.
    Error {
        /// Kind, for programs.
        kind: String,
        /// Text, for people.
        text: String,
    },
}

/// What comes out of a host.
#[derive(Debug)]
pub enum Said {
    /// A line on stdout.
    Event(Event),
    /// A line on stdout that is no event.
    Garbage(String),
    /// A line on stderr: the library's log.
    Log(String),
    /// Its stdout has ended.
    Closed,
}

/// A running host.
#[derive(Debug)]
pub struct Host {
    /// Phase and rank, for people.
    pub label: String,
    /// Its phase.
    pub phase: Phase,
    child: Child,
    stdin: Option<ChildStdin>,
}

/// What all hosts of a run share.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Where the programs lie.
    pub programs: &'a Programs,
    /// The run.
    pub run: &'a Run,
    /// Picks the library.
    pub backend: Backend,
    /// Restricts the lanes.
    pub lane: LaneOption,
    /// Where pools and slots lie.
    pub memories: Memories,
    /// Order in which pools hand out blocks.
    pub seed: u64,
    /// The value for `LD_LIBRARY_PATH`.
    pub library_path: &'a str,
    /// The value for `BATON_LOG`.
    pub log_filter: &'a str,
    /// Where the ranks of each phase meet, if they have to.
    pub meetings: Option<Meetings>,
    /// Shows how far the run is; lines for people go above it.
    pub bar: &'a ProgressBar,
}

impl Host {
    /// Starts the rank; what it says arrives at `said` with `index`.
    ///
    /// # Errors
    /// The system cannot start the program.
    pub fn start(
        launch: &Launch<'_>,
        phase: Phase,
        rank: u32,
        index: usize,
        said: &SyncSender<(usize, Said)>,
    ) -> Result<Host, DemoError> {
        let label = phase.label(rank);
        let mut command = command(launch, phase, rank);
        let mut child = command.spawn().map_err(|source| not_started(&label, &command, source))?;
        if let Some(stdout) = child.stdout.take() {
            let said = said.clone();
            thread::spawn(move || {
                each_line(stdout, |line| drop(said.send((index, understand(line)))));
                drop(said.send((index, Said::Closed))); // a driver that has gone needs no news
            });
        }
        if let Some(stderr) = child.stderr.take() {
            let said = said.clone();
            thread::spawn(move || each_line(stderr, |line| drop(said.send((index, Said::Log(line))))));
        }
        let stdin = child.stdin.take();
        Ok(Host { label, phase, child, stdin })
    }

    /// Sends a command. A host that has gone does not read it; its end is told by its output.
    pub fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            drop(writeln!(stdin, "{line}").and_then(|()| stdin.flush()));
        }
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order: it leaves when its stdin ends.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        drop(self.child.kill()); // fails only for a process that has ended
    }

    /// Its exit status, waiting for it up to `limit`.
    pub fn status(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.close();
        if self.status(LEAVE_LIMIT).is_none() {
            self.kill();
            drop(self.child.wait());
        }
    }
}

fn not_started(rank: &str, command: &Command, source: io::Error) -> DemoError {
    let program = command.get_program();
    if program == PYTHON && source.kind() == io::ErrorKind::NotFound {
        let looked_at = vec!["PATH".into()];
        return Missing { what: "python3", flag: "--python", looked_at }.into();
    }
    DemoError::Start { rank: rank.to_owned(), program: program.to_string_lossy().into_owned(), source }
}

/// The engine host, and what its seam needs of the environment.
fn program(host: &HostProgram) -> Command {
    match host {
        HostProgram::Native(program) => Command::new(program),
        HostProgram::Python { python, folder, binding } => {
            let mut command = Command::new(python);
            command.arg(folder).env("PYTHONPATH", binding).env("PYTHONDONTWRITEBYTECODE", "1");
            // Its package says of which age it is, whatever the environment says of others.
            command.env_remove("BATON_TRTLLM_ABI");
            command
        }
    }
}

fn command(launch: &Launch<'_>, phase: Phase, rank: u32) -> Command {
    let run = launch.run;
    let shape = &run.shape;
    let mut command = program(&launch.programs.host);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("LD_LIBRARY_PATH", launch.library_path);
    if let Some(lanes) = launch.lane.variable() {
        command.env("BATON_LANES", lanes);
    }
    // All ranks are on this machine: nothing has to listen where others can reach it.
    command.env("TRTLLM_NIXL_INTERFACE", "lo").env("TRTLLM_UCX_INTERFACE", "lo");
    // And they cannot share the one port that a worker would be given.
    command.env_remove("TRTLLM_NIXL_PORT");
    command.env("BATON_LOG", launch.log_filter);
    if let Some(meetings) = &launch.meetings {
        meet(&mut command, meetings, run, phase, rank);
    }
    if run.seam != Seam::S2 {
        command.args(["--seam", &run.seam.to_string()]);
    }
    command.args([
        "--role",
        phase.role(),
        "--shape",
        &run.layout.to_string(),
        "--backend",
        launch.backend.name(),
    ]);
    let numbers = [
        ("--rank", u64::from(rank)),
        ("--layers", u64::from(shape.model.layers)),
        ("--kv-factor", u64::from(shape.model.kv_factor())),
        ("--kv-heads", u64::from(shape.model.kv_heads)),
        ("--head-dim", u64::from(shape.model.head_dim)),
        ("--element-bytes", shape.dtype.bytes()),
        ("--tokens-per-block", shape.tokens_per_block),
        ("--tp", u64::from(shape.tp)),
        ("--gen-tp", u64::from(shape.gen_tp)),
        ("--pool-blocks", run.pool_blocks),
        ("--seed", launch.seed),
    ];
    for (flag, value) in numbers {
        command.args([flag, &value.to_string()]);
    }
    let index = rank + if phase == Phase::Generation { shape.tp } else { 0 };
    command.args(launch.memories.flags(phase, index));
    if run.layout == Layout::Staged {
        command.args(["--max-tokens-in-buffer", &run.slot_tokens.to_string()]);
    }
    command
}

/// Tells a rank who it is and where its phase meets, over whatever a launcher says to this process.
fn meet(command: &mut Command, meetings: &Meetings, run: &Run, phase: Phase, rank: u32) {
    let (address, ranks) = match phase {
        Phase::Context => (meetings.context, run.shape.tp),
        Phase::Generation => (meetings.generation, run.shape.gen_tp),
    };
    command.env("BATON_RENDEZVOUS", address.to_string());
    command.env("BATON_RANK", rank.to_string()).env("BATON_WORLD_SIZE", ranks.to_string());
}

fn understand(line: String) -> Said {
    match serde_json::from_str(&line) {
        Ok(event) => Said::Event(event),
        Err(_) => Said::Garbage(line),
    }
}

/// Hands on every line until the pipe ends; bytes that are not UTF-8 are replaced.
fn each_line(pipe: impl Read, mut take: impl FnMut(String)) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(count) if count > 0) {
        take(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
}

/// How often a leaving process is looked at.
const POLL: Duration = Duration::from_millis(5);
/// How long a host may take to leave once its stdin has ended.
const LEAVE_LIMIT: Duration = Duration::from_secs(8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_from_garbage() {
        let line =
            r#"{"event":"received","request":3,"submitted_ns":5,"done_ns":9,"bytes":7,"descriptors":1}"#;
        let expected = Event::Received { request: 3, submitted_ns: 5, done_ns: 9, bytes: 7, descriptors: 1 };
        assert!(matches!(understand(line.to_owned()), Said::Event(event) if event == expected));
        let line = r#"{"event":"summary","corrupt":1}"#;
        assert!(matches!(understand(line.to_owned()), Said::Event(Event::Summary {})));
        assert!(matches!(understand("hello".to_owned()), Said::Garbage(_)));
    }

    #[test]
    fn lines_survive_broken_text_and_a_missing_end() {
        let mut lines = Vec::new();
        each_line(&b"one\r\n\xff\nlast"[..], |line| lines.push(line));
        assert_eq!(lines, ["one", "\u{fffd}", "last"]);
    }
}
