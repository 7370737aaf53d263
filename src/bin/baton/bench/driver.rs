//! One driver program: how it is started, asked and ended. `benches/drivers/README.md` has the lines.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::error::BenchError;

/// A running driver.
#[derive(Debug)]
pub struct Driver {
    label: String,
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
    log: Arc<Mutex<VecDeque<String>>>,
    /// Answers that are due and have not been read.
    owed: usize,
}

impl Driver {
    /// Starts a program; `label` names it in errors.
    ///
    /// # Errors
    /// The system cannot start it.
    pub fn start(mut command: Command, label: String) -> Result<Self, BenchError> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let start = |source| BenchError::Start { driver: label.clone(), program, source };
        let mut child = command.spawn().map_err(start)?;
        let (sender, answers) = sync_channel(ANSWERS_MAX);
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let log = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(stderr) = child.stderr.take() {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    keep(&log, line);
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Self { label, child, stdin, answers, log, owed: 0 })
    }

    /// Sends a line without waiting for its answer.
    ///
    /// # Errors
    /// The program has gone.
    pub fn tell(&mut self, line: &str) -> Result<(), BenchError> {
        let sent = self.stdin.as_mut().map(|stdin| writeln!(stdin, "{line}").and_then(|()| stdin.flush()));
        self.owed += 1;
        if matches!(sent, Some(Ok(()))) { Ok(()) } else { Err(self.gone()) }
    }

    /// Sends a line and returns the words of its answer. What was told before has to be answered, too.
    ///
    /// # Errors
    /// Any of these answers is a failure; the program has gone, or says nothing for a long time.
    pub fn ask(&mut self, line: &str) -> Result<Vec<String>, BenchError> {
        self.tell(line)?;
        self.answers(line)
    }

    /// The words of the answer to the last line told.
    ///
    /// # Errors
    /// As [`Driver::ask`].
    pub fn answers(&mut self, line: &str) -> Result<Vec<String>, BenchError> {
        let mut words = Vec::new();
        while self.owed > 0 {
            words = self.answer(line)?;
        }
        Ok(words)
    }

    fn answer(&mut self, line: &str) -> Result<Vec<String>, BenchError> {
        let asked = line.split_whitespace().next().unwrap_or_default().to_owned();
        let said = match self.answers.recv_timeout(PATIENCE) {
            Ok(said) => said,
            Err(RecvTimeoutError::Timeout) => {
                return Err(BenchError::Silent { driver: self.label.clone(), asked, log: self.log() });
            }
            Err(RecvTimeoutError::Disconnected) => return Err(self.gone()),
        };
        self.owed -= 1;
        match said.split_once(' ') {
            Some(("ok", rest)) => Ok(rest.split_whitespace().map(str::to_owned).collect()),
            _ if said == "ok" => Ok(Vec::new()),
            _ => {
                let said = said.strip_prefix("failed ").unwrap_or(&said).to_owned();
                Err(BenchError::Failed { driver: self.label.clone(), asked, said, log: self.log() })
            }
        }
    }

    /// CPU time that all its threads have used.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id()));
        let of_task = |entry: fs::DirEntry| -> Option<u64> {
            let text = fs::read_to_string(entry.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        let threads = tasks.into_iter().flatten().flatten().filter_map(of_task);
        Duration::from_nanos(threads.sum())
    }

    fn gone(&self) -> BenchError {
        BenchError::Gone { driver: self.label.clone(), log: self.log() }
    }

    fn log(&self) -> String {
        let log = self.log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        log.iter().fold(String::new(), |text, line| text + "\n  " + line)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stdin = None; // the end of it ends the program
        let deadline = Instant::now() + LEAVE_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                drop(self.child.kill()); // fails only for one that has ended
                drop(self.child.wait());
                return;
            }
            thread::sleep(LEAVE_POLL);
        }
    }
}

fn keep(log: &Mutex<VecDeque<String>>, line: String) {
    let mut log = log.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if log.len() == LOG_LINES {
        log.pop_front();
    }
    log.push_back(line);
}

/// Answers that may wait to be read; a driver gives one for each line.
const ANSWERS_MAX: usize = 64;
/// Lines of a driver's log that an error quotes.
const LOG_LINES: usize = 20;
/// No answer takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a driver may take to leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
const LEAVE_POLL: Duration = Duration::from_millis(5);
